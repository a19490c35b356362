"""Where work runs: worker processes on this machine, a Dask scheduler, or a SLURM job per worker.

Each is a `concurrent.futures.Executor`, so the code that hands out work is the same for all.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures import as_completed as futures_as_completed
from contextlib import contextmanager
from typing import Any

import psutil

from safeerase_lite.utils import UserError, print_any_character

CONNECT_TIMEOUT = 10.0  # seconds that a running scheduler may take to answer
RUN_GB = 1.5  # memory set aside for each run on this machine; a tiny one holds 1.2


def parallel_map(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int,
    labels: Sequence[str] | None = None,
) -> list[Any]:
    """`[function(*task) for task in tasks]`, on worker processes of this machine.

    Prints a line when a task is done. A worker uses one thread, so that results do not depend on
    how many cores there are.

    Args:
        function: what a fresh process can import.
        labels: of each task, for its line.

    Raises:
        Exception: the first that a task raises; tasks already begun are finished, others dropped.
        KeyboardInterrupt: at once; tasks already begun are ended.
    """
    begin, results = time.perf_counter(), {}
    with local_executor(workers, one_thread) as executor:
        for index, future in as_completed(executor, function, tasks):
            results[index] = future.result()
            seconds, label = time.perf_counter() - begin, labels[index] if labels else ""
            print(f"[{len(results):2d}/{len(tasks)}] {seconds:4.0f} s  {label}", flush=True)
    return [results[index] for index in sorted(results)]


def as_completed(
    executor: Executor, function: Callable[..., Any], tasks: Sequence[tuple]
) -> Iterator[tuple[int, Future]]:
    """Submit `function(*task)` for every task; yield its index and its future as each ends."""
    indices = {executor.submit(function, *task): index for index, task in enumerate(tasks)}
    return ((indices[future], future) for future in futures_as_completed(indices))


# ---- this machine ----


@contextmanager
def gpu_executor(gpus: list[str]) -> Iterator[Executor]:
    """A worker process for each of these GPUs, which sees that one alone."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    for gpu in gpus:
        queue.put(gpu)
    with local_executor(len(gpus), _use_next_gpu, queue) as executor:
        yield executor


@contextmanager
def local_executor(
    workers: int, initializer: Callable[..., None] | None = None, *initargs: Any
) -> Iterator[Executor]:
    """Worker processes; `initializer(*initargs)` runs first in each of them.

    An exception in the block drops the tasks that have not begun. Ctrl-C also ends the workers. If
    this process is killed, its workers end with it.
    """
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # CUDA and threads do not survive a fork
        initializer=_start_worker,
        initargs=(initializer, *initargs),
    )
    with executor:
        try:
            yield executor
        except Exception:
            executor.shutdown(cancel_futures=True)
            raise
        except BaseException:  # Ctrl-C; without this, a pool waits for the tasks that have begun
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def one_thread() -> None:
    """Make this process compute with one thread, and print no progress bars."""
    os.environ["SAFEERASE_HEADLESS"] = "1"
    import torch

    torch.set_num_threads(1)


def _start_worker(initializer: Callable[..., None] | None, *initargs: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print_any_character()
    if initializer:
        initializer(*initargs)


def _use_next_gpu(queue: Any) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = queue.get()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def cpu_count() -> int:
    """The CPUs this process may use. macOS and Windows only know how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_capacity(threads: int) -> int:
    """How many runs of so many threads this machine's cores and memory carry at a time."""
    by_memory = int(psutil.virtual_memory().available / 1024**3 // RUN_GB)
    return max(1, min(cpu_count() // threads, by_memory))


def visible_gpus() -> list[str]:
    """The GPUs this process may use, by the names CUDA_VISIBLE_DEVICES has for them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


# ---- a cluster ----


@contextmanager
def dask_executor(
    scheduler: str, *, gpu: bool = False, log: Callable[[str], None] = print
) -> Iterator[Executor]:
    """The workers of a Dask scheduler that is running already, at this address.

    They need this package and the same folders (a shared file system). With `gpu`, each task takes
    one unit of the resource GPU that the workers were started with.
    """
    distributed = _import_dask()
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what fails is raised
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        count = len(client.scheduler_info()["workers"])
        log(f"{count} workers at {scheduler}" + ("" if count else ": waiting for the first"))
        yield client.get_executor(pure=False, resources={"GPU": 1} if gpu else {})


@contextmanager
def slurm_executor(
    settings: dict[str, Any], *, jobs: int, threads: int, gpu: bool
) -> Iterator[Executor]:
    """Workers in SLURM jobs, a worker per job. Arguments as of `slurm_cluster`."""
    if not shutil.which("sbatch"):
        raise UserError("this sweep needs SLURM and there is no sbatch here: use a login node")
    with slurm_cluster(settings, threads=threads, gpu=gpu) as cluster:
        cluster.scale(jobs=jobs)
        with cluster.get_client() as client:
            yield client.get_executor(pure=False, resources={"GPU": 1} if gpu else {})


def slurm_cluster(settings: dict[str, Any], *, threads: int, gpu: bool):
    """A dask-jobqueue SLURMCluster whose jobs carry one task at a time; nothing is submitted yet.

    Args:
        settings: of SLURMCluster.
        threads: CPUs of each job.
        gpu: each worker offers one GPU.
    """
    _import_dask()
    from dask_jobqueue import SLURMCluster

    one_task = {"processes": 1, "cores": 1, "job_cpu": threads}
    resources = {"worker_extra_args": ["--resources", "GPU=1"] if gpu else []}
    try:
        return SLURMCluster(**(one_task | resources | settings), nanny=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"slurm: {error}") from None


def _import_dask():
    try:
        import distributed
    except ImportError:
        raise UserError(
            "a cluster needs Dask: pip install 'safeerase-lite[sweep]' (or dask distributed "
            "dask-jobqueue)"
        ) from None
    return distributed
