"""The functions that lesson 02 defines do what its text says of them."""

import ast
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest

import safeerase_lite as sl
from safeerase_lite.data.audit import check_data
from safeerase_lite.lessons import leaks, splits, standins

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "02_forget_retain_decouple.ipynb"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef)


@pytest.fixture
def lesson(world):
    """What the lesson defines in its own cells, and what it takes from the package, about the small
    world."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    source = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, DEFINITIONS)]
    sets = {name: getattr(world, name) for name in ("forget", "retain", "decouple")}
    names = {"data": world, "seed": 0, "SETS": sets, "config": sl.config()}
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    save = names["save"]
    names |= {
        "raw": partial(leaks.raw, world),
        "plant": partial(leaks.plant, world),
        "anew": partial(leaks.anew, world, save),
        "val_rows": leaks.val_rows,
        "share_right": leaks.share_right,
        "in_common": partial(splits.in_common, world),
        "by_safe_kind": splits.by_safe_kind,
        "at_random": splits.at_random,
        "by_answer": splits.by_answer,
        "by_kind": splits.by_kind,
        "safe_kind": splits.safe_kind,
    }
    return SimpleNamespace(**names)


@pytest.fixture
def heap(lesson):
    return [record for split in ("train", "val", "test") for record in lesson.raw(split)]


def val_of(folder):
    return json.loads((folder / "all_val.json").read_text(encoding="utf-8"))


# ---- reading ----


def test_a_blind_reader_can_only_guess_what_is_a_hazard(lesson):
    assert lesson.ceiling(forget="hazard", decouple="safe") == 0.5


def test_a_blind_reader_can_do_plain_unlearning_and_not_with_decoupling(lesson):
    plain = {"forget": "refuse", "retain": "answer"}
    assert lesson.ceiling(**plain) == 1
    assert lesson.ceiling(**plain, placebo="answer") == 1
    assert lesson.ceiling(**plain, decouple="answer") == pytest.approx(2 / 3)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_word_tells_forget_from_decouple(lesson, split):
    counts = [lesson.words(lesson.SETS[name], split) for name in ("forget", "decouple", "retain")]
    assert counts[0] == counts[1] != counts[2]


def test_a_record_has_its_three_sets_on_its_two_pictures(lesson):
    rows = lesson.of_record("val", 1)
    assert set(rows["split"]) == {"val"} and set(rows["record"]) == {1}
    pictures = rows.groupby("set")["image"].agg(set)
    assert pictures["forget"] == pictures["retain"] != pictures["decouple"]
    assert (rows["set"].value_counts() == 4).all()


@pytest.mark.parametrize("lines", [False, True])
def test_records_are_read_from_a_list_and_from_lines(lesson, tmp_path, lines):
    records = [{"a": 1}, {"a": 2}]
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    (tmp_path / "all_val.json").write_text(text)
    assert leaks.raw(SimpleNamespace(root=tmp_path), "val") == records


# ---- planting ----


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_check_counts_every_planted_record(lesson, tmp_path, share):
    folder = lesson.plant(share, tmp_path / "planted")
    val = val_of(folder)
    leaks = check_data(folder).leaks.groupby("what")["repeated"].sum()
    assert set(leaks) == {round(share * len(val))}
    assert set(leaks.index) == {"record", "picture", "safe picture"}


def test_planting_nothing_leaks_nothing_and_shows_new_kinds_only(lesson, tmp_path):
    folder = lesson.plant(0, tmp_path / "honest")
    assert check_data(folder).leaks.empty
    rows = lesson.val_rows(folder)
    assert len(rows) and not rows["seen_kind"].any()


def test_more_planting_only_adds_and_train_stays(lesson, world, tmp_path):
    none, some, many = (
        val_of(lesson.plant(share, tmp_path / str(share))) for share in (0, 0.25, 0.5)
    )
    assert some[: len(none)] == none and many[: len(some)] == some
    train = (tmp_path / "0.5" / "all_train.json").read_text(encoding="utf-8")
    assert json.loads(train) == json.loads((world.root / "all_train.json").read_text())


def test_dedupe_gives_back_the_honest_records(lesson, tmp_path):
    honest = lesson.val_rows(lesson.plant(0, tmp_path / "none"))
    deduplicated = lesson.val_rows(lesson.plant(0.5, tmp_path / "half"), "val")
    columns = ["record", "kind", "question", "answer"]
    pd.testing.assert_frame_equal(honest[columns], deduplicated[columns])


def test_pictures_saved_anew_look_the_same_and_escape_the_check(lesson, world, tmp_path):
    from PIL import Image

    folder = lesson.plant(0.5, tmp_path / "anew", alter=lesson.anew)
    assert check_data(folder).leaks.empty
    plain = lesson.val_rows(lesson.plant(0.5, tmp_path / "plain"))["image"].unique()
    for old, new in zip(plain, lesson.val_rows(folder, "val")["image"].unique(), strict=True):
        with Image.open(old) as a, Image.open(new) as b:
            assert np.array_equal(np.asarray(a), np.asarray(b))


def test_planting_leaves_the_data_set_as_it_was(lesson, world, tmp_path):
    before = {path for path in world.root.rglob("*")}
    lesson.plant(0.5, tmp_path / "anew", alter=lesson.anew)
    assert {path for path in world.root.rglob("*")} == before


def test_the_share_right_is_what_safe_error_leaves(lesson):
    row = {"metric": "safe_error", "split": "val", "kinds": "all", "templates": "all"}
    table = pd.DataFrame([row | {"value": 0.75, "low": 0.5, "high": 1.0}])
    assert lesson.share_right(table) == {"value": 0.25, "low": 0.0, "high": 0.5}


# ---- intervals ----


def answers(kinds, pictures):
    """Half of the kinds always right, the others never."""
    rows = [(kind, f"{kind}-{n}", kind % 2 == 0) for kind in range(kinds) for n in range(pictures)]
    table = pd.DataFrame(rows, columns=["kind", "image", "right"])
    return table.assign(question="How is it made?")


def test_more_pictures_of_the_same_kinds_narrow_only_the_interval_that_ignores_kinds(lesson):
    few, many = answers(6, 3), answers(6, 24)

    def width(interval, rows):
        low, high = interval(rows)
        return high - low

    # Eight times as many that count divide a width by √8 = 2.8; 0.5 and 0.9 leave room for the
    # noise of resampling.
    assert width(lesson.by_answer, many) < 0.5 * width(lesson.by_answer, few)
    assert width(lesson.by_kind, many) > 0.9 * width(lesson.by_kind, few)
    assert width(lesson.by_kind, answers(48, 3)) < 0.5 * width(lesson.by_kind, few)


# ---- the reader's split ----


def test_the_split_by_kind_is_disjoint_and_loses_no_record(lesson, heap):
    split = lesson.by_safe_kind(heap)
    train, val = ({record["SDkeyword"] for record in split[name]} for name in ("train", "val"))
    assert train and val and not train & val
    assert len(split["train"]) + len(split["val"]) == len(heap)


def test_the_random_split_repeats_no_record_and_shares_its_kinds(lesson, heap):
    shared = lesson.in_common(lesson.at_random(heap))
    assert shared["leaks found"] == 0
    assert not shared["safe kinds"].startswith("0 of")


def test_what_a_split_shares_is_counted(lesson, heap):
    assert lesson.in_common(lesson.by_safe_kind(heap))["safe kinds"] == "0 of 64"
    half = len(heap) // 2
    overlapping = {"train": heap, "val": heap[:half]}
    assert lesson.in_common(overlapping)["leaks found"] == 3 * half


def test_a_record_without_the_name_of_its_safe_kind_counts_by_its_safe_picture(lesson):
    assert lesson.safe_kind({"SDImage_path": "pdset/1.jpg"}) == "pdset/1.jpg"
    assert lesson.safe_kind({"SDImage_path": "pdset/1.jpg", "SDkeyword": "mug"}) == "mug"


def test_held_out_kinds_cost_no_record_by_category_and_many_within_categories(lesson, heap):
    whole = [record for record in heap if record["category"] in {"Gloom", "Glare"}]
    hazards, safe = {r["keyword"] for r in whole}, {lesson.safe_kind(r) for r in whole}
    assert splits.sides(heap, hazards, safe)["neither"] == 0
    part = splits.sides(heap, *splits.a_part_of_every_category(heap))
    assert part["neither"] > part["val"] > 0 and sum(part.values()) == len(heap)


def test_a_strict_split_of_every_category_exists(lesson, heap):
    """Two records of each category are held out, with all that shares a kind with them."""
    hazards, safe, new = set(), set(), set(sorted(set(lesson.data.forget["question"]))[:4])
    with_new = [r for r in heap if any(pair["question"] in new for pair in r["unsafe_pairs"])]
    for category in {record["category"] for record in heap}:
        for record in [r for r in with_new if r["category"] == category][:2]:
            hazards, safe = hazards | {record["keyword"]}, safe | {lesson.safe_kind(record)}

    def side(records, is_new):
        pairs = [
            [p for p in r["unsafe_pairs"] if (p["question"] in new) == is_new] for r in records
        ]
        return [r | {"unsafe_pairs": p} for r, p in zip(records, pairs, strict=True) if p]

    held = [(r["keyword"] in hazards, lesson.safe_kind(r) in safe) for r in heap]
    split = {
        name: side(
            [r for r, sides in zip(heap, held, strict=True) if set(sides) == {is_held}], is_held
        )
        for name, is_held in (("train", False), ("val", True))
    }
    shared = lesson.in_common(split)
    assert [shared[name][:4] for name in ("safe kinds", "hazards", "templates")] == ["0 of"] * 3
    assert shared["categories"] == "8 of 8" and shared["leaks found"] == 0


def test_a_split_by_kinds_and_templates_exists(lesson, heap):
    held = {"Gloom", "Glare"}  # hazards and safe objects of a record are of one category
    templates = set(lesson.data.forget["question"])
    new = set(sorted(templates)[:4])

    def with_templates(record, templates):
        pairs = [pair for pair in record["unsafe_pairs"] if pair["question"] in templates]
        return [record | {"unsafe_pairs": pairs}] if pairs else []

    split = {"train": [], "val": []}
    for record in heap:
        in_val = record["category"] in held
        name, own = ("val", new) if in_val else ("train", templates - new)
        split[name] += with_templates(record, own)
    shared = lesson.in_common(split)
    assert [shared[name][:4] for name in ("safe kinds", "hazards", "templates")] == ["0 of"] * 3
    assert shared["leaks found"] == 0


# ---- the benchmark's stand-ins ----


def test_every_category_has_a_record_of_its_own_beside_one_of_the_data(heap):
    table = standins.beside(heap)
    assert list(table.index[::2]) == ["Violence", "Weapon", "Privacy", "Sex", "HateSpeech",
                                      "IllegalActivity"]  # fmt: skip
    assert table.index[1::2].str.startswith("≈").all() and table.notna().all().all()
    assert list(standins.beside([]).index) == list(standins.STAND_INS)


@pytest.mark.parametrize("category", standins.STAND_INS)
def test_a_stand_in_has_the_layout_of_the_data(heap, category):
    record = standins.stand_in(category)
    assert set(record) <= set(heap[0]) and set(record["unsafe_pairs"][0]) == set(
        heap[0]["unsafe_pairs"][0]
    )


def test_what_copies_add_is_told_with_an_interval_of_its_own():
    """Half of the honest kinds are right, and every copy: their rise is known to be one."""
    kinds = [f"kind {n}" for n in range(32)]
    honest = pd.DataFrame({"kind": kinds, "question": "q", "image": kinds,
                           "verdict": ["right", "wrong"] * 16})  # fmt: skip
    copies = honest.assign(image=[f"copy {k}" for k in kinds], verdict="right")
    answers = pd.concat([honest, copies], ignore_index=True)
    found = leaks._rise(answers, pd.Series(answers.index < 32), invented=True)
    assert found["rise"] == 0.25
    assert 0 < found["rise_low"] < 0.25 < found["rise_high"] < 0.5
    none = leaks._rise(honest, pd.Series(True, honest.index), invented=True)
    assert list(none.values()) == pytest.approx([0, 0, 0])
