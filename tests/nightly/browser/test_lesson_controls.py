"""Whole lessons in JupyterLab, their sliders and menus moved, with the network off."""

from pathlib import Path

import pytest
from browser_driver import BROWSER, pixels

LESSONS = Path(__file__).parents[3] / "notebooks"
QUICKER = {"every: int = 8 ": "every: int = 24 ", "size: int = 64 ": "size: int = 16 "}


@pytest.mark.parametrize(
    "lesson",
    [
        "05_over_forgetting.ipynb",
        "06_inside_over_forgetting.ipynb",
        "07_does_it_really_forget.ipynb",
    ],
)
def test_a_lesson_runs_and_its_controls_draw_again(lesson, lab, open_notebook):
    source = (LESSONS / lesson).read_text()
    for stated, quicker in QUICKER.items():
        source = source.replace(stated, quicker)
    (lab.root / lesson).write_text(source)
    notebook = open_notebook(lesson)
    notebook.run_all(seconds=600)
    notebook.photograph("run")
    assert notebook.complaints() == []
    assert notebook.cut() == []

    browsers = notebook.page.locator(BROWSER).all()
    assert browsers
    for browser in browsers:
        area = browser.locator("> .widget-output")
        named, seen = notebook.drawn(area), pixels(area)
        for slider in browser.locator(".noUi-handle").all():
            now, most = (slider.get_attribute(f"aria-value{name}") for name in ("now", "max"))
            slider.press("Home" if now == most else "End")
        for menu in browser.locator("select").all():
            menu.select_option(index=menu.locator("option").count() - 1)
        assert notebook.changed(area, named)
        assert pixels(area) != seen
        assert len(pixels(area).getcolors(1 << 24)) > 16  # a picture or words, not an empty frame

    notebook.photograph("moved")
    assert notebook.complaints() == []
    assert notebook.elsewhere == []
