"""The closing line of a lesson: versions, data, time and memory."""

import time

from safeerase_lite.runs.store import library_versions
from safeerase_lite.utils import IMPORTED, peak_memory_gb


def stamp(data=None) -> None:
    """Print versions, the data's digest, the seconds since the package was imported and the most
    memory this process has held. The figures are also in the output's metadata."""
    from IPython.display import display

    seconds, memory = time.perf_counter() - IMPORTED, peak_memory_gb()
    versions = ", ".join(
        f"{name} {version or 'not installed'}" for name, version in library_versions().items()
    )
    digest = f", data {data.digest}" if data is not None else ""
    text = f"{versions}{digest}. {seconds:.0f} seconds, {memory:.2f} GB at most."
    figures = {"seconds": round(seconds, 1), "peak_memory_gb": round(memory, 3)}
    display({"text/plain": text}, raw=True, metadata={"safeerase": figures})
