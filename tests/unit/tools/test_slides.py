"""The slides are cells of a lesson, need no network, and tell no outcome before it is predicted."""

import re
from pathlib import Path

import lessons
import pytest
import slides

from safeerase_lite.utils import UserError

ROOT = Path(__file__).parents[3]
NODE = lessons.read(ROOT / "notebooks" / slides.LESSON)


@pytest.fixture(scope="module")
def page():
    return slides.page(ROOT)


def test_the_page_needs_no_network_and_every_picture_has_words(page):
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 5 and all(re.search(r'alt="[^"]{20,}"', one) for one in pictures)


def test_each_slide_of_the_plan_is_there_once(page):
    assert page.count("<section>") == len(slides.CLASS)
    assert "{slides}" not in page and "{title}" not in page


def test_an_outcome_stands_after_its_prediction():
    ids = [id for slide in slides.CLASS for id, _ in slide.cells]
    code = {cell.id: cell.source for cell in NODE.cells if cell.cell_type == "code"}
    for asked in re.findall(r'sl\.predict\("([^"]+)"', "\n".join(code.values())):
        told = next(n for n, id in enumerate(ids) if f'sl.outcome("{asked}"' in code.get(id, ""))
        assert told > next(
            n for n, id in enumerate(ids) if f'sl.predict("{asked}"' in code.get(id, "")
        )


def test_a_cell_that_is_gone_is_named():
    with pytest.raises(UserError, match="no cell 'gone'"):
        slides.slides(NODE, (slides.Slide((("gone", slides.TEXT),)),))


def test_a_text_is_cut_to_its_first_paragraphs_without_formulas():
    text = "## One\n\nFirst [link](x.ipynb).\n\n$$a$$\n\nSecond.\n\nThird."
    assert slides._shortened(text, 2) == "## One\n\nFirst link.\n\nSecond."
