"""The first ten minutes of a new student, in JupyterLab, with the network off."""

import json
import shutil
from pathlib import Path

COPIES = Path(__file__).parents[2] / "notebooks" / "exercises" / "student"
NAME = "a_the_loss_on_the_answer.ipynb"

LABELS_FOR = "def labels_for(prompt, answer, end):\n    return "
PICTURE_ONLY = "[-100 if token == 4 else token for token in prompt] + answer + [end]"
RIGHT = "[-100] * len(prompt) + answer + [end]"


def test_a_student_is_told_what_is_wrong_and_then_that_it_is_right(lab, open_notebook):
    shutil.copy(COPIES / NAME, lab.root)
    notebook = open_notebook(NAME)
    notebook.run_all(seconds=120)
    notebook.photograph("unsolved")
    page = notebook.page
    answer = page.locator(".jp-CodeCell", has_text="def labels_for")
    checked = page.locator(".jp-CodeCell", has_text='check("a1"').locator(".jp-OutputArea-output")
    assert checked.inner_text().startswith("a1 ⏳ not yet: ")

    def solve(expression, told):
        answer.locator(".cm-content").click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(LABELS_FOR + expression)
        page.keyboard.press("Shift+Enter")  # this cell, and on to the next
        page.keyboard.press("Shift+Enter")
        assert notebook.eventually(lambda: checked.inner_text().startswith(told))

    solve(PICTURE_ONLY, "a1 ❌ wrong: the picture is masked, the question is not")
    notebook.photograph("wrong")
    solve(RIGHT, "a1 ✅ right: ")
    notebook.run_all(seconds=120)
    notebook.photograph("right")

    kept = json.loads((lab.root / ".safeerase_progress.json").read_text())
    assert kept["a1"]["done"]
    assert page.locator(".jp-RenderedHTML", has_text="Where the answer is").count() == 1
    assert notebook.complaints() == []
    assert notebook.elsewhere == []
