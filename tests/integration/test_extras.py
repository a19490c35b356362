"""What the core dependencies are enough for."""

import subprocess
import sys

import pytest

NOTEBOOKS = ["altair", "anywidget", "ipywidgets", "jupyter_client", "jupyterlab", "nbformat",
             "papermill", "vl_convert"]  # fmt: skip


@pytest.mark.parametrize("module", ["unlearning.trainer", "evaluation.evaluate"])
def test_training_and_evaluating_do_not_need_the_notebooks_extra(module):
    """As where `safeerase-lite` was installed without `[notebooks]`."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({NOTEBOOKS}))"
    result = subprocess.run(
        [sys.executable, "-c", f"{blocked}; import safeerase_lite.{module}"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
