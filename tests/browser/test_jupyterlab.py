"""What a reader sees and touches in JupyterLab, with the network off."""

import json

import nbformat
from browser_driver import BROWSER, CHART, pixels
from nbformat.v4 import new_code_cell, new_notebook
from PIL import ImageColor

THIRD_TERM = "#009E73"  # the colour of the third line of a history

SMALL = [
    "import pandas as pd\nimport safeerase_lite as sl",
    'sl.predict("small", options=["it falls", "it stays where it was, within 10 points"])',
    """\
terms = {"PO": ["forget", "retain"], "PO + PD": ["forget", "retain", "decouple"]}


def view(run, steps):
    losses = {term: [4 - n - 0.05 * i for i in range(steps)] for n, term in enumerate(terms[run])}
    sl.plots.show(sl.plots.history(pd.DataFrame({"step": range(steps)} | losses)))


sl.browse(view, run=list(terms), steps=range(10, 50, 10))""",
]


def test_charts_controls_and_predictions_are_alive(lab, open_notebook):
    python = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [new_code_cell(source) for source in SMALL]
    written = new_notebook(cells=cells, metadata={"kernelspec": python})
    nbformat.write(written, lab.root / "small.ipynb")
    notebook = open_notebook("small.ipynb")
    notebook.run_all(seconds=90)
    page, chart = notebook.page, notebook.page.locator(f"{BROWSER} {CHART}")

    page.wait_for_selector(f'{CHART}[aria-label*="over 10 steps"]')
    assert how_much(THIRD_TERM, pixels(chart)) == 0

    page.locator(f"{BROWSER} select").select_option("PO + PD")
    page.wait_for_selector(f'{CHART}[aria-label*="decouple"]')
    short = pixels(chart)
    assert how_much(THIRD_TERM, short) > 100  # a line of that colour, not words about it

    page.locator(f"{BROWSER} .noUi-handle").press("ArrowRight")
    page.wait_for_selector(f'{CHART}[aria-label*="over 20 steps"]')
    assert chart.count() == 1
    assert how_much(THIRD_TERM, pixels(chart)) > 100 and pixels(chart) != short

    buttons = page.locator(".widget-toggle-buttons button")
    assert buttons.count() == 2
    assert buttons.evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")
    buttons.last.click()
    kept = lab.runs / "predictions.json"
    assert notebook.eventually(lambda: "choice" in json.loads(kept.read_text())["small"])
    assert json.loads(kept.read_text())["small"]["choice"].startswith("it stays")

    notebook.photograph("end")
    page.set_viewport_size({"width": 800, "height": 900})
    assert notebook.cut() == []
    assert notebook.complaints() == []
    assert notebook.elsewhere == []


def how_much(colour: str, picture) -> int:
    """The number of pixels of a colour."""
    wanted = ImageColor.getrgb(colour)
    return sum(count for count, found in picture.getcolors(1 << 24) if found == wanted)
