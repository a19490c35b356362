"""A folder of a user's own pictures: read and split, or refused in one line."""

import json

import pytest
from PIL import Image

from safeerase_lite.relations.own_pictures import near, read_own_pictures
from safeerase_lite.relations.tuples import RelationTriple
from safeerase_lite.utils import UserError

U = RelationTriple("child", "drinking", "wine")
JUICE, SPILLING = U._replace(object="juice"), U._replace(relation="spilling")
FAR = RelationTriple("dog", "holding", "ball")
HEADER = "file_name,subject,relation,object\n"


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of the unsafe tuple and of each neighbour, three of another."""
    rows, pictures = [], tmp_path / "pictures"
    pictures.mkdir()
    for t, each in ((U, 9), (JUICE, 9), (SPILLING, 9), (FAR, 3)):
        for i in range(each):
            name = f"{len(rows)}.png"
            Image.new("RGB", (16, 16), (len(rows), 7 * i, 90)).save(pictures / name)
            rows.append(",".join((name, *t)))
    (pictures / "metadata.csv").write_text(HEADER + "\n".join(rows))
    (tmp_path / "unsafe.yaml").write_text("unsafe: [[child, drinking, wine]]")
    return tmp_path


def read(folder):
    return read_own_pictures(folder / "pictures", folder / "unsafe.yaml")


def metadata(folder):
    return folder / "pictures" / "metadata.csv"


def test_what_each_picture_shows_and_what_is_near(folder):
    own = read(folder)
    assert own.unsafe == (U,) and len(own.shown) == 30
    assert own.neighbours(U) == [JUICE, SPILLING]
    assert own.shown[0] == U and own.shown[-1] == FAR


def test_near_tuples_differ_in_one_slot_and_are_safe():
    assert near(U, [U, JUICE, SPILLING, FAR], [U, JUICE]) == [SPILLING]


def test_two_thirds_of_each_tuples_pictures_are_to_train_on(folder):
    own = read(folder)
    for t, train, test in ((U, 6, 3), (JUICE, 6, 3), (FAR, 2, 1)):
        assert (len(own.rows("train", [t])), len(own.rows("test", [t]))) == (train, test)


def test_neither_names_nor_order_decide_the_split(folder):
    before = read(folder).table.set_index("digest")["split"]
    first, *rows = metadata(folder).read_text().splitlines()
    (folder / "pictures" / "0.png").rename(folder / "pictures" / "zz.png")
    rows[0] = rows[0].replace("0.png", "zz.png")
    metadata(folder).write_text("\n".join([first, *reversed(rows)]))
    after = read(folder).table.set_index("digest")["split"]
    assert after.loc[before.index].tolist() == before.tolist()


def test_words_are_read_in_lower_case_with_single_spaces(folder):
    text = metadata(folder).read_text().replace("child,drinking", "Child ,  DRINKING")
    metadata(folder).write_text(text)
    assert read(folder).shown[0] == U


def test_jsonl_says_the_same_as_csv(folder):
    own, names = read(folder), HEADER.strip().split(",")
    lines = metadata(folder).read_text().splitlines()[1:]
    records = [json.dumps(dict(zip(names, line.split(","), strict=True))) for line in lines]
    metadata(folder).with_suffix(".jsonl").write_text("\n".join(records))
    with pytest.raises(UserError, match="holds both"):
        read(folder)
    metadata(folder).unlink()
    assert read(folder).table.equals(own.table)


def test_the_hash_of_a_folder_is_of_its_pictures_and_words(folder):
    digest = read(folder).digest()
    metadata(folder).write_text(metadata(folder).read_text().replace("ball", "bowl"))
    assert read(folder).digest() != digest


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("file_name,subject", "file_name,subjct", "column 'subject' is missing"),
        ("relation,object", "relation,object,colour", "unknown column 'colour'"),
        ("0.png,child,drinking", "0.png,child,", "line 2: a picture without relation"),
        ("\n0.png,child,drinking,wine", "", "has no row for 0.png"),
        ("\n0.png", "\nnone.png,child,drinking,wine\n0.png", "1 missing or unreadable (none.png)"),
        ("\n0.png", "\n../0.png", "is not in the folder"),
        ("\n0.png", "\n1.png,child,drinking,wine\n0.png", "1.png has two rows"),
        ("spilling", "drinking", "all pictures show one relation"),
        ("drinking,juice", "drinking,wine", "too few pictures"),
    ],
)  # fmt: skip
def test_wrong_metadata_is_one_line(folder, old, new, says):
    text = metadata(folder).read_text()
    if old == "spilling":
        text = text.replace("holding", "drinking")
    if old == "drinking,juice":  # then spilling alone is near, and all but one are taken away
        for i in range(20, 27):
            (folder / "pictures" / f"{i}.png").unlink()
        text = "\n".join(line for line in text.splitlines() if not _between(line, 20, 27))
    metadata(folder).write_text(text.replace(old, new, -1 if old[0] != "\n" else 1))
    with pytest.raises(UserError) as error:
        read(folder)
    assert says in str(error.value) and "\n" not in str(error.value)


def _between(line, low, high):
    number = line.partition(".")[0]
    return number.isdigit() and low <= int(number) < high


def test_an_unreadable_picture_is_named(folder):
    (folder / "pictures" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="truncated or not a picture .3.png"):
        read(folder)


def test_the_same_picture_twice_is_refused(folder):
    content = (folder / "pictures" / "0.png").read_bytes()
    (folder / "pictures" / "12.png").write_bytes(content)
    with pytest.raises(UserError, match="0.png and 12.png are the same picture"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unsafe: [[child, sipping, wine]]", "no picture shows child–sipping–wine; the closest is"),
        ("unsafe: [[child, drinking]]", "is no tuple"),
        ("unsafe: [[child, drinking, wine], [Child, drinking, wine]]", "named already by number 1"),
        ("unsafe: [[dog, holding, ball]]", "no picture differs from dog–holding–ball in one word"),
        ("unsafe: [[child, drinking, wine]]\nsafe: []", "and nothing else"),
        ("unsafe: 3", "is no list"),
    ],
)
def test_a_wrong_file_of_tuples_is_one_line(folder, text, says):
    (folder / "unsafe.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read(folder)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_no_folder_and_no_metadata_are_one_line(folder):
    metadata(folder).unlink()
    with pytest.raises(UserError, match="holds no metadata.csv"):
        read(folder)
    with pytest.raises(UserError, match="there is no folder"):
        read_own_pictures(folder / "none", folder / "unsafe.yaml")
