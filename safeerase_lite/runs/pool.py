"""The former name of `executor.parallel_map`, for callers that have not moved yet."""

from safeerase_lite.runs.executor import one_thread, parallel_map

__all__ = ["in_processes", "one_thread"]


def in_processes(work, pieces, workers: int) -> list:
    labels, tasks = [label for label, _ in pieces], [task for _, task in pieces]
    return parallel_map(work, tasks, workers=workers, labels=labels)
