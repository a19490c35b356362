"""Opening, running and looking at a notebook in JupyterLab, and ending a server."""

import io
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from PIL import Image

WIDTH, HEIGHT = 1280, 900
BROWSER = ".widget-vbox:has(> .widget-output)"  # what sl.browse shows: controls above a drawing
CHART = "[role=graphics-document]"

READY_AND_RUN = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    window.ran = false;
    jupyterapp.commands.execute("notebook:run-all-cells").then(() => window.ran = true);
}"""
IDLE = "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
DRAWN = f"""area => [
    ...[...area.querySelectorAll("img")].map(image => image.src),
    ...[...area.querySelectorAll("{CHART}")].map(chart => chart.ariaLabel),
]"""
CUT = f"""() => [...document.querySelectorAll("{CHART}")].filter(chart => {{
    const place = chart.closest(".jp-Cell-outputArea").getBoundingClientRect();
    return chart.querySelector("svg").getBoundingClientRect().right > place.right;
}}).map(chart => chart.ariaLabel)"""
TO_THE_TOP = "panel => { panel.scrollTop = 0; return panel.scrollHeight; }"
THEME = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"


@dataclass(frozen=True)
class Lab:
    """A running server: its address, the folder it serves, the ledger of its kernels."""

    url: str
    root: Path
    runs: Path


@dataclass(frozen=True)
class Notebook:
    """A notebook open in the browser.

    page: Playwright's.  pictures: where photographs go.
    elsewhere: addresses the page asked for outside the server; none was let through.
    """

    page: object
    name: str
    pictures: Path
    elsewhere: list[str] = field(default_factory=list)

    def run_all(self, seconds: float) -> None:
        """Run every cell and wait for the last one."""
        self.page.evaluate(READY_AND_RUN)
        self.page.wait_for_function("window.ran", timeout=seconds * 1000)

    def complaints(self) -> list[str]:
        """Every traceback and warning, of cells and of controls, and what could not be shown."""
        red = '[data-mime-type="application/vnd.jupyter.stderr"], .jupyter-widgets-error-widget'
        return self.page.locator(red).all_inner_texts()

    def drawn(self, area) -> list[str]:
        """The pictures and charts in an element, told apart by content and by alt text; where there
        are none, its words."""
        words = area.inner_text().strip()
        return area.evaluate(DRAWN) or [words] * bool(words)

    def cut(self) -> list[str]:
        """Charts that are wider than the page."""
        return self.page.evaluate(CUT)

    def changed(self, area, before: list[str], seconds: float = 60) -> bool:
        """Whether an element comes to show something, and something else than before."""

        def different() -> bool:
            return self.page.evaluate(IDLE) and self.drawn(area) not in ([], before)

        return self.eventually(different, seconds)

    def eventually(self, condition, seconds: float = 20) -> bool:
        for _ in range(int(seconds * 5)):
            if condition():
                return True
            self.page.wait_for_timeout(200)
        return False

    def photograph(self, when: str) -> None:
        """Save the whole notebook as a picture, in the light and in the dark theme."""
        page = self.page
        high = page.locator(".jp-WindowedPanel-outer").evaluate(TO_THE_TOP)
        page.set_viewport_size({"width": WIDTH, "height": min(high + 150, 16_000)})
        for theme in ("Light", "Dark"):
            page.evaluate(THEME, f"JupyterLab {theme}")
            page.wait_for_selector(f"body[data-jp-theme-name$={theme}]", state="attached")
            page.wait_for_timeout(500)
            page.screenshot(path=self.pictures / f"{self.name}-{when}-{theme.lower()}.png")
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def pixels(element) -> Image.Image:
    """What an element looks like."""
    return Image.open(io.BytesIO(element.screenshot())).convert("RGB")


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


def stop(server: subprocess.Popen) -> None:
    """End a server and its kernels, which are given time to end by themselves."""
    parent = psutil.Process(server.pid)
    kernels = parent.children(recursive=True)
    server.terminate()
    _, left = psutil.wait_procs([parent, *kernels], timeout=20)
    for process in left:
        process.kill()
    server.wait()
