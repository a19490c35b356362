"""Images are read as a viewer shows them; what is broken is named for what it is."""

import shutil
import struct
import zlib

import pytest
from hostile_data import LFS_POINTER, NOISE, put, read_or_refuse, refusal, save
from PIL import Image
from small_dataset import draw, edit

from safeerase_lite.data.dataset import read_data
from safeerase_lite.data.images import open_image
from safeerase_lite.utils import UserError


def test_all_missing_pictures_are_counted_in_one_error(dataset):
    shutil.rmtree(dataset / "img")
    message = refusal(dataset)
    assert "of 8 pictures, 4 missing" in message
    assert message.count("img/Corrosive/") == 3


def test_a_git_lfs_pointer_is_named_for_what_it_is(dataset):
    (dataset / "img/Corrosive/val0.png").write_text(LFS_POINTER)
    assert "1 a Git-LFS pointer, not the picture (img/Corrosive/val0.png)" in refusal(dataset)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named_for_what_it_is(dataset, suffix):
    path = dataset / f"img/Corrosive/large.{suffix}"
    Image.effect_noise((64, 64), 60).save(path)
    edit(dataset, "val", lambda records: records[0].update(image_path=f"img/Corrosive/{path.name}"))
    read_data(dataset)
    path.write_bytes(path.read_bytes()[:-400])
    expected = f"1 truncated or not a picture (img/Corrosive/{path.name})"
    assert expected in refusal(dataset)


def test_an_absolute_path_is_looked_for_inside_the_folder(dataset, tmp_path):
    draw(tmp_path / "outside.png", 5)
    edit(dataset, "train", lambda r: r[0].update(image_path=str(tmp_path / "outside.png")))
    assert "1 missing" in refusal(dataset)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(dataset, suffix, share):
    path = save(put(dataset, f"x.{suffix}"), NOISE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert read_or_refuse(dataset) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_kind_of_colour_is_read(dataset, mode):
    save(put(dataset, "x.png"), Image.new(mode, (16, 16)))
    assert read_or_refuse(dataset)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_what_is_transparent_is_white_as_in_a_viewer(dataset, suffix):
    """The file holds a red that nobody sees."""
    picture = Image.new("RGBA", (16, 16), (250, 0, 0, 0))
    picture.paste((0, 0, 250, 255), (0, 0, 8, 16))
    how = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = save(put(dataset, f"x.{suffix}"), picture, **how)
    seen = open_image(path)
    assert read_or_refuse(dataset) and seen.getpixel((12, 8)) == (255, 255, 255)
    assert seen.getpixel((4, 8)) == (0, 0, 250)


def test_what_is_half_transparent_is_mixed_with_white(dataset):
    path = save(put(dataset, "x.png"), Image.new("LA", (16, 16), (0, 127)))
    assert open_image(path).getpixel((3, 3)) == (128, 128, 128)


def test_sixteen_bits_are_scaled_not_clipped(dataset):
    grey = Image.new("I;16", (16, 16), 0x8000)
    path = save(put(dataset, "x.png"), grey)
    assert read_or_refuse(dataset) and open_image(path).getpixel((3, 3)) == (128, 128, 128)


def test_cmyk_is_read_as_the_colours_it_stands_for(dataset):
    path = save(put(dataset, "x.jpg"), Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    red, green, blue = open_image(path).getpixel((8, 8))  # pure red, but for JPEG's rounding
    assert read_or_refuse(dataset) and red > 200 and max(green, blue) < 60


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_picture_is_read(dataset, suffix):
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (250, 120, 0)]
    how = {"save_all": True, "append_images": frames[1:]}
    path = save(put(dataset, f"x.{suffix}"), frames[0], **how)
    assert read_or_refuse(dataset) and open_image(path).getpixel((8, 8))[0] > 240  # 250, rounded


def test_a_picture_is_turned_as_its_camera_says(dataset):
    lying = Image.new("RGB", (32, 16), "white")
    lying.paste("black", (0, 0, 16, 16))
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    path = save(put(dataset, "x.jpg"), lying, exif=exif)
    upright = open_image(path)
    assert read_or_refuse(dataset) and upright.size == (16, 32)
    # Black above white, but for JPEG's rounding.
    assert upright.getpixel((8, 4))[0] < 30 and upright.getpixel((8, 28))[0] > 220


@pytest.mark.parametrize(
    ("picture", "suffix"), [(Image.new("F", (16, 16)), "tif"), (Image.new("RGB", (16, 16)), "eps")]
)
def test_what_has_no_plain_colours_is_refused(dataset, picture, suffix):
    save(put(dataset, f"x.{suffix}"), picture)
    assert read_or_refuse(dataset) is None


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (8, 401), (9000, 10)])
def test_a_picture_no_model_could_look_at_is_refused(dataset, size):
    save(put(dataset, "x.png"), Image.new("L", size))
    with pytest.raises(UserError, match="1 too small or too narrow"):
        read_data(dataset)


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
def test_a_picture_that_would_fill_the_memory_is_refused(dataset, side):
    put(dataset, "x.png").write_bytes(bomb(side))
    with pytest.raises(UserError, match="1 too large to open safely"):
        read_data(dataset)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<svg/>", b"%PDF-1.4", b"BM"])
def test_what_is_no_picture_is_refused(dataset, content):
    put(dataset, "x.png").write_bytes(content)
    assert read_or_refuse(dataset) is None


def test_a_folder_in_the_place_of_a_picture_is_refused(dataset):
    put(dataset, "")
    assert read_or_refuse(dataset) is None
