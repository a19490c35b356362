"""Is somebody watching? Progress bars when live, one line when headless."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

from .errors import UserError


def is_live() -> bool:
    """Whether a person can see this update: a notebook in a browser, or a terminal.

    `SAFEERASE_HEADLESS=1` or `0` overrides what is detected.
    """
    asked = os.environ.get("SAFEERASE_HEADLESS")
    if asked is not None:
        if asked not in ("0", "1"):
            raise UserError(f"SAFEERASE_HEADLESS is {asked!r}; set it to 0 or 1")
        return asked == "0"
    kernel = _kernel()
    if kernel is not None:
        return kernel._allow_stdin is not False
    return sys.stderr.isatty()


def _kernel():
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None)


def track(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yield the items, showing progress: a bar when live, one summary line when headless."""
    if is_live():
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    begin, count = time.perf_counter(), 0
    for item in items:
        yield item
        count += 1
    seconds = time.perf_counter() - begin
    if seconds > 3:
        print(f"{label}: {count} in {seconds:.1f} s", flush=True)
