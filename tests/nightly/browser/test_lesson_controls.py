"""A whole lesson in JupyterLab, its sliders and menus moved, with the network off."""

from pathlib import Path

from browser_driver import BROWSER, pixels

LESSON = Path(__file__).parents[3] / "notebooks" / "05_over_forgetting.ipynb"


def test_a_lesson_runs_and_its_controls_draw_again(lab, open_notebook):
    seldom = LESSON.read_text().replace("every: int = 4 ", "every: int = 24 ")
    (lab.root / LESSON.name).write_text(seldom)
    notebook = open_notebook(LESSON.name)
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
        assert len(pixels(area).getcolors(1 << 24)) > 16  # a picture, not an empty frame

    notebook.photograph("moved")
    assert notebook.complaints() == []
    assert notebook.elsewhere == []
