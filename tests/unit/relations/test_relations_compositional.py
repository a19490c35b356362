"""ARO, SugarCrepe and Winoground, in files laid out as published; every text here is invented."""

import json

import pytest
from PIL import Image

from safeerase_lite.relations.compositional import READERS, read_examples
from safeerase_lite.utils import UserError

REGION = {"bbox_x": 4, "bbox_y": 2, "bbox_w": 20, "bbox_h": 10}
RELATION = REGION | {
    "image_id": 1, "image_path": "1.jpg", "relation_name": "behind",
    "true_caption": "the imp is behind the owl", "false_caption": "the owl is behind the imp",
}  # fmt: skip
ATTRIBUTE = REGION | {
    "image_id": 1, "image_path": "1.jpg", "attributes": ["red", "round"],
    "true_caption": "the red imp and the round owl",
    "false_caption": "the round imp and the red owl",
}  # fmt: skip
PAIR = {"filename": "1.jpg", "caption": "An imp chases an owl. ", "negative_caption": "An owl."}
QUADRUPLE = {
    "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "an imp in a cup",
    "caption_1": "a cup in an imp", "tag": "Object", "secondary_tag": "", "num_main_preds": 0,
    "collapsed_tag": "Object",
}  # fmt: skip


def write(folder, name):
    """A test's files in its authors' layout, of a record."""
    pictures = "val2017" if name == "sugarcrepe" else "images"
    names = ("ex_0_img_0.png", "ex_0_img_1.png") if name == "winoground" else ("1.jpg",)
    (folder / pictures).mkdir(parents=True)
    for number, picture in enumerate(names):
        Image.new("RGB", (32, 24), (90 * number, 90, 0)).save(folder / pictures / picture)
    if name == "sugarcrepe":
        for part in ("swap_obj", "replace_rel"):
            (folder / f"{part}.json").write_text(json.dumps({"0": PAIR, "7": PAIR}))
    elif name == "winoground":
        (folder / "examples.jsonl").write_text(json.dumps(QUADRUPLE) + "\n")
    else:
        record = RELATION if name == "vg-relation" else ATTRIBUTE
        (folder / READERS[name][0][0]).write_text(json.dumps([record]))
    return folder


def test_aro_has_a_region_a_caption_and_a_false_one(tmp_path):
    for name, record in (("vg-relation", RELATION), ("vg-attribution", ATTRIBUTE)):
        [example] = read_examples(name, write(tmp_path / name, name))
        assert example.pictures == ("images/1.jpg",) and example.crop == (4, 2, 24, 12)
        assert example.captions == (record["true_caption"], record["false_caption"])


def test_sugarcrepe_has_a_part_for_each_file_and_keys_need_not_follow_each_other(tmp_path):
    examples = read_examples("sugarcrepe", write(tmp_path, "sugarcrepe"))
    assert [example.part for example in examples] == ["swap_obj"] * 2 + ["replace_rel"] * 2
    assert examples[0].captions == (PAIR["caption"], PAIR["negative_caption"])


def test_winoground_names_its_pictures_without_their_suffix(tmp_path):
    [example] = read_examples("winoground", write(tmp_path, "winoground"))
    assert example.pictures == ("images/ex_0_img_0.png", "images/ex_0_img_1.png")


@pytest.mark.parametrize("name", READERS)
def test_each_reader_refuses_every_other_layout_by_name(tmp_path, name):
    for other in READERS:
        folder = write(tmp_path / other, other)
        if other != name:
            with pytest.raises(UserError, match=f"looks like {other}, not {name}"):
                read_examples(name, folder)


def test_an_unknown_name_an_absent_folder_and_an_empty_one_are_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean 'winoground'"):
        read_examples("winogrund", tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        read_examples("winoground", tmp_path / "none")
    with pytest.raises(UserError, match="is not winoground: it holds no examples.jsonl"):
        read_examples("winoground", tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_broken_record_is_named_with_its_key(tmp_path, name):
    folder = write(tmp_path, name)
    file = next(folder / mark for mark in READERS[name][0] if (folder / mark).exists())
    key = {"sugarcrepe": '"negative_caption"', "winoground": '"caption_1"'}
    key = key.get(name, '"false_caption"')
    file.write_text(file.read_text().replace(key, '"other"'))
    with pytest.raises(UserError, match=f"record .*{key[1:-1]}.* is missing"):
        read_examples(name, folder)


def test_a_missing_picture_is_counted(tmp_path):
    folder = write(tmp_path, "winoground")
    (folder / "images" / "ex_0_img_1.png").unlink()
    with pytest.raises(UserError, match="1 missing or unreadable"):
        read_examples("winoground", folder)
