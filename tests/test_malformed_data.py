"""Whatever stands in a data set's folder, it is read whole or refused in one line that says why."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_dataset import KINDS, edit, make_dataset, make_record, write_json

from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import read_data
from safeerase_lite.data.images import open_image
from safeerase_lite.utils import UserError

pytestmark = pytest.mark.slow

SECRET = "zqx plan"  # stands for a harmful text: no message may quote it
NOISE = Image.effect_noise((40, 40), 60).convert("RGB")
fuzz = settings(max_examples=100, deadline=None)


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


def read(root: Path):
    """The data, nothing of any record lost on the way, or None when it was refused properly."""
    try:
        report = check_data(root)
        text = report.to_text()
        assert all(character.isprintable() or character == "\n" for character in text)
        data = read_data(root)
    except UserError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 1000 and SECRET not in said
        said.encode()
        return None
    records = [r for split in KINDS for r in plainly(root / f"all_{split}.json")]
    for table in (data.forget, data.retain, data.decouple, data.placebo, data.specificity):
        assert not table[["question", "answer"]].map(lambda text: "<image>" in text).any(axis=None)
    assert len(data.forget.groupby(["split", "record"])) == len(records)
    assert len(data.forget) == sum(len(r["unsafe_pairs"]) for r in records)
    assert len(data.retain) == sum(key.startswith("UnharmPair_") for r in records for key in r)
    assert len(data.decouple) == sum(
        pair.get("sd_response") is not None
        for r in records
        if r.get("SDImage_path") is not None
        for pair in r["unsafe_pairs"]
    )
    for path in {*data.forget["image"], *data.decouple["image"]}:
        assert open_image(path).mode == "RGB"
    return data


def plainly(path: Path) -> list:
    """The records of a file, as simply as one can read them; a key that stands twice is refused."""

    def once(pairs):
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    text = path.read_text(encoding="utf-8-sig")
    try:
        records = json.loads(text, object_pairs_hook=once)
        return records if isinstance(records, list) else [records]
    except json.JSONDecodeError:
        lines = (line for line in text.split("\n") if line.strip())
        return [json.loads(line, object_pairs_hook=once) for line in lines]


# ---- records ----

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
    read(root)


@fuzz
@given(name=st.sampled_from(["all_train.json", "all_val.json", "prompt.json"]), value=values)
def test_any_value_as_a_whole_file(fresh, name, value):
    root = fresh()
    write_json(root / name, value)
    read(root)


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
    read(root)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_a_file_in_another_encoding_is_refused(fresh, encoding):
    root = fresh()
    text = (root / "all_train.json").read_text(encoding="utf-8").replace("wool", "woöl")
    (root / "all_train.json").write_bytes(text.encode(encoding))
    assert read(root) is None


def test_a_byte_order_mark_is_no_harm(fresh):
    root = fresh()
    path = root / "all_train.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(root)


@pytest.mark.parametrize("inside", ["unsafe_pairs", "UnharmPair_text1", None])
def test_a_key_that_stands_twice_is_refused_with_its_place(fresh, inside):
    root = fresh()
    record = make_record("train", 0)
    holder = {"unsafe_pairs": record["unsafe_pairs"][0], None: record}.get(inside) or record[inside]
    text = json.dumps(holder)
    twice = text[:-1] + ', "question": "a", "question": "b"}'
    (root / "all_train.json").write_text(f"[{json.dumps(record).replace(text, twice)}]")
    with pytest.raises(UserError, match="record at index 0.*a key stands there twice"):
        read_data(root)


@pytest.mark.parametrize("depth", [100, 5_000, 200_000])
def test_deep_nesting_is_read_past_or_refused(fresh, depth):
    root = fresh()
    record = json.dumps(make_record("train", 0))
    deep = "[" * depth + "]" * depth
    (root / "all_train.json").write_text(f'[{record[:-1]}, "note": {deep}}}]')
    read(root)


def test_a_path_in_an_error_is_short_and_printable(fresh):
    root = fresh()
    path = "img/\u202e\x1b[2J\n" + "long" * 100 + ".png"
    edit(root, "train", lambda records: records[0].update(image_path=path))
    assert read(root) is None


@pytest.mark.parametrize("key", ["image_path", "SDImage_path", "unsafe_pairs", "UnharmPair_text1"])
def test_a_text_in_a_wrong_place_is_not_quoted(fresh, key):
    root = fresh()
    edit(root, "train", lambda records: records[0].update({key: f"../{SECRET}\n"}))
    assert read(root) is None


@pytest.mark.parametrize("key", ["question", "model_response", "sd_response"])
def test_a_text_with_the_pictures_token_is_refused_with_its_place(fresh, key):
    """As LLaVA's own data are written; the model would look for a second picture."""
    root = fresh()
    said = f"<image>\n{SECRET}"
    edit(root, "train", lambda records: records[0]["unsafe_pairs"][0].update({key: said}))
    assert read(root) is None
    with pytest.raises(UserError, match=rf"index 0, unsafe_pairs\[0\], {key}: holds <image>"):
        read_data(root)


def test_a_category_that_would_steer_the_terminal_is_refused(fresh):
    root = fresh()
    edit(root, "train", lambda records: records[0].update(category="\x1b[2J Weapon"))
    assert read(root) is None


# ---- pictures ----


def put(root: Path, name: str) -> Path:
    """Where a picture of this name is, of which train's first record is now."""
    edit(root, "train", lambda records: records[0].update(image_path=f"img/Corrosive/{name}"))
    return root / "img/Corrosive" / name


def saved(path: Path, picture: Image.Image, **how) -> Path:
    picture.save(path, **how)
    return path


@fuzz
@given(data=st.data())
def test_a_damaged_picture(fresh, data):
    root = fresh()
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "webp"]))
    content = bytearray(saved(put(root, f"x.{suffix}"), NOISE).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    (root / f"img/Corrosive/x.{suffix}").write_bytes(content[:end])
    read(root)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(fresh, suffix, share):
    root = fresh()
    path = saved(put(root, f"x.{suffix}"), NOISE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert read(root) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_kind_of_colour_is_read(fresh, mode):
    root = fresh()
    saved(put(root, "x.png"), Image.new(mode, (16, 16)))
    assert read(root)


def test_sixteen_bits_are_scaled_not_clipped(fresh):
    root = fresh()
    grey = Image.new("I;16", (16, 16), 0x8000)
    path = saved(put(root, "x.png"), grey)
    assert read(root) and open_image(path).getpixel((3, 3)) == (128, 128, 128)


def test_cmyk_is_read_as_the_colours_it_stands_for(fresh):
    root = fresh()
    path = saved(put(root, "x.jpg"), Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    red, green, blue = open_image(path).getpixel((8, 8))
    assert read(root) and red > 200 and max(green, blue) < 60


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_picture_is_read(fresh, suffix):
    root = fresh()
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (250, 120, 0)]
    how = {"save_all": True, "append_images": frames[1:]}
    path = saved(put(root, f"x.{suffix}"), frames[0], **how)
    assert read(root) and open_image(path).getpixel((8, 8))[0] > 240


def test_a_picture_is_turned_as_its_camera_says(fresh):
    root = fresh()
    lying = Image.new("RGB", (32, 16), "white")
    lying.paste("black", (0, 0, 16, 16))
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    path = saved(put(root, "x.jpg"), lying, exif=exif)
    upright = open_image(path)
    assert read(root) and upright.size == (16, 32)
    assert upright.getpixel((8, 4))[0] < 30 and upright.getpixel((8, 28))[0] > 220


@pytest.mark.parametrize(
    ("picture", "suffix"), [(Image.new("F", (16, 16)), "tif"), (Image.new("RGB", (16, 16)), "eps")]
)
def test_what_has_no_plain_colours_is_refused(fresh, picture, suffix):
    root = fresh()
    saved(put(root, f"x.{suffix}"), picture)
    assert read(root) is None


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (8, 401), (9000, 10)])
def test_a_picture_no_model_could_look_at_is_refused(fresh, size):
    root = fresh()
    saved(put(root, "x.png"), Image.new("L", size))
    with pytest.raises(UserError, match="1 too small or too narrow"):
        read_data(root)


def bomb(side: int) -> bytes:
    """A PNG that says it is `side` pixels wide and high, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_refused(fresh, side):
    root = fresh()
    put(root, "x.png").write_bytes(bomb(side))
    with pytest.raises(UserError, match="1 too large to open safely"):
        read_data(root)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<svg/>", b"%PDF-1.4", b"BM"])
def test_what_is_no_picture_is_refused(fresh, content):
    root = fresh()
    put(root, "x.png").write_bytes(content)
    assert read(root) is None


def test_a_folder_in_the_place_of_a_picture_is_refused(fresh):
    root = fresh()
    put(root, "")
    assert read(root) is None


@given(path=texts)
@fuzz
def test_any_text_as_a_path(fresh, path):
    root = fresh()
    assume(path)
    edit(root, "val", lambda records: records[0].update(SDImage_path=path))
    read(root)
