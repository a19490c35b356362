"""One document in Markdown, LaTeX and HTML: its texts escaped, its tables aligned."""

import re

import altair as alt
import pandas as pd
import pytest

from safeerase_lite.report.formats import Document, Section, Table, html, latex, markdown, tex
from safeerase_lite.report.plots import styled

TABLE = Table(
    "Shares",
    pd.DataFrame({"model": ["PO", "PO+PD"], "change": ["–", "−"], "SARR": ["1.0 [0, 2]", "0.0"]}),
    ["100% & more."],
    words=2,
)


def page(*tables, lines=(), charts=()):
    return Document("Report", [Section("World", list(lines), list(tables), list(charts))])


def test_markdown_aligns_words_left_and_numbers_right():
    head, rule, first, _ = re.findall(r"^\|.*\|$", markdown(page(TABLE)), flags=re.M)
    assert re.fullmatch(r"\|:-+\|:-+\|-+:\|", rule)
    assert first.startswith("| PO ") and first.endswith(" 1.0 [0, 2] |")
    assert len(head) == len(rule) == len(first)


def test_latex_is_booktabs_with_a_caption_and_a_label():
    text = latex(page(TABLE, lines=["a line"]))
    for part in (
        r"\begin{tabular}{llr}", r"\toprule", r"\midrule", r"\bottomrule", r"PO+PD & $-$ & 0.0 \\",
        r"\caption{World: Shares. 100\% \& more.}", r"\label{tab:world-shares}", "% a line",
        r"1.0 {[}0, 2{]}",  # after \\ a bare bracket would be its argument
    ):  # fmt: skip
        assert part in text


def test_latex_escapes_what_it_would_read_as_a_command():
    assert tex(r"50% of a_b & {c} $d #e ~f ^g \h") == (
        r"50\% of a\_b \& \{c\} \$d \#e \textasciitilde{}f \textasciicircum{}g \textbackslash{}h"
    )


def test_html_has_a_caption_and_headers_of_columns_and_rows():
    text = html(page(TABLE))
    assert "<caption>Shares</caption>" in text and 'class="dataframe words-2"' in text
    assert re.findall(r"<th>(.*?)</th>", text) == ["model", "change", "SARR", "PO", "PO+PD"]


def test_a_text_that_looks_like_markup_stays_a_text():
    hostile = Table("<b>", pd.DataFrame({"a|b": ["<script>"]}), ["50% & more"])
    document = page(hostile, lines=["1 < 2"])
    assert r"a\|b" in markdown(document)
    assert "<script" not in html(document) and "&lt;script&gt;" in html(document)
    assert "<b>" not in html(document) and "1 &lt; 2" in html(document)
    assert r"50\% \& more" in latex(document) and r"\textless{}script" in latex(document)


def test_a_long_text_is_not_cut():
    text = "word " * 40
    long = page(Table("t", pd.DataFrame({"model": ["PO"], "why": [text]}), words=2))
    assert all(text.strip() in write(long) for write in (markdown, latex, html))


@pytest.mark.parametrize("write", [markdown, latex, html])
def test_a_table_without_rows_has_its_headings(write):
    assert "SARR" in write(page(Table("t", TABLE.frame.iloc[:0])))


def test_a_chart_is_inline_with_its_description_and_its_numbers_folded():
    table = pd.DataFrame({"x": [1.5, None]})
    chart = styled(
        alt.Chart(table).mark_point().encode(x="x:Q"), "One point at 1.5 & no more.", table
    )
    text = html(page(charts=[("A < B", chart)]))
    assert "<title>A &lt; B</title><desc>One point at 1.5 &amp; no more.</desc>" in text
    assert 'role="img"' in text and "<details>" in text
    assert re.findall(r"<td>(.*?)</td>", text) == ["1.5", "–"]
