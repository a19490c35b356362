"""A JupyterLab of its own on loopback, and a Chromium that reaches nothing else."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from browser_driver import HEIGHT, WIDTH, Lab, Notebook, stop, wait_for

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {
        "windowingMode": "none",  # every cell in the page
        "scrollPastEnd": False,
    },
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}


@pytest.fixture
def chromium():
    # For one test only: while Playwright's loop runs, no other test can run a loop of its own.
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium: install it from the system's packages (apt install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def lab(chromium, tmp_path):
    """A server of an empty folder, with settings, ledger and cache of its own."""
    root, runs, jupyter = (tmp_path / name for name in ("notebooks", "runs", "jupyter"))
    settings = jupyter / "config" / "labconfig" / "default_setting_overrides.json"
    for folder in (root, settings.parent):
        folder.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
    ours = {
        "SAFEERASE_RUNS": runs,
        "SAFEERASE_CACHE": tmp_path / "cache",
        "JUPYTER_CONFIG_DIR": jupyter / "config",
        "JUPYTER_DATA_DIR": jupyter / "data",
        "JUPYTER_RUNTIME_DIR": jupyter / "runtime",
        "IPYTHONDIR": jupyter / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": jupyter / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": jupyter / "workspaces",
    }
    environment = os.environ | {name: str(folder) for name, folder in ours.items()}
    environment.pop("SAFEERASE_HEADLESS", None)  # somebody is watching
    environment.pop("SAFEERASE_PROGRESS", None)  # kept beside the notebook
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
    log = tmp_path / "jupyterlab.log"
    with log.open("w") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, log)
        yield Lab(f"http://127.0.0.1:{port}", root, runs)
    finally:
        stop(server)


@pytest.fixture
def open_notebook(chromium, lab, tmp_path):
    """Open a notebook that lies in the server's folder, given its file name.

    Photographs go to $SAFEERASE_SCREENSHOTS where it names a folder.
    """
    pictures = Path(os.environ.get("SAFEERASE_SCREENSHOTS") or tmp_path / "screenshots")
    pictures.mkdir(parents=True, exist_ok=True)

    def start(name: str) -> Notebook:
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        notebook = Notebook(page, Path(name).stem, pictures)

        def gate(route):
            if route.request.url.startswith(f"{lab.url}/"):
                route.continue_()
            else:
                notebook.elsewhere.append(route.request.url)
                route.abort()

        page.route("**/*", gate)
        page.goto(f"{lab.url}/lab/tree/{name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        return notebook

    return start
