"""On real data no harm is shown and none is stored, unless an argument asks for it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import safeerase_lite as sl
from safeerase_lite.data.dataset import TABLES, read_data
from safeerase_lite.data.redaction import redact_for_storage, redacted_image
from safeerase_lite.report.plots import contact_sheet
from safeerase_lite.tinyworld import WORLD_FILE


@pytest.fixture(scope="module")
def real(world, tmp_path_factory):
    """The small world without its mark: as if it were real data."""
    root = tmp_path_factory.mktemp("real") / "set"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    return read_data(root)


def answers(data):
    """All tables as evaluated ones: a set, an expected and a given answer, relative pictures."""
    parts = [getattr(data, name).assign(set=name) for name in TABLES]
    table = pd.concat(parts, ignore_index=True).rename(columns={"answer": "expected"})
    relative = [Path(path).relative_to(data.root).as_posix() for path in table["image"]]
    return table.assign(answer="an answer like " + table["expected"], image=relative)


# ---- Texts ----


@pytest.mark.parametrize("name", TABLES)
def test_a_tiny_world_is_shown_and_stored_as_it_is(world, name):
    table = getattr(world, name)
    assert sl.redact_for_display(table, world) is table
    everything = answers(world)
    assert redact_for_storage(everything, world) is everything


@pytest.mark.parametrize("name", ["forget", "retain", "specificity"])
def test_every_text_about_a_harmful_picture_is_masked(real, name):
    table = sl.redact_for_display(getattr(real, name), real)
    for column in ("kind", "question", "answer"):
        assert table[column].str.fullmatch(r"\[\d+ words, #[0-9a-f]{6}\]").all()
    others = table.columns.difference(["kind", "question", "answer"])
    assert table[others].equals(getattr(real, name)[others])


def test_of_a_safe_picture_only_the_harmful_question_is_masked(real):
    table = sl.redact_for_display(real.decouple, real)
    assert table["question"].str.startswith("[").all()
    assert table[["kind", "answer"]].equals(real.decouple[["kind", "answer"]])
    assert sl.redact_for_display(real.placebo, real).equals(real.placebo)


def test_a_mask_tells_texts_apart_and_equal_texts_look_equal(real):
    before, after = (t["question"] for t in (real.forget, sl.redact_for_display(real.forget, real)))
    assert before.nunique() == after.nunique()
    assert pd.crosstab(before, after).gt(0).sum(axis=1).eq(1).all()


def test_answers_are_masked_like_questions_and_pictures_within_the_folder_are_known(real):
    table = answers(real)
    shown = sl.redact_for_display(table, real)
    about_safe = table["set"].isin(["decouple", "placebo"])
    assert shown.loc[about_safe, "answer"].equals(table.loc[about_safe, "answer"])
    assert (
        shown.loc[~about_safe, ["answer", "expected"]]
        .map(lambda t: t.startswith("["))
        .all(axis=None)
    )


def test_what_is_asked_about_an_unknown_picture_is_masked(real):
    table = real.decouple.head(3).assign(image="elsewhere/1.png")
    assert sl.redact_for_display(table, real)["answer"].str.startswith("[").all()


def test_raw_texts_are_shown_when_the_call_asks_for_them(real):
    assert sl.redact_for_display(real.forget, real, raw=True) is real.forget


def test_data_typed_at_the_end_of_a_cell_shows_counts_alone(real):
    text = repr(real)
    assert f"{len(real.forget)} forget" in text and real.digest in text
    assert not any(answer in text for name in TABLES for answer in getattr(real, name)["answer"])


# ---- Images ----


def test_a_real_picture_is_blurred_beyond_recognition(tmp_path):
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::5] = 255
    path = tmp_path / "stripes.png"
    Image.fromarray(stripes).save(path)
    assert np.ptp(np.asarray(redacted_image(path))) < 5  # a block averages two stripes
    assert np.ptp(np.asarray(redacted_image(path, raw=True))) == 255


def test_a_tiny_worlds_picture_is_shown_as_it_is(world):
    path = world.forget["image"].iat[0]
    assert np.array_equal(redacted_image(path), Image.open(path).convert("RGB"))


def test_real_data_inside_a_tiny_world_is_still_blurred(world, real, tmp_path):
    shutil.copytree(world.root, tmp_path / "world")
    shutil.copytree(real.root, tmp_path / "world" / "inside")
    name = Path(real.forget["image"].iat[0]).relative_to(real.root)
    real_one, tiny = (tmp_path / "world" / where / name for where in ("inside", ""))
    assert not np.array_equal(redacted_image(real_one), redacted_image(tiny))


def test_a_contact_sheet_blurs_real_pictures_unless_asked(world, real):
    (tiny, real_one), caption = (d.forget["image"].head(1) for d in (world, real)), ["x"]
    plain = np.asarray(contact_sheet(tiny, caption))
    assert not np.array_equal(contact_sheet(real_one, caption), plain)
    assert np.array_equal(contact_sheet(real_one, caption, raw=True), plain)
    assert np.array_equal(contact_sheet([Image.open(real_one.iat[0])], caption), plain)


# ---- What is stored ----


def test_the_ledger_stores_harmful_answers_and_keywords_as_hashes(real):
    table = answers(real)
    stored = redact_for_storage(table, real)
    forget, harmful = table["set"] == "forget", ~table["set"].isin(["decouple", "placebo"])
    for column, hashed in {"expected": forget, "answer": forget, "kind": harmful}.items():
        assert stored.loc[hashed, column].str.fullmatch("[0-9a-f]{16}").all()
        assert stored.loc[~hashed, column].equals(table.loc[~hashed, column])
    assert stored["kind"].nunique() == table["kind"].nunique()
    assert redact_for_storage(table, real, raw=True) is table
