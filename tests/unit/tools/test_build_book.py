"""What the book gathers, how terms are found in a text, and when a page has launch buttons."""

import sys
from pathlib import Path

import build_book as book
import pytest

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "book"))
terms = pytest.importorskip("terms", reason="no Sphinx: pip install 'safeerase-lite[book]'")
GLOSSARY = terms.entries((ROOT / "book" / "glossary.md").read_text(encoding="utf-8"))
ASKED_FOR = [
    "kind", "template", "gold", "cue", "ledger", "nats", "specificity", "generality", "oracle",
    "NF4", "official", "matched",
]  # fmt: skip


def test_without_an_address_there_is_no_button_and_with_one_there_are_both():
    assert book.launching("") == {}
    options = book.launching("somebody/some-thing")
    assert options["repository_url"] == "https://github.com/somebody/some-thing"
    assert {"binderhub_url", "colab_url"} <= set(options["launch_buttons"])


def test_a_link_to_a_folder_or_a_module_leads_to_its_page():
    page = ROOT / "docs" / "sweeps.md"
    text = (
        "[a](../results) [b](../results/relations) [c](../safeerase_lite/config.py) [d](judges.md)"
    )
    assert book.with_pages(text, page, ROOT) == (
        "[a](../results/index.md) [b](../results/relations/headline.md) "
        "[c](../api/safeerase_lite.config.rst) [d](judges.md)"
    )


def test_the_api_has_no_page_that_holds_solutions():
    names = book.modules(ROOT)
    assert "safeerase_lite.exercises.checking" in names
    assert not [name for name in names if "prompt_decouple" in name]


@pytest.mark.parametrize("term", ASKED_FOR)
def test_the_glossary_explains_what_lessons_use_unexplained(term):
    heading, meaning = GLOSSARY[term]
    assert heading == term and len(meaning.split()) >= 8


def test_a_term_is_told_in_one_or_two_sentences_each_once():
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    headings = [heading for heading, _ in terms.ENTRY.findall(text)]
    assert len(headings) == len(set(headings)) == text.count("\n### ")
    assert not [heading for heading, meaning in GLOSSARY.values() if len(meaning.split()) > 45]


def test_a_term_is_found_as_a_whole_word_by_each_of_its_names_and_in_the_plural():
    found = terms.pattern(["hazard", "SARR", "KL divergence", "KL"]).findall
    assert found("two hazards, one hazardous") == ["hazard"]
    assert found("a KL divergence and SARR") == ["KL divergence", "SARR"]
    assert GLOSSARY["Prompt Decouple"][0] == "PD"


def test_everyday_words_are_terms():
    """What is no term needs no exception."""
    assert not [word for word in terms.EVERYDAY if word not in GLOSSARY]


def test_docstrings_become_restructured_text():
    paragraph = pytest.importorskip("docstrings").paragraph
    assert paragraph("|y| of `a|b`, `normalise`d") == r"\|y\| of `a|b`, `normalise`\ d"
    assert paragraph("a: one\n    more\nb, c: two") == "- a: one\n  more\n- b, c: two"
    assert paragraph("Note: this is prose.") == "Note: this is prose."


def test_a_script_letter_becomes_a_letter_that_browsers_draw():
    formula = pytest.importorskip("mathml").formula
    assert "<mi>ℒ</mi>" in formula(r"\mathcal L", "inline")
    assert "<mi>𝔼</mi>" in formula(r"\mathbb E", "inline")


def test_lessons_are_listed_by_their_numbers():
    first = book.numbered(ROOT, "notebooks").split("\n")[0]
    assert first.startswith("00 · ") and first.endswith(" <notebooks/00_quickstart>")
