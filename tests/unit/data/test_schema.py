"""A folder that is not as the layout asks is refused in one line that says where and what to do."""

import json

import pytest
from hostile_data import LFS_POINTER, SECRET, read_or_refuse, refusal
from small_dataset import KINDS, edit, make_record, write_json

from safeerase_lite.data.dataset import read_data
from safeerase_lite.utils import UserError


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "nowhere is no folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["all_train.json", "all_val.json", "prompt.json"])
def test_a_required_file_that_is_missing_is_named(dataset, name):
    (dataset / name).unlink()
    assert refusal(dataset).startswith(f"{name} is missing in ")


@pytest.mark.parametrize("key", ["category", "keyword", "unsafe_pairs", "UnharmPair_text2"])
def test_a_record_without_a_required_key_names_its_index_and_the_key(dataset, key):
    edit(dataset, "val", lambda records: records[1].pop(key))
    assert refusal(dataset).startswith(f"all_val.json, record at index 1: '{key}' is missing")


def test_a_record_without_a_picture_path_is_told_its_usual_name(dataset):
    edit(dataset, "train", lambda records: records[0].pop("image_path"))
    assert "index 0: 'image_path' is missing" in refusal(dataset)


def test_a_pair_without_its_answer_names_its_place(dataset):
    edit(dataset, "train", lambda records: records[1]["unsafe_pairs"][0].pop("model_response"))
    expected = "all_train.json, record at index 1, unsafe_pairs[0]: 'model_response' is missing"
    assert refusal(dataset).startswith(expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.__setitem__(0, "text"), "index 0: should be an object, is a text"),
        (lambda r: r[0].update(category=7), "index 0, category: should be a text, is a number"),
        (lambda r: r[0].update(image_path=7), "image_path: should be a text, is a number"),
        (lambda r: r[0].update(unsafe_pairs={}), "unsafe_pairs: should be a list, is an object"),
        (lambda r: r[0].update(unsafe_pairs=[]), "unsafe_pairs: is empty"),
        (lambda r: r[0].update(keyword="  "), "keyword: is empty"),
        (lambda r: r[0].update(keyword="\ud800"), "keyword: character 0 is half of a surrogate"),
        (lambda r: r[0].update(UnharmPair_text1=[]), "UnharmPair_text1: should be an object"),
        (
            lambda r: r[0]["unsafe_pairs"][0].update(question=3.5),
            "unsafe_pairs[0], question: should be a text, is a number",
        ),
    ],
)
def test_a_value_of_a_wrong_kind_names_its_file_index_and_key(dataset, change, expected):
    edit(dataset, "train", change)
    message = refusal(dataset)
    assert message.startswith("all_train.json, record at index 0")
    assert expected in message


def test_an_error_does_not_quote_a_harmful_text(dataset):
    edit(dataset, "train", lambda r: r[0]["unsafe_pairs"][0].update(question=["the secret plan"]))
    assert "secret" not in refusal(dataset)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[\n {"type": "syn"},\n {"type" "syn"}\n]', "all_train.json, line 3: not valid JSON"),
        ('{"type": "syn"}\n{"type": \n', "all_train.json, line 2: not valid JSON"),
        ("[" * 100_000, "all_train.json, line 1: not valid JSON"),
        (" \n", "all_train.json: holds no record"),
        ("[]", "all_train.json: holds no record"),
        (LFS_POINTER, "all_train.json: is a Git-LFS pointer"),
    ],
)
def test_a_broken_file_is_named_with_its_line(dataset, content, expected):
    (dataset / "all_train.json").write_text(content, encoding="utf-8")
    assert refusal(dataset).startswith(expected)


def test_all_that_is_wrong_is_listed_up_to_ten(dataset):
    for split in KINDS:
        edit(
            dataset,
            split,
            lambda records: [r.pop(k) for r in records for k in ("category", "keyword")],
        )
    edit(dataset, "val", lambda records: [r.pop("unsafe_pairs") for r in records])
    message = refusal(dataset)
    assert message.count(" is missing") == 10
    assert "all_train.json, record at index 1: 'keyword' is missing" in message
    assert "all_val.json, record at index 1: 'category' is missing" in message
    assert not message.endswith(" more")
    edit(dataset, "val", lambda records: [r.pop("UnharmPair_text1") for r in records])
    assert refusal(dataset).count(" is missing") == 10
    assert refusal(dataset).endswith("; and 2 more")


@pytest.mark.parametrize(
    ("place", "key", "typo"),
    [
        (lambda r: r, "unsafe_pairs", "unsafe_pair"),
        (lambda r: r, "UnharmPair_image2", "UnharmedPair_image2"),
        (lambda r: r, "UnharmPair_text1", "UnharmPair_text"),
        (lambda r: r["unsafe_pairs"][0], "model_response", "model_responce"),
        (lambda r: r["UnharmPair_text1"], "Prediction", "prediction"),
    ],
)
def test_a_required_key_that_is_misspelt_is_named(dataset, place, key, typo):
    edit(dataset, "val", lambda r: place(r[1]).update({typo: place(r[1]).pop(key)}))
    message = refusal(dataset)
    assert message.startswith("all_val.json, record at index 1")
    assert f"holds {typo!r}; did you mean {key!r}?" in message and message.count("index") == 1


@pytest.mark.parametrize(
    ("place", "absent", "key"),
    [
        (lambda r: r["unsafe_pairs"], "sd_response", "sd_responce"),
        (lambda r: r["unsafe_pairs"], "sd_response", "bad_response"),
        (lambda r: r["unsafe_pairs"], "sd_response", "id_response"),
        (lambda r: [r], "SDImage_path", "SDimage_path"),
        (lambda r: [r], "SDkeyword", "Keyword"),
        (lambda r: [r], "SDkeyword", "sd_keyword"),
        (lambda r: [r], "specificity_pairs", "specific_pairs"),
    ],
)
def test_a_look_alike_of_an_optional_key_is_read_past_and_counted_by_file(
    dataset, place, absent, key
):
    def rename(records):
        for holder in (holder for record in records for holder in place(record)):
            holder.pop(absent, None)
            holder[key] = 7

    edit(dataset, "train", rename)
    count = len(json.loads((dataset / "all_train.json").read_text(encoding="utf-8")))
    edit(dataset, "val", lambda records: rename(records[:1]))
    with pytest.warns(UserWarning) as told:
        read_data(dataset)
    holds = f"{key!r} and no {absent!r}, which is then absent: rename it if that is meant"
    assert [str(warning.message) for warning in told] == [
        f"all_train.json: {count} records hold {holds}",
        f"all_val.json: 1 record holds {holds}",
    ]


@pytest.mark.parametrize("key", ["UnharmPair_text", "UnharmPair_texts", "UnharmPair_image0"])
def test_only_a_numbered_retain_key_is_a_retain_pair(dataset, key):
    retain = read_data(dataset).retain
    edit(dataset, "train", lambda records: records[0].update({key: "a note"}))
    assert read_data(dataset).retain.equals(retain)
    edit(dataset, "train", lambda r: r[0].update(UnharmPair_text3=r[0]["UnharmPair_text1"]))
    assert len(read_data(dataset).retain) == len(retain) + 1


def test_a_key_that_only_looks_like_one_that_is_there_is_no_misspelt_one(dataset):
    """A record has an image_path, so its image_id is something else; safeNb_pairs are not read."""
    more = {"image_id": 7, "image_paths": [], "unsafe_pair": 0, "safe_pairs": []}
    edit(dataset, "val", lambda records: records[0].update(more))
    assert read_or_refuse(dataset)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_that_is_the_one_value_of_an_object_is_read(dataset, indent):
    expected = read_data(dataset).forget
    path = dataset / "all_train.json"
    content = {"data": json.loads(path.read_text(encoding="utf-8"))}
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    assert read_data(dataset).forget.equals(expected)


def test_an_object_that_holds_more_than_the_list_is_told_so_in_one_line_for_each_file(dataset):
    for split in ("train", "val"):
        path = dataset / f"all_{split}.json"
        records = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {"data": records, "version": 1, "split": split, "tags": ["a"]})
    problem = "is an object, not a list of records: give the list 'data' alone"
    assert refusal(dataset) == f"all_train.json: {problem}; all_val.json: {problem}"


def test_a_record_with_one_list_and_a_missing_key_is_still_a_record(dataset):
    record = make_record("train", 0)
    del record["category"]
    write_json(dataset / "all_train.json", record)
    assert refusal(dataset) == "all_train.json, record at index 0: 'category' is missing; add it"


def test_an_object_of_several_lines_is_a_record_and_its_error_has_its_line(dataset):
    path = dataset / "all_train.json"
    text = json.dumps(make_record("train", 0), indent=1)
    path.write_text(text, encoding="utf-8")
    assert read_data(dataset).forget["split"].tolist().count("train") == 1
    path.write_text(text.replace('"keyword":', '"keyword"'), encoding="utf-8")
    assert refusal(dataset).startswith("all_train.json, line 3: not valid JSON")
    path.write_text(json.dumps({"data": [], "more": []}, indent=1), encoding="utf-8")
    assert "index 0: 'category' is missing" in refusal(dataset)


def test_a_file_in_another_encoding_is_named_with_its_line(dataset):
    (dataset / "all_train.json").write_bytes(b'[\n"caf\xe9"]')
    assert refusal(dataset).startswith("all_train.json, line 2: not UTF-8")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "prompt.json: 'idk' is missing"),
        ({"idk": []}, "prompt.json, idk: is empty"),
        ({"idk": ["No.", 5]}, "prompt.json, idk[1]: should be a text, is a number"),
        (["No."], "prompt.json: should be an object, is a list"),
    ],
)
def test_refusals_are_checked(dataset, content, expected):
    write_json(dataset / "prompt.json", content)
    assert refusal(dataset).startswith(expected)


@pytest.mark.parametrize("path", ["../../etc/passwd", "img/../../x.png", "dataset\\..\\x.png"])
def test_a_path_that_climbs_out_of_the_folder_is_refused(dataset, path):
    edit(dataset, "train", lambda records: records[1].update(SDImage_path=path))
    assert refusal(dataset).startswith("all_train.json, record at index 1, SDImage_path:")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_a_file_in_another_encoding_is_refused(dataset, encoding):
    text = (dataset / "all_train.json").read_text(encoding="utf-8").replace("wool", "woöl")
    (dataset / "all_train.json").write_bytes(text.encode(encoding))
    assert read_or_refuse(dataset) is None


def test_a_byte_order_mark_is_no_harm(dataset):
    path = dataset / "all_train.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_or_refuse(dataset)


@pytest.mark.parametrize("inside", ["unsafe_pairs", "UnharmPair_text1", None])
def test_a_key_that_stands_twice_is_refused_with_its_place(dataset, inside):
    record = make_record("train", 0)
    holder = {"unsafe_pairs": record["unsafe_pairs"][0], None: record}.get(inside) or record[inside]
    text = json.dumps(holder)
    twice = text[:-1] + ', "question": "a", "question": "b"}'
    (dataset / "all_train.json").write_text(f"[{json.dumps(record).replace(text, twice)}]")
    with pytest.raises(UserError, match="record at index 0.*a key stands there twice"):
        read_data(dataset)


@pytest.mark.parametrize("depth", [100, 5_000, 200_000])
def test_deep_nesting_is_read_past_or_refused(dataset, depth):
    record = json.dumps(make_record("train", 0))
    deep = "[" * depth + "]" * depth
    (dataset / "all_train.json").write_text(f'[{record[:-1]}, "note": {deep}}}]')
    read_or_refuse(dataset)


def test_a_path_in_an_error_is_short_and_printable(dataset):
    path = "img/\u202e\x1b[2J\n" + "long" * 100 + ".png"
    edit(dataset, "train", lambda records: records[0].update(image_path=path))
    assert read_or_refuse(dataset) is None


@pytest.mark.parametrize("key", ["image_path", "SDImage_path", "unsafe_pairs", "UnharmPair_text1"])
def test_a_text_in_a_wrong_place_is_not_quoted(dataset, key):
    edit(dataset, "train", lambda records: records[0].update({key: f"../{SECRET}\n"}))
    assert read_or_refuse(dataset) is None


@pytest.mark.parametrize("key", ["question", "model_response", "sd_response"])
def test_a_text_with_the_pictures_token_is_refused_with_its_place(dataset, key):
    """As LLaVA's own data are written; the model would look for a second picture."""
    text = f"<image>\n{SECRET}"
    edit(dataset, "train", lambda records: records[0]["unsafe_pairs"][0].update({key: text}))
    assert read_or_refuse(dataset) is None
    with pytest.raises(UserError, match=rf"index 0, unsafe_pairs\[0\], {key}: holds <image>"):
        read_data(dataset)


def test_a_category_that_would_steer_the_terminal_is_refused(dataset):
    edit(dataset, "train", lambda records: records[0].update(category="\x1b[2J Weapon"))
    assert read_or_refuse(dataset) is None
