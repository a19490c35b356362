"""Navigation is generated, the same every time; and whatever is taken from a lesson is missed."""

from pathlib import Path

import lesson_rules
import lessons
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from safeerase_lite.utils import UserError

ROOT = Path(__file__).parents[3]

OPENING = """\
# {title}

*How one looks at it.*

**You will learn** nothing. **Minutes:** one to read, none to run. **Needs:** nothing.

**The question:** what is to be seen? **The figure:** two circles. **To do:** look."""
PNG = "iVBORw0KGgo="
COLLAPSED = {"jupyter": {"outputs_hidden": True}, "tags": ["hide-output"]}
STAMP = {"safeerase": {"seconds": 41.2, "peak_memory_gb": 0.987}}
URL = "https://github.com/somebody/some-thing"


def picture(alt="Two circles."):
    about = {"image/png": {"alt": alt}} if alt else {}
    return new_output("display_data", {"image/png": PNG, "text/plain": "x"}, metadata=about)


def lesson(title="A lesson"):
    """A small lesson that holds to every rule, but for what is generated."""
    stamped = new_output("display_data", {"text/plain": "41 seconds"}, metadata=STAMP)
    cells = [
        new_markdown_cell(OPENING.format(title=title), id="opening"),
        new_code_cell("import safeerase_lite as sl", id="a-hash"),
        new_code_cell(
            'profile: str = "tiny"  # which machine\nseed: int = 0\n'
            'runs_dir: str = ""  # the ledger',
            id="parameters",
            metadata={"tags": ["parameters"]},
        ),
        new_code_cell('sl.predict("one", options=["a", "b"])', id="one"),
        new_code_cell(
            'sl.outcome("one", "a")', id="one-told", outputs=[picture()], metadata=COLLAPSED
        ),
        new_code_cell("sl.predict(\n    'two', options=['a', 'b'])", id="two"),
        new_code_cell('sl.outcome("two", "b")', id="two-told", metadata=COLLAPSED),
        new_code_cell("sl.plots", id="circles", outputs=[picture()], metadata={"tags": ["figure"]}),
        new_code_cell("mine = None", id="mine", metadata={"tags": ["to-do"]}),
        new_markdown_cell("## What would refute this?", id="refute"),
        new_code_cell('sl.calibration("one", "two")', id="calibration"),
        new_markdown_cell("## What to try next\n\n[contents](../docs/lessons.md)", id="next"),
        new_code_cell("sl.stamp()", id="stamp", outputs=[stamped]),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def repository(tmp_path):
    """A repository of three lessons and no address."""
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "lessons.md"
    page.write_text("above\n<!-- lessons -->\n<!-- /lessons -->\nbelow\n")
    (tmp_path / "notebooks").mkdir()
    for name in ("00_first", "01_second", "02_third"):
        title = name[3:].capitalize()
        nbformat.write(lesson(title), tmp_path / "notebooks" / f"{name}.ipynb")
    address(tmp_path, "")
    return tmp_path


def address(root, url):
    urls = f'[project.urls]\nRepository = "{url}"\n' if url else ""
    (root / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}')


def run(command, root, *options):
    return CliRunner().invoke(lessons.app, [command, "--root", str(root), *options])


def texts(root):
    return {path.name: path.read_text() for path in sorted((root / "notebooks").iterdir())}


def cell(root, name, id):
    [found] = [c for c in lessons.read(root / "notebooks" / name).cells if c.id == id]
    return found


# ---- navigate ----


def test_navigation_leads_through_the_lessons_in_order(repository):
    assert run("navigate", repository).exit_code == 0
    line = "[← First](00_first.ipynb) · [Contents](../docs/lessons.md) · [Third →](02_third.ipynb)"
    for id in ("navigation", "navigation-end"):
        assert cell(repository, "01_second.ipynb", id).source == line
        assert cell(repository, "01_second.ipynb", id).metadata.tags == ["generated"]
    assert "←" not in cell(repository, "00_first.ipynb", "navigation").source
    assert "→" not in cell(repository, "02_third.ipynb", "navigation").source
    cells = lessons.read(repository / "notebooks" / "01_second.ipynb").cells
    assert [cells[0].id, cells[-1].id] == ["navigation", "navigation-end"]


@pytest.mark.parametrize("url", ["", URL])
def test_navigating_twice_changes_nothing_more(repository, url):
    address(repository, url)
    assert "00_first.ipynb: written" in run("navigate", repository).output
    once = texts(repository)
    assert run("navigate", repository).output == ""
    assert texts(repository) == once


def test_navigation_touches_nothing_else(repository):
    before = lessons.read(repository / "notebooks" / "01_second.ipynb")
    run("navigate", repository)
    after = lessons.read(repository / "notebooks" / "01_second.ipynb")
    own = [c for c in after.cells if c.id not in ("navigation", "navigation-end")]
    assert [c.source for c in own] == [c.source for c in before.cells]
    assert [c.get("outputs") for c in own] == [c.get("outputs") for c in before.cells]
    assert [c.get("execution_count") for c in own] == [
        c.get("execution_count") for c in before.cells
    ]
    assert after.metadata == before.metadata


def test_navigation_collapses_what_tells_an_outcome_and_nothing_else(repository):
    path = repository / "notebooks" / "01_second.ipynb"
    node = lessons.read(path)
    at(node, "one-told").metadata = {}
    at(node, "circles").metadata = {"jupyter": {"outputs_hidden": True}, "tags": ["figure"]}
    path.write_text(lesson_rules.written(node))
    run("navigate", repository)
    after = lessons.read(path)
    assert at(after, "one-told").metadata == COLLAPSED
    assert at(after, "circles").metadata == {"tags": ["figure"]}
    assert [cell.id for cell in lesson_rules.revealing(after)] == ["one-told", "two-told"]


def test_a_new_lesson_is_linked_from_its_neighbours(repository):
    run("navigate", repository)
    nbformat.write(lesson("Between"), repository / "notebooks" / "01_between.ipynb")
    run("navigate", repository)
    assert (
        "[Between →](01_between.ipynb)" in cell(repository, "00_first.ipynb", "navigation").source
    )
    assert (
        "[← Between](01_between.ipynb)" in cell(repository, "01_second.ipynb", "navigation").source
    )
    assert run("check", repository).exit_code == 0


def test_without_an_address_there_is_no_badge_and_nothing_to_install(repository):
    run("navigate", repository)
    assert "badge" not in "".join(texts(repository).values())
    assert cell(repository, "00_first.ipynb", "import").source == "import safeerase_lite as sl"


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}.git"])
def test_with_an_address_there_are_badges_with_alt_text(repository, url):
    address(repository, url)
    run("navigate", repository)
    source = cell(repository, "00_first.ipynb", "navigation").source
    assert "[![Open this lesson in Colab](" in source
    assert (
        "(https://colab.research.google.com/github/somebody/some-thing/blob/main/notebooks/"
        "00_first.ipynb)" in source
    )
    assert "[![Open this lesson on Binder](" in source
    assert (
        "(https://mybinder.org/v2/gh/somebody/some-thing/main?labpath=notebooks/00_first.ipynb)"
        in source
    )
    assert "badge" not in cell(repository, "00_first.ipynb", "navigation-end").source


def test_with_an_address_the_import_installs_what_is_missing_and_no_torch(repository):
    from IPython.core.inputtransformer2 import TransformerManager

    address(repository, URL)
    run("navigate", repository)
    imports = cell(repository, "00_first.ipynb", "import")
    install = f'%pip install --quiet "safeerase-lite[notebooks] @ git+{URL}"'
    assert install in imports.source and "torch" not in imports.source
    compile(TransformerManager().transform_cell(imports.source), "import", "exec")
    assert imports.metadata.tags == ["generated"] and imports.execution_count == 1


def test_a_lost_address_takes_the_badges_along(repository):
    run("navigate", repository)
    without = texts(repository)
    address(repository, URL)
    run("navigate", repository)
    assert texts(repository) != without
    address(repository, "")
    run("navigate", repository)
    assert texts(repository) == without


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b"])
def test_an_address_elsewhere_is_refused(repository, url):
    address(repository, url)
    result = run("navigate", repository)
    assert result.exit_code == 2 and "make it https://github.com/OWNER/NAME" in result.output


# ---- check ----


@pytest.fixture
def checked(repository):
    """What is found in a lesson after `change`; of a sound one, nothing."""
    run("navigate", repository)
    about = lessons.course(repository).lesson("01_second.ipynb")

    def checked(change=None):
        node = lessons.read(repository / "notebooks" / "01_second.ipynb")
        if change:
            node = change(node) or node
        return lesson_rules.findings(node, about)

    assert checked() == []
    return checked


def at(node, id):
    return next(cell for cell in node.cells if cell.id == id)


def without(id):
    def change(node):
        node.cells = [cell for cell in node.cells if cell.id != id]
        for count, cell in enumerate((c for c in node.cells if c.cell_type == "code"), 1):
            cell.execution_count = count

    return change


def source(id, text):
    return lambda node: at(node, id).update(source=text)


def swapped(id, old, new=""):
    return lambda node: source(id, at(node, id).source.replace(old, new))(node)


def shows(id, output):
    return lambda node: at(node, id).outputs.append(output)


def says(id, text):
    return shows(id, new_output("stream", name="stdout", text=text))


def tagged(id, *tags):
    return lambda node: at(node, id).metadata.update(tags=list(tags))


def marked(part, key):
    return lambda node: (at(node, part) if part else node).metadata.update({key: {"x": 1}})


def moved_to_the_end(id):
    return lambda node: node.cells.append(node.cells.pop(node.cells.index(at(node, id))))


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
STDERR = new_output("stream", name="stderr", text="a warning")

# rule → what is done to the lesson, the cell that is named, and what the finding says
BREAKAGES = {
    "form": [
        (lambda node: node.update(nbformat_minor=4), "-", "nbformat 4.5"),
        (lambda node: at(node, "two").update(id="one"), "one", "stands on 2 cells"),
        (lambda node: at(node, "two").pop("id"), "-", "no valid notebook"),
    ],
    "kernelspec": [(lambda node: node.metadata.pop("kernelspec"), "-", "kernelspec")],
    "navigation": [
        (without("navigation"), "navigation", "is missing"),
        (without("navigation-end"), "navigation-end", "is missing"),
        (without("import"), "import", "is missing"),
        (swapped("navigation", "](00_first.ipynb)"), "navigation", "not as generated"),
        (
            swapped("navigation-end", f"[Contents]({lessons.CONTENTS}) · "),
            "navigation-end",
            "generated",
        ),
        (source("import", "import safeerase_lite"), "import", "not as generated"),
        (tagged("navigation"), "navigation", "not as generated"),
        (moved_to_the_end("navigation"), "navigation", "not in its place"),
        (moved_to_the_end("import"), "parameters", "before the import"),
    ],
    "relative_links": [(source("next", "## What to try next\n[x](07_x.ipynb)"), "next", "07_x")],
    "parameters_cell": [
        (without("parameters"), "-", "0 cells are tagged"),
        (tagged("parameters"), "-", "0 cells are tagged"),
        (tagged("one", "parameters"), "-", "2 cells are tagged"),
        (source("parameters", "seed = 0"), "parameters", "line 1 with its type"),
        (source("parameters", "seed: int = 0\nname: str | None = None"), "parameters", "line 2"),
        (source("parameters", "when: date = 0"), "parameters", "one of str, int, float, bool"),
        (source("parameters", "seed: int = 0\nprint(seed)"), "parameters", "line 2 with its type"),
        (source("parameters", "seed: int = 2 * other"), "parameters", "write a literal"),
        (source("parameters", "seed: int = (0"), "parameters", "01_second.ipynb is not Python"),
    ],
    "opening": [
        (swapped("opening", "# Second"), "-", "no `# ` heading"),
        (swapped("opening", "You will learn"), "-", "**You will learn**"),
        (swapped("opening", "Minutes"), "-", "**Minutes**"),
        (swapped("opening", "Needs"), "-", "**Needs**"),
        (swapped("opening", "The question"), "-", "**The question**"),
        (swapped("opening", "The figure"), "-", "**The figure**"),
        (swapped("opening", "To do"), "-", "**To do**"),
        (lambda node: node.cells.insert(6, node.cells.pop(1)), "-", "before the first code"),
    ],
    "story": [
        (tagged("circles"), "-", "0 cells are tagged 'figure'"),
        (tagged("mine", "figure", "to-do"), "-", "2 cells are tagged 'figure'"),
        (lambda node: at(node, "circles").update(outputs=[]), "circles", "shows no picture"),
        (tagged("mine"), "-", "no cell is tagged 'to-do'"),
    ],
    "length": [(source("mine", "x = 1\n" * 150), "-", "150 at most")],
    "spoilers": [
        (lambda node: at(node, "one-told").metadata.clear(), "one-told", "was to be predicted"),
        (tagged("one-told"), "one-told", "was to be predicted"),
        (lambda node: node.cells.insert(5, node.cells.pop(8)), "circles", "was to be predicted"),
    ],
    "sections": [
        (without("refute"), "-", "What would refute this?"),
        (swapped("next", "What to try next", "Sources"), "-", "What to try next"),
    ],
    "predictions": [
        (without("two"), "-", "asks for 1 predictions"),
        (without("two-told"), "two", "prediction 'two' has no sl.outcome"),
        (lambda node: node.cells.insert(3, node.cells.pop(7)), "two", "prediction 'two' has no"),
        (without("calibration"), "-", "no sl.calibration"),
        (lambda node: node.cells.insert(3, node.cells.pop(11)), "-", "no sl.calibration"),
    ],
    "stamp": [
        (without("stamp"), "calibration", "does not call sl.stamp"),
        (lambda node: at(node, "stamp").update(outputs=[]), "stamp", "no stamp in its output"),
    ],
    "alt_text": [
        (shows("one", picture(alt="")), "one", "picture without alt text"),
        (shows("one", picture(alt=" ")), "one", "picture without alt text"),
        (
            source("refute", "## What would refute this?\n![](https://x/y.png)"),
            "refute",
            "alt text",
        ),
    ],
    "stripped": [
        (marked("", "widgets"), "-", "metadata.widgets"),
        (marked("", "papermill"), "-", "metadata.papermill"),
        (marked("one", "papermill"), "one", "metadata.papermill"),
    ],
    "quiet": [
        (shows("one", ERROR), "one", "ends in ValueError"),
        (shows("one", STDERR), "one", "writes to stderr"),
    ],
    "machine_paths": [
        (says("one", "kept in /tmp/x/runs"), "one", "(/tmp)"),
        (says("one", "line\n/home/ada"), "one", "(/home)"),
        (says("one", "'/root/.cache'"), "one", "(/root)"),
        (says("one", "lib/python3.11/site-packages/x.py"), "one", "(site-packages)"),
        (shows("one", new_output("display_data", {"text/html": "<b>/home/ada"})), "one", "(/home)"),
    ],
    "executed": [
        (lambda node: at(node, "two").update(execution_count=9), "two", "[9], should be [5]"),
        (lambda node: at(node, "two").update(execution_count=None), "two", "ran as [None]"),
        (
            lambda node: (
                [c.update(outputs=[]) for c in node.cells if c.cell_type == "code"] and None
            ),
            "-",
            "has no outputs",
        ),
    ],
    "size": [(says("one", "x" * 150_000), "-", "of 150")],
}
CASES = [
    pytest.param(change, id, message, id=f"{rule}-{number}")
    for rule, cases in BREAKAGES.items()
    for number, (change, id, message) in enumerate(cases)
]


def test_every_rule_is_broken_below():
    assert set(BREAKAGES) == {"form", *(rule.__name__ for rule in lesson_rules.RULES)}


@pytest.mark.parametrize(("change", "id", "message"), CASES)
def test_what_is_taken_from_a_lesson_is_missed(checked, change, id, message):
    findings = checked(lambda node: change(node) and None)
    matches = [one for one in findings if any(part in one for part in message.split("|"))]
    assert matches, findings
    assert matches[0].startswith(f"01_second.ipynb: {id}: ") and "\n" not in matches[0]


def test_words_that_only_look_like_machine_paths_are_let_be(checked):
    assert checked(says("one", "runs/tmp/x, https://x.org/home, 3/4, at home, and/or")) == []


def test_a_finding_is_a_line_and_an_exit_status(repository):
    assert run("check", repository).exit_code == 1
    run("navigate", repository)
    assert run("check", repository).output == "3 lessons, nothing to mend\n"
    broken = repository / "notebooks" / "00_first.ipynb"
    broken.write_text(broken.read_text().replace('"alt": "Two circles."', '"alt": ""', 1))
    result = run("check", repository)
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert line == (
        "00_first.ipynb: one-told: shows a picture without alt text: show it with sl.plots.show"
    )


@pytest.mark.parametrize("text", ["not json", "{}", '{"cells": 3, "nbformat": 4}', "[]"])
def test_what_is_no_notebook_is_said_to_be_none(tmp_path, text):
    (tmp_path / "x.ipynb").write_text(text)
    with pytest.raises(UserError, match="x.ipynb is no notebook"):
        lessons.read(tmp_path / "x.ipynb")


def test_the_committed_lessons_hold_to_every_rule():
    about = lessons.course(ROOT)
    wrong = []
    for name in about.titles:
        wrong += lesson_rules.findings(lessons.read(about.folder / name), about.lesson(name))
    assert not wrong, "\n" + "\n".join(wrong)


# ---- take ----


def run_by_papermill(root, folder, *tags):
    node = lessons.read(root / "notebooks" / "01_second.ipynb")
    node.metadata["papermill"] = {"duration": 47.6}
    for each in node.cells:
        each.metadata |= {"papermill": {"status": "completed"}, "execution": {"busy": "now"}}
        each.metadata.setdefault("tags", [])
    at(node, "one").metadata["tags"] += tags
    folder.mkdir()
    (folder / "01_second.ipynb").write_text(lesson_rules.written(node))
    return str(folder / "01_second.ipynb")


def test_an_executed_lesson_is_taken_without_a_trace_of_papermill(repository):
    run("navigate", repository)
    before = texts(repository)
    executed = run_by_papermill(repository, repository / "executed")
    assert run("take", repository, executed).output == "01_second.ipynb: taken\n"
    assert texts(repository) == before
    assert run("check", repository).exit_code == 0


def test_a_lesson_run_with_other_parameters_is_not_taken(repository):
    before = texts(repository)
    executed = run_by_papermill(repository, repository / "executed", "injected-parameters")
    result = run("take", repository, executed)
    assert result.exit_code == 2 and "run the lesson with its defaults" in result.output
    assert texts(repository) == before


# ---- table ----


def executed(root, folder, **duration):
    folder.mkdir(parents=True, exist_ok=True)
    for name in texts(root):
        node = lessons.read(root / "notebooks" / name)
        node.metadata["papermill"] = {"duration": 47.6} | duration
        (folder / name).write_text(lesson_rules.written(node))


def test_the_table_says_what_papermill_and_the_stamp_recorded(repository):
    executed(repository, repository / "output" / "notebooks")
    for _ in range(2):
        assert run("table", repository).exit_code == 0
    page = (repository / "docs" / "lessons.md").read_text()
    assert "| 01 [Second](../notebooks/01_second.ipynb) | 48 | 1.0 |" in page
    assert page.startswith("above\n<!-- lessons -->\n| lesson |")
    assert page.endswith("|\n<!-- /lessons -->\nbelow\n") and page.count("Second") == 1


@pytest.mark.parametrize(
    "page",
    ["nothing", "<!-- lessons -->", "<!-- /lessons --><!-- lessons -->", "<!-- lessons -->" * 2],
)
def test_a_page_without_its_markers_is_refused_and_left(repository, page):
    executed(repository, repository / "executed")
    (repository / "docs" / "lessons.md").write_text(page)
    result = run("table", repository, "--folder", str(repository / "executed"))
    assert result.exit_code == 2 and "<!-- /lessons -->, once each: add them" in result.output
    assert (repository / "docs" / "lessons.md").read_text() == page


def test_a_lesson_not_executed_leaves_no_table(repository):
    result = run("table", repository)
    assert result.exit_code == 2 and "run `safeerase demo --all`" in result.output
    executed(repository, repository / "output" / "notebooks", duration=None)
    assert "lacks papermill's record" in run("table", repository).output
    assert "Second" not in (repository / "docs" / "lessons.md").read_text()
