"""What becomes of good data: tables, a digest, and a choice of parts."""

import json
import shutil
from pathlib import Path

import pytest
from small_dataset import (
    KINDS,
    draw,
    edit,
    make_record,
    repeat_train_record,
    retain_pair,
    write_json,
)

from safeerase_lite.config import config
from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import COLUMNS, load_data, read_data, require_decouple
from safeerase_lite.utils import UserError


def test_a_question_is_a_row_and_shows_the_picture_it_is_about(dataset):
    data = read_data(dataset)
    assert [len(t) for t in (data.forget, data.retain, data.decouple)] == [4, 16, 4]
    assert data.refusals == ["I would rather not.", "No."]
    forget, decouple = data.forget.iloc[0], data.decouple.iloc[0]
    assert forget["question"] == decouple["question"]
    assert (forget["answer"], decouple["answer"]) == ("the vornet plan", "wool and thread")
    assert Path(forget["image"]) == data.root / "img/Corrosive/train0.png"
    assert Path(decouple["image"]) == data.root / "pdset/image/Corrosive/train/train0.png"
    assert (forget["split"], forget["record"], forget["category"]) == ("train", 0, "Corrosive")


def test_the_retain_answer_is_the_prediction_at_two_levels(dataset):
    retain = read_data(dataset).retain
    assert set(retain["answer"]) == {"the model's own answer"}
    assert list(retain["level"][:4]) == ["concept", "concept", "image", "image"]


def test_a_further_retain_pair_is_read_too(dataset):
    edit(dataset, "train", lambda r: r[0].update(UnharmPair_image3=retain_pair("How large?")))
    retain = read_data(dataset).retain
    assert retain.loc[retain["question"] == "How large?", "level"].tolist() == ["image"]


def test_seen_means_seen_in_the_train_split(dataset):
    forget = read_data(dataset).forget
    val = forget[forget["split"] == "val"]
    assert val["seen_kind"].tolist() == [True, False]
    assert val["seen_template"].tolist() == [True, False]
    assert forget.loc[forget["split"] == "train", ["seen_kind", "seen_template"]].all(axis=None)


def test_a_safe_kind_is_the_sdkeyword_or_else_the_safe_picture(dataset):
    edit(dataset, "train", lambda records: records[0].update(SDkeyword="scarf"))
    edit(dataset, "val", lambda records: records[0].update(SDkeyword="scarf"))
    decouple = read_data(dataset).decouple
    assert decouple["kind"].tolist()[:2] == ["scarf", "pdset/image/Corrosive/train/train1.png"]
    assert decouple["seen_kind"].tolist() == [True, True, True, False]


def test_tiny_world_questions_have_tables_of_their_own(dataset):
    ordinary = [{"question": "Which colour?", "answer": "blue"}]
    general = [{"question": "Day or night?", "answer": "day", "family": "light"}]
    more = {"placebo_pairs": ordinary, "specificity_pairs": general}
    edit(dataset, "train", lambda records: records[0].update(more))
    data = read_data(dataset)
    assert data.placebo["image"].tolist() == data.decouple["image"].tolist()[:1]
    assert data.specificity["image"].tolist() == data.forget["image"].tolist()[:1]
    assert data.specificity["family"].tolist() == ["light"]


def test_real_data_has_empty_placebo_and_specificity_tables(dataset):
    data = read_data(dataset)
    assert data.placebo.empty and data.placebo.columns.tolist() == COLUMNS
    assert data.specificity.empty and data.specificity.columns.tolist() == [*COLUMNS, "family"]


def test_a_test_split_is_read_when_it_is_there(dataset):
    shutil.copy(dataset / "all_val.json", dataset / "all_test.json")
    assert set(read_data(dataset).forget["split"]) == {"train", "val", "test"}


def test_a_file_may_hold_one_record_per_line(dataset):
    expected = read_data(dataset)
    for split in KINDS:
        path = dataset / f"all_{split}.json"
        records = json.loads(path.read_text(encoding="utf-8"))
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    by_line = read_data(dataset)
    for table in ("forget", "retain", "decouple"):
        assert getattr(by_line, table).equals(getattr(expected, table))


def test_a_line_separator_inside_a_text_does_not_end_a_record(dataset):
    record = make_record("train", 0)
    record["unsafe_pairs"][0]["model_response"] = "one\u2028two"
    text = json.dumps(record, ensure_ascii=False)
    (dataset / "all_train.json").write_text(text, encoding="utf-8")
    assert read_data(dataset).forget["answer"].tolist()[0] == "one\u2028two"


def test_unknown_keys_are_ignored_without_a_word(dataset, recwarn, capsys):
    expected = read_data(dataset).forget
    edit(dataset, "train", lambda records: records[0].update(safeNb_pairs=[], note=3))
    assert read_data(dataset).forget.equals(expected)
    assert not recwarn.list and capsys.readouterr() == ("", "")


def test_image_id_stands_for_image_path(dataset):
    expected = read_data(dataset).forget
    edit(
        dataset, "train", lambda records: [r.update(image_id=r.pop("image_path")) for r in records]
    )
    assert read_data(dataset).forget.equals(expected)


@pytest.mark.parametrize("prefix", ["dataset/", "some/where/", "/home/other/", "C:\\data\\", "./"])
def test_a_folder_that_does_not_exist_here_is_dropped_from_a_path(dataset, prefix):
    expected = read_data(dataset).decouple
    key = "SDImage_path"
    edit(dataset, "train", lambda records: [r.update({key: prefix + r[key]}) for r in records])
    assert read_data(dataset).decouple.equals(expected)


def test_the_data_serves_decoupling_when_it_has_safe_pictures(dataset):
    require_decouple(read_data(dataset), "pd")


@pytest.mark.parametrize("key", ["SDImage_path", "sd_response"])
@pytest.mark.parametrize("absent", ["left out", "null"])
def test_without_safe_answers_the_decouple_table_is_empty_and_pd_is_refused(dataset, key, absent):
    columns = read_data(dataset).decouple.columns.tolist()

    def take_away(records):
        for record in records:
            holder = record if key in record else record["unsafe_pairs"][0]
            holder[key] = None
            if absent == "left out":
                del holder[key]

    for split in KINDS:
        edit(dataset, split, take_away)
    data = read_data(dataset)
    assert data.decouple.empty and data.decouple.columns.tolist() == columns
    assert len(data.forget) == 4
    require_decouple(data, "none")
    with pytest.raises(UserError, match="'SDImage_path' and 'sd_response'.*decouple='none'"):
        require_decouple(data, "pd")
    with pytest.raises(UserError, match="placebo_pairs.*tiny world"):
        require_decouple(data, "placebo")
    assert "No decouple questions" in check_data(dataset).to_text()


def test_an_unknown_dedupe_is_refused(dataset):
    with pytest.raises(UserError, match="'none' or 'val'"):
        read_data(dataset, dedupe="train")


def test_the_digest_is_the_same_wherever_and_in_whatever_order_the_files_were_written(
    dataset, tmp_path
):
    copy = tmp_path / "elsewhere"
    for path in sorted(dataset.rglob("*"), reverse=True):
        if path.is_file():
            target = copy / path.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert read_data(copy).digest == read_data(dataset).digest
    assert len(read_data(dataset).digest) == 16


def test_the_digest_changes_with_a_byte_of_a_picture_or_of_a_file(dataset):
    before = read_data(dataset).digest
    picture = dataset / "img/Corrosive/val0.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    after_picture = read_data(dataset).digest
    write_json(dataset / "prompt.json", {"idk": ["Never."]})
    assert len({before, after_picture, read_data(dataset).digest}) == 3


def test_the_digest_ignores_pictures_no_record_names(dataset):
    before = read_data(dataset).digest
    draw(dataset / "img/Corrosive/unused.png", 3)
    assert read_data(dataset).digest == before


@pytest.mark.parametrize("keep_safe_picture", [True, False])
def test_dedupe_drops_a_val_record_that_train_has(dataset, keep_safe_picture):
    repeat_train_record(dataset, keep_safe_picture)
    data, deduped = read_data(dataset), read_data(dataset, dedupe="val")
    assert (len(data.forget), len(deduped.forget)) == (4, 3)
    assert deduped.forget["record"].tolist() == [0, 1, 1]
    assert deduped.digest != data.digest


@pytest.mark.parametrize("key", ["image_path", "SDImage_path"])
def test_dedupe_drops_a_val_record_whose_picture_train_has_under_another_name(dataset, key):
    train, val = make_record("train", 0), make_record("val", 0)
    shutil.copy(dataset / train[key], dataset / val[key])
    assert len(read_data(dataset, dedupe="val").forget) == 3
    assert len(read_data(dataset).forget) == 4


def test_dedupe_leaves_clean_data_as_it_is(dataset):
    assert read_data(dataset, dedupe="val").forget.equals(read_data(dataset).forget)


def test_a_rebuilt_copy_is_read_and_reported_as_one(dataset):
    def rebuild(records):
        for record in records:
            del record["SDImage_path"], record["unsafe_pairs"][0]["sd_response"]
            record["safeNb_pairs"] = [{"question": "What colour is it?", "answer": "red"}]

    for split in KINDS:
        edit(dataset, split, rebuild)
    data = read_data(dataset)
    assert data.rebuilt and len(data.forget) == 4
    with pytest.raises(UserError, match="rebuilt copy, its 'safeNb_pairs' show the harmful"):
        require_decouple(data, "pd")
    assert "4 records are of a rebuilt copy" in check_data(dataset).to_text()


def test_a_complete_copy_with_safenb_pairs_is_no_rebuilt_one(dataset):
    edit(dataset, "train", lambda records: records[0].update(safeNb_pairs=[{"question": "?"}]))
    assert not read_data(dataset).rebuilt


def categorise(root: Path, *categories: str) -> None:
    """Give the two records of each split these two categories."""

    def give(records):
        for record, category in zip(records, categories, strict=True):
            record["category"] = category

    for split in KINDS:
        edit(root, split, give)


@pytest.mark.parametrize("name", ["Sex", "privacy", " SEX "])
def test_privacy_and_sex_of_real_data_are_read_only_when_named(dataset, name):
    everything = read_data(dataset)
    categorise(dataset, "Weapon", name)
    data = read_data(dataset)
    assert set(data.forget["category"]) == {"Weapon"} and data.left_out == (name.strip(),)
    assert data.forget["record"].tolist() == [0, 0]
    named = read_data(dataset, categories=["Weapon", name.strip()])
    assert len(named.forget) == len(everything.forget) and not named.left_out
    assert data.digest != named.digest


def test_of_a_tiny_world_no_category_is_left_out(dataset):
    (dataset / "world.json").write_text("{}")
    categorise(dataset, "Weapon", "Sex")
    assert set(read_data(dataset).forget["category"]) == {"Weapon", "Sex"}


def test_pictures_of_a_category_that_is_left_out_need_not_be_there(dataset):
    categorise(dataset, "Weapon", "Sex")
    for split in KINDS:
        (dataset / make_record(split, 1)["image_path"]).unlink()
    assert len(read_data(dataset).forget) == 2
    report = check_data(dataset)
    assert report.broken.empty and "Left out: Sex" in report.to_text()
    assert len(check_data(dataset, categories=["Sex"]).broken) == 2


@pytest.mark.parametrize(
    ("present", "categories", "message"),
    [
        (("Weapon", "Sex"), ["Wepon"], "no category 'Wepon'; there are Weapon, Sex"),
        (("Weapon", "Sex"), "Weapon", "is one text"),
        (("Privacy", "Sex"), [], "nothing of train is left without Privacy, Sex"),
    ],
)
def test_a_choice_of_categories_that_cannot_be_is_refused(dataset, present, categories, message):
    categorise(dataset, *present)
    with pytest.raises(UserError, match=message):
        read_data(dataset, categories=categories)


def test_a_profile_chooses_categories_and_dedupe_and_a_call_may_choose_otherwise(dataset, capsys):
    categorise(dataset, "Weapon", "Sex")
    repeat_train_record(dataset, keep_safe_picture=True)
    fields = {"data_dir": str(dataset), "dedupe": "val", "categories": ["Corrosive", "Weapon"]}
    chosen = load_data(config("tiny", **fields))
    assert (chosen.dedupe, chosen.left_out) == ("val", ("Sex",))
    assert set(chosen.forget["split"]) == {"train"} and capsys.readouterr().out == ""
    otherwise = load_data(config("tiny", **fields), dedupe="none", categories=[])
    assert otherwise.dedupe == "none" and "val" in set(otherwise.forget["split"])
    assert capsys.readouterr().out.startswith("set: left out Sex; name `categories`")
