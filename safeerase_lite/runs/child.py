"""The process of one run of a sweep: `python -m safeerase_lite.runs.child`.

A line of JSON comes in: notebook, output, parameters, time limit. One line goes out, and the status
says how it went. The process ends with whoever started it, and its kernel ends with it.
"""

import json
import os
import sys
import threading

from safeerase_lite.runs.notebook import KernelLost, NotebookFailed, execute
from safeerase_lite.utils import UserError

COMPLETE, FAILED, BAD_INPUT, LOST = 0, 1, 2, 3
FINAL = (COMPLETE, FAILED, BAD_INPUT)  # the next attempt would end the same way
KINDS = {UserError: BAD_INPUT, KernelLost: LOST, NotebookFailed: FAILED}  # the special first


def main() -> int:
    notebook, target, given, time_limit = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        execute(notebook, target, given, time_limit=time_limit)
    except (UserError, NotebookFailed) as error:
        print(error, flush=True)
        return next(status for kind, status in KINDS.items() if isinstance(error, kind))
    except Exception as error:  # a full disk, say: the next attempt may do better
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return LOST
    return COMPLETE


def _end_with_the_parent() -> None:
    os.read(0, 1)  # nothing is ever sent: this returns when the parent's end closes
    os._exit(LOST)


if __name__ == "__main__":
    sys.exit(main())
