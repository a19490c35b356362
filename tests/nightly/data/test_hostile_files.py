"""Whatever a data set's folder holds, it is read completely or refused in one line."""

import json
from pathlib import Path

import pytest
from hostile_data import NOISE, put, read_or_refuse, save
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_dataset import edit, make_dataset, make_record, write_json

fuzz = settings(max_examples=100, deadline=None)

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            "img/\0.png",
            "\ud800",
            "\u202egnp",
            "\x1b[2J",
            "a\nb",
            "<image>\nWhat is it?",
            "..",
            "/",
            "C:",
            ".",
        ]
    ),
    st.sampled_from(
        ["img", "x/" * 3000, "y" * 300, "all_val.json", "img/Corrosive", "~", "prompt.json"]
    ),
)
numbers = st.sampled_from([0, -1, 10**400, 1e308, float("nan"), float("inf"), True, 2**64])
values = st.recursive(
    st.none() | numbers | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Call it for a folder that is valid again, whatever a test or an example did to it."""
    root = make_dataset(tmp_path_factory.mktemp("malformed") / "set")
    valid = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def fresh() -> Path:
        for path in root.rglob("*"):
            if path.is_file() and path not in valid:
                path.unlink()
        for path, content in valid.items():
            path.write_bytes(content)
        return root

    return fresh


def whole_record() -> dict:
    extra = {
        "SDkeyword": "scarf",
        "safeNb_pairs": [{"question": "Which colour?", "answer": "blue"}],
        "placebo_pairs": [{"question": "Which colour?", "answer": "blue"}],
        "specificity_pairs": [{"question": "Day?", "answer": "yes", "family": "light"}],
    }
    return make_record("train", 0) | extra


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside another."""
    inside = value.items() if isinstance(value, dict) else []
    inside = enumerate(value) if isinstance(value, list) else inside
    return [p for key, item in inside for p in [(*path, key), *places(item, (*path, key))]]


@fuzz
@given(place=st.sampled_from(places(whole_record())), value=values, lines=st.booleans())
def test_any_value_at_any_place_of_a_record(fresh, place, value, lines):
    root = fresh()
    *parents, key = place
    record = holder = whole_record()
    for parent in parents:
        holder = holder[parent]
    holder[key] = value
    write_json(root / "all_train.json", record if lines else [record])
    if lines:
        (root / "all_train.json").write_text(json.dumps(record), encoding="utf-8")
    read_or_refuse(root)


@fuzz
@given(name=st.sampled_from(["all_train.json", "all_val.json", "prompt.json"]), value=values)
def test_any_value_as_a_whole_file(fresh, name, value):
    root = fresh()
    write_json(root / name, value)
    read_or_refuse(root)


@fuzz
@given(data=st.data())
def test_a_file_with_other_bytes_in_it(fresh, data):
    root = fresh()
    path = root / data.draw(st.sampled_from(["all_train.json", "all_val.json", "prompt.json"]))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    gone = data.draw(st.sampled_from([0, 1, 2, 40]))
    new = data.draw(
        st.binary(max_size=4) | st.sampled_from([b'"', b"}", b"]", b",", b"\xef\xbb\xbf"])
    )
    path.write_bytes(content[:at] + new + content[at + gone :])
    read_or_refuse(root)


@fuzz
@given(data=st.data())
def test_a_damaged_picture(fresh, data):
    root = fresh()
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "webp"]))
    content = bytearray(save(put(root, f"x.{suffix}"), NOISE).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    (root / f"img/Corrosive/x.{suffix}").write_bytes(content[:end])
    read_or_refuse(root)


@given(path=texts)
@fuzz
def test_any_text_as_a_path(fresh, path):
    root = fresh()
    assume(path)
    edit(root, "val", lambda records: records[0].update(SDImage_path=path))
    read_or_refuse(root)
