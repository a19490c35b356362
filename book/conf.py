"""Settings of the site, whose pages load nothing from another server. `tools/build_book.py` gathers
the pages and starts Sphinx."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "tools"), str(ROOT)]

from build_book import launching  # noqa: E402
from lessons import course  # noqa: E402

from safeerase_lite import __version__  # noqa: E402

project = "safeerase-lite"
author = "the authors of safeerase-lite"
copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "alt_texts",
    "docstrings",
    "terms",
    "mathml",
]
exclude_patterns = ["extra"]
templates_path = [str(ROOT / "book" / "_templates")]  # autosummary looks in the gathered folder

# Lessons and pages as git holds them: nothing is executed, no widget is fetched.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# A docstring may name a field that several records have.
suppress_warnings = ["ref.python"]
html_math_renderer = "mathml"

# Docstrings name things in single backticks.
default_role = "code"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["terms.js"]
html_sourcelink_suffix = ""  # a notebook is downloaded as a notebook
html_show_sphinx = False
html_theme_options = {
    "show_toc_level": 1,
    "home_page_in_toc": True,
    "navigation_with_keys": False,
    **launching(course(ROOT).address),
}


def setup(app):
    app.connect("config-inited", take_as_they_are)


def take_as_they_are(app, config):
    """Files that the site has without a change: the page that runs in the browser."""
    config.html_extra_path = [str(Path(app.srcdir) / "extra")]
