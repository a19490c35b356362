"""A zip file from anywhere: unpacked whole as a data set, or refused with nothing left."""

import stat
import struct
import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_dataset import make_dataset
from typer.testing import CliRunner

from safeerase_lite.cli import app
from safeerase_lite.data import read_data
from safeerase_lite.errors import UserError
from safeerase_lite.importing import LIMITS, import_zip
from safeerase_lite.leakage import check_data


@pytest.fixture
def pack(tmp_path):
    """Zip entries: name, or ZipInfo, → content."""

    def pack(entries, how=zipfile.ZIP_DEFLATED):
        path = tmp_path / "some.zip"
        with zipfile.ZipFile(path, "w", how) as zipped:
            for name, content in entries.items():
                zipped.writestr(name, content)
        return path

    return pack


@pytest.fixture
def target(tmp_path):
    return tmp_path / "made" / "set"


@pytest.fixture
def files(tmp_path):
    """A small data set's files, by name."""
    root = make_dataset(tmp_path / "source")
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def refusal(archive, target, **limits):
    with pytest.raises(UserError) as caught:
        import_zip(archive, target, limits=replace(LIMITS, **limits))
    assert "\n" not in str(caught.value)
    left = list(target.parent.iterdir()) if target.parent.exists() else []
    assert not left, "a refused archive leaves nothing behind"
    return str(caught.value)


# ---- what is good ----


@pytest.mark.parametrize("within", ["", "dataset/", "some/where/"])
def test_the_folder_that_holds_the_records_becomes_the_data_set(pack, files, target, within):
    archive = pack({within + name: content for name, content in files.items()})
    assert import_zip(archive, target) == target
    assert [path.name for path in target.parent.iterdir()] == ["set"]
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*.*")}
    assert found == files
    assert check_data(target).broken.empty and not read_data(target).invented


def test_what_lies_beside_the_data_set_stays_in_the_archive(pack, files, target):
    beside = {"__MACOSX/._img": b"", "README.txt": b"hello"}
    import_zip(pack(beside | {f"set/{name}": content for name, content in files.items()}), target)
    assert not list(target.rglob("README.txt"))


def test_what_is_unpacked_cannot_be_executed(pack, files, target):
    program = zipfile.ZipInfo("run.sh")
    program.external_attr = (stat.S_IFREG | 0o4777) << 16
    import_zip(pack(files | {program: b"#!"}), target)
    assert not (target / "run.sh").stat().st_mode & 0o7111


def test_the_command_unpacks_and_prints_what_the_check_finds(pack, files, target):
    result = CliRunner().invoke(app, ["data", "import", str(pack(files)), str(target)])
    assert result.exit_code == 0
    assert "all there and whole" in result.stdout and "share no record" in result.stdout


# ---- what is refused ----


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\\\host\\evil", ".."]
)
def test_a_name_that_leads_outside_is_refused(pack, files, target, tmp_path, name):
    assert "entry 11 leads outside" in refusal(pack(files | {name: b"evil"}), target)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u202egnp.b", "."])
def test_a_name_that_does_not_print_is_refused_and_not_quoted(pack, files, target, name):
    assert "entry 11 is empty or does not print" in refusal(pack(files | {name: b""}), target)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_a_device_is_refused(pack, files, target, kind):
    link = zipfile.ZipInfo("img/link.png")
    link.external_attr = (kind | 0o777) << 16
    assert "entry 11 is a link or a device" in refusal(pack(files | {link: b"/etc/passwd"}), target)


def test_a_bomb_is_refused_by_what_it_really_unpacks_to(pack, files, target):
    archive = pack(files | {"img/bomb.png": bytes(30 << 20)})
    assert "a bomb?" in refusal(archive, target)


def test_a_bomb_that_lies_about_its_size_is_refused(pack, files, target):
    archive = pack(files | {"img/bomb.png": bytes(30 << 20)})
    size, small = struct.pack("<L", 30 << 20), struct.pack("<L", 10)
    archive.write_bytes(archive.read_bytes().replace(size, small))
    refusal(archive, target)


def overlapping(nested: bool) -> bytes:
    """120 pictures in an archive of one: each header is part of the picture before, or there is one
    header for all of them."""
    names = [b"img/%03d.png" % number for number in range(120)]

    def facts(content):
        return 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content)

    def header(name, content):
        return struct.pack("<4s5H3L2H", b"PK\3\4", 20, *facts(content), len(name), 0) + name

    def entry(name, content, offset):
        fixed = struct.pack("<4s2H4H3L", b"PK\1\2", 20, 20, *facts(content))
        return fixed + struct.pack("<5H2L", len(name), 0, 0, 0, 0, 0, offset) + name

    inside = bytes(200_000)
    body, contents = header(names[-1], inside) + inside, [inside] * len(names)
    if nested:
        for place in reversed(range(len(names) - 1)):
            contents[place] = body
            body = header(names[place], body) + body
    step = len(header(names[0], b"")) if nested else 0
    offsets = [step * place for place in range(len(names))]
    listed = b"".join(map(entry, names, contents, offsets))
    mark = b"all_train.json"
    listed += entry(mark, b"[]", len(body))
    body += header(mark, b"[]") + b"[]"
    count = len(names) + 1
    counts = 0, 0, count, count, len(listed), len(body), 0
    return body + listed + struct.pack("<4s4H2LH", b"PK\5\6", *counts)


@pytest.mark.parametrize("nested", [True, False])
def test_entries_that_share_their_bytes_cannot_outgrow_the_archive(tmp_path, target, nested):
    """Our budget refuses the first, unless a newer Python saw it coming; Python the second."""
    archive = tmp_path / "some.zip"
    archive.write_bytes(overlapping(nested))
    with zipfile.ZipFile(archive) as zipped:
        assert sum(info.file_size for info in zipped.infolist()) > 100 * archive.stat().st_size
    said = refusal(archive, target)
    assert "broken" in said or (nested and "a bomb?" in said)


@pytest.mark.parametrize(("limits", "said"), [({"files": 3}, "at most 3"), ({"size": 99}, "bomb")])
def test_too_many_files_or_bytes_are_refused(pack, files, target, limits, said):
    assert said in refusal(pack(files), target, **limits)


def test_an_encrypted_archive_is_refused(pack, files, target):
    content = bytearray(pack(files).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    archive = pack({})
    archive.write_bytes(content)
    assert "entry 0 is encrypted" in refusal(archive, target)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_packing_is_refused(pack, files, target, how):
    assert "entry 0 is packed in an unusual way" in refusal(pack(files, how), target)


def test_two_entries_of_one_name_are_refused(pack, files, target):
    assert "one name" in refusal(pack(files | {"./prompt.json": b"{}"}), target)


def test_a_file_where_a_folder_should_be_is_refused(pack, files, target):
    assert "cannot be unpacked" in refusal(pack({"img": b""} | files), target)


def test_an_archive_without_a_data_set_or_with_two_is_refused(pack, files, target):
    assert "it holds 0 files called all_train.json" in refusal(pack({"a.txt": b""}), target)
    two = {f"{n}/{name}": content for n in "ab" for name, content in files.items()}
    assert "it holds 2 files called all_train.json" in refusal(pack(two), target)


@pytest.mark.parametrize("name", ["world.json", "World.JSON", "world.json/readme.txt"])
def test_an_archive_cannot_pass_for_a_tiny_world(pack, files, target, name):
    assert "world.json would pass" in refusal(pack(files | {name: b"{}"}), target)


def test_a_file_that_is_no_zip_or_not_there_is_refused(tmp_path, target):
    (tmp_path / "some.zip").write_bytes(b"<html>quota exceeded</html>")
    assert "broken, or no zip file" in refusal(tmp_path / "some.zip", target)
    assert "cannot be unpacked" in refusal(tmp_path / "none.zip", target)


def test_a_folder_that_exists_is_not_touched(pack, files, tmp_path):
    with pytest.raises(UserError, match="exists"):
        import_zip(pack(files), tmp_path / "source")


def test_an_import_that_was_killed_is_named(pack, files, target):
    (target.parent / ".set.partial").mkdir(parents=True)
    with pytest.raises(UserError, match="was killed"):
        import_zip(pack(files), target)
    assert (target.parent / ".set.partial").exists()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_archive_is_unpacked_whole_or_refused(pack, files, target, data):
    content = bytearray(pack(files, zipfile.ZIP_STORED).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 30, len(content) // 2]))
    archive = target.parents[1] / "damaged.zip"
    archive.write_bytes(content[: len(content) - cut])
    place = Path(tempfile.mkdtemp(dir=archive.parent)) / "set"  # the same example comes again
    try:
        import_zip(archive, place)
    except UserError as error:
        assert "\n" not in str(error) and not place.exists()
    else:
        unpacked = {path.read_bytes() for path in place.rglob("*") if path.is_file()}
        assert unpacked <= set(files.values())
