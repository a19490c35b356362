"""One process or several: `torchrun` starts them, and what is done once the main one does."""

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from safeerase_lite.utils import UserError

TIMEOUT = timedelta(days=1)  # the others wait while the main process evaluates


@cache
def launched() -> PartialState:
    """How many processes this launch has, and which of them this is.

    Without a GPU, Accelerate has to be told to use the CPU: else it takes each for the only one.
    """
    on_cpu = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=TIMEOUT)
    atexit.register(state.destroy_process_group)
    return state


def by_main(do: Callable, *arguments: Any, **named: Any) -> Any:
    """What `do` returns in the main process, or its UserError, in every process."""
    result = None
    if launched().is_main_process:
        try:
            result = do(*arguments, **named)
        except UserError as error:
            result = error
    [result] = broadcast_object_list([result])
    if isinstance(result, UserError):
        raise result
    return result
