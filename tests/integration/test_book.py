"""The book is built without a warning, its links hold, and no page asks another server."""

import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="no Sphinx: pip install 'safeerase-lite[book]'")

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
}
CHART = re.compile(r"_images/[0-9a-f]{64}\.png$")


class Page(HTMLParser):
    """What a page links to, loads and names.

    links: of every <a>.  loads: what a browser fetches by itself.  ids: the places one can link to.
    charts: the alternative text of every chart of a cell.  terms: the links to the glossary, their
    meaning by their address.
    """

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.charts, self.terms = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.ids |= {about[name] for name in ("id", "name") if about.get(name)}
        if tag == "a" and about.get("href"):
            self.links.append(about["href"])
            if "term" in (about.get("class") or "").split():
                self.terms[about["href"]] = about.get("title")
        if about.get(LOADS.get(tag)) and about.get("rel") in (
            None,
            "stylesheet",
            "preload",
            "icon",
        ):
            self.loads.append(about[LOADS[tag]])
        if tag == "img" and CHART.search(about.get("src") or ""):
            self.charts.append(about.get("alt"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    output = tmp_path_factory.mktemp("book") / "site"
    command = [sys.executable, ROOT / "tools" / "build_book.py", "--output", output]
    built = subprocess.run(command, capture_output=True, text=True, cwd=output.parent)
    assert built.returncode == 0, built.stderr[-4000:]
    return output


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site, read, by its file."""
    files = [file for file in site.rglob("*.html") if "_static" not in file.parts]  # its templates
    return {file: Page(file.read_text(encoding="utf-8")) for file in files}


def inside(link):
    """Whether a link stays in the site."""
    parts = urlsplit(link)
    return not parts.scheme and not parts.netloc


def test_every_link_inside_the_site_leads_to_a_page_and_a_place_in_it(pages):
    dead = defaultdict(list)
    for file, page in pages.items():
        for link in filter(inside, page.links):
            parts = urlsplit(link)
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            if not target.is_file() or (
                target in pages and place and place not in pages[target].ids
            ):
                dead[file.name].append(link)
    assert not dead


def test_no_page_loads_anything_from_another_server(site, pages):
    loaded = {(file.name, name) for file, page in pages.items() for name in page.loads}
    assert not {(file, name) for file, name in loaded if not inside(name) and name[:5] != "data:"}
    styles = {file.name: file.read_text(encoding="utf-8") for file in site.rglob("*.css")}
    asks = re.compile(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//")
    assert not [name for name, text in styles.items() if asks.search(text)]


def test_everything_that_a_page_loads_is_there(pages):
    missing = [
        (file.name, name)
        for file, page in pages.items()
        for name in filter(inside, page.loads)
        if not (file.parent / unquote(urlsplit(name).path)).is_file()
    ]
    assert not missing


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_its_charts_and_its_terms(lesson, site, pages):
    page = pages[site / "notebooks" / f"{lesson.stem}.html"]
    charts = lesson.read_text(encoding="utf-8").count('"image/png": "')
    assert len(page.charts) == charts and all(page.charts), "a chart without its text"
    assert len(page.terms) >= 5
    assert all(page.terms.values()), "a term without its meaning"


def test_no_lesson_or_exercise_shows_a_solution(site):
    files = (site / "notebooks").rglob("[a-z0-9]*_*.html")
    assert not [file.name for file in files if "BEGIN SOLUTION" in file.read_text("utf-8")]
