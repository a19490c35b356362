"""Independent pieces of work, some at a time, a process and a thread each."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any


def in_processes(
    work: Callable[..., Any], pieces: Sequence[tuple[str, tuple]], workers: int
) -> list[Any]:
    """What `work(*arguments)` returns for every piece, in their order; a line when one is done.

    Args:
        work: a function a fresh process can import.  pieces: (label, arguments) of each.

    Raises:
        Exception: the first that a piece raises; those not begun are dropped.
    """
    begin, found = time.perf_counter(), {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
        waiting = {
            pool.submit(work, *arguments): place for place, (_, arguments) in enumerate(pieces)
        }
        for done, future in enumerate(as_completed(waiting), 1):
            try:
                found[waiting[future]] = future.result()
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise
            spent, label = time.perf_counter() - begin, pieces[waiting[future]][0]
            print(f"[{done:2d}/{len(pieces)}] {spent:4.0f} s  {label}", flush=True)
    return [found[place] for place in range(len(pieces))]


def one_thread() -> None:
    os.environ["SAFEERASE_HEADLESS"] = "1"
    import torch

    torch.set_num_threads(1)
