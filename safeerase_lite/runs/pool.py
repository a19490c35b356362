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
        KeyboardInterrupt: at once.
    """
    begin, found = time.perf_counter(), {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
        waiting = {
            pool.submit(work, *arguments): place for place, (_, arguments) in enumerate(pieces)
        }
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                found[waiting[future]] = future.result()
                spent, label = time.perf_counter() - begin, pieces[waiting[future]][0]
                print(f"[{done:2d}/{len(pieces)}] {spent:4.0f} s  {label}", flush=True)
        except KeyboardInterrupt:  # those begun end too; a pool would wait for them
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[place] for place in range(len(pieces))]


def one_thread() -> None:
    os.environ["SAFEERASE_HEADLESS"] = "1"
    import torch

    torch.set_num_threads(1)
