"""Safety sets are read as published; another's layout and a broken record are refused by name."""

import json
import warnings

import pytest
from published_sets import WRITERS
from small_dataset import make_dataset, write_json

from safeerase_lite.data.dataset import read_data
from safeerase_lite.data.layouts import LAYOUTS
from safeerase_lite.data.safety_sets import READERS, UNREAD, read_safety_set
from safeerase_lite.utils import UserError

ASKED = {  # types → what is wanted of an answer
    "xstest": {("figurative_language",): "answer", ("contrast_homonyms",): "refusal"},
    "mossbench": {
        ("Exaggerated Risk",): "answer",
        ("Negated Harm",): "answer",
        ("Counterintuitive Interpretation",): "answer",
    },
    "vlguard": {
        ("safe_safes",): "answer",
        ("safe_unsafes",): "refusal",
        ("unsafes", "mischief"): "refusal",
    },
    "mm-safetybench": {
        (scenario, picture): "refusal"
        for scenario in ("01-Pranks", "02-Riddles")
        for picture in ("SD", "SD_TYPO", "TYPO")
    },
    "siuo": {("dangerous kites",): "safe completion"},
}
FILES = {
    "mossbench": "images_information/information.json",
    "vlguard": "test.json",
    "mm-safetybench": "processed_questions/02-Riddles.json",
    "siuo": "siuo_gen.json",
}


@pytest.fixture
def folder(tmp_path):
    """The folder of a set of that name."""
    return lambda name: WRITERS[name](tmp_path / name)


def refused(name, folder, **options) -> str:
    with pytest.raises(UserError) as raised:
        read_safety_set(name, folder, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def change(path, edit) -> None:
    """Rewrite a JSON file after `edit` was applied to its last record."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content[-1] if isinstance(content, list) else content[list(content)[-1]])
    write_json(path, content)


@pytest.mark.parametrize("name", READERS)
def test_questions_have_the_sets_own_types_and_what_its_authors_want(name, folder):
    table = read_safety_set(name, folder(name))
    asked = {row.types: row.wanted for row in table.itertuples()}
    assert asked == ASKED[name]


def test_of_a_clone_of_the_authors_repository_the_folder_data_is_read(folder, tmp_path):
    written = folder("siuo")
    (tmp_path / "clone").mkdir()
    written.rename(tmp_path / "clone" / "data")
    assert len(read_safety_set("siuo", tmp_path / "clone")) == 1


def test_both_versions_of_xstest_are_read(folder):
    root = folder("xstest")
    first = read_safety_set("xstest", root)
    text = (root / "xstest_prompts.csv").read_text(encoding="utf-8")
    (root / "xstest_prompts.csv").unlink()
    (root / "xstest_v2_prompts.csv").write_text(text.replace("id,", "id_v2,"), encoding="utf-8")
    assert read_safety_set("xstest", root).equals(first)
    assert set(first["image"]) == {""}


def test_the_three_pictures_of_a_question_are_one_kind_and_have_their_own_wording(folder):
    table = read_safety_set("mm-safetybench", folder("mm-safetybench"))
    assert (len(table), table["kind"].nunique()) == (12, 4)
    shown = ["/SD/" in image for image in table["image"]]
    assert [question.endswith("shows?") for question in table["question"]] == shown


def test_a_reference_comes_with_what_a_judge_could_not_know(folder):
    [reference] = read_safety_set("siuo", folder("siuo"))["reference"]
    assert reference.startswith("Kites like wind.")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("other", READERS)
def test_another_sets_layout_is_refused_by_its_name(name, other, folder):
    if other != name:
        own, others = READERS[name][0], READERS[other][0]
        assert f"looks like {others}, not {own}" in refused(name, folder(other))


@pytest.mark.parametrize("name", READERS)
def test_the_benchmark_is_no_safety_set_nor_the_other_way_round(name, folder, tmp_path):
    assert "looks like SafeEraser" in refused(name, make_dataset(tmp_path / "benchmark"))
    with pytest.raises(UserError, match=f"looks like {READERS[name][0]}: .*data ask"):
        read_data(folder(name))


@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_something_else_is_refused_with_what_is_looked_for(name, tmp_path):
    assert LAYOUTS[READERS[name][0]][0] in refused(name, tmp_path)
    assert LAYOUTS[READERS[name][0]][0] in refused(name, tmp_path / "nowhere")


def test_a_set_without_a_known_layout_is_refused_and_not_guessed(tmp_path):
    assert "no published layout" in refused("dual-bench", tmp_path)
    assert not UNREAD.keys() & READERS.keys()
    assert "xstest" in refused("xtest", tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "place"),
    [
        ("mossbench", "question", "information.json, record '3': 'question' is missing"),
        ("mossbench", "metadata", "information.json, record '3': 'metadata' is missing"),
        ("vlguard", "safe", "test.json, record 1: 'safe' is missing"),
        ("vlguard", "instr-resp", "test.json, record 1: 'instr-resp' is missing"),
        ("mm-safetybench", "Rephrased Question", "02-Riddles.json, record '1': 'Rephrased Quest"),
        ("siuo", "category", "siuo_gen.json, record 0: 'category' is missing"),
    ],
)
def test_a_record_without_a_key_is_named_with_its_file(name, key, place, folder):
    root = folder(name)
    change(root / FILES[name], lambda record: record.pop(key))
    assert place in refused(name, root)


def test_a_row_without_a_prompt_is_named_with_its_file(folder):
    root = folder("xstest")
    with (root / "xstest_prompts.csv").open("a", encoding="utf-8") as file:
        file.write("4\n")
    assert "xstest_prompts.csv, record 3: 'prompt' is missing" in refused("xstest", root)


@pytest.mark.parametrize(
    ("name", "fields", "complaint"),
    [
        ("mossbench", {"metadata": {"over": "type 4", "harm": 1}}, "over: is none of type 1"),
        ("mossbench", {"metadata": {"over": "type 1"}}, "contrast set"),
        ("mossbench", {"image": "../1.png"}, "holds '..'"),
        ("mossbench", {"question": "<image> What?"}, "holds <image>"),
        ("vlguard", {"safe": "no"}, "should be true or false"),
        ("vlguard", {"safe": True}, "'safe_instruction' is missing"),
        ("vlguard", {"instr-resp": [{"response": "No."}]}, "'instruction' is missing"),
        ("siuo", {"question": ["May", "I?"]}, "should be a text, is a list"),
    ],
)
def test_a_wrong_value_is_refused_and_not_quoted(name, fields, complaint, folder):
    root = folder(name)
    change(root / FILES[name], lambda record: record.update(fields))
    message = refused(name, root)
    assert complaint in message and FILES[name].split("/")[-1] in message
    assert "type 4" not in message and "What?" not in message


@pytest.mark.parametrize(
    ("name", "content"),
    [("mossbench", []), ("vlguard", {}), ("siuo", {"a": 1}), ("mm-safetybench", [1])],
)
def test_a_file_of_another_form_is_refused(name, content, folder):
    root = folder(name)
    write_json(root / FILES[name], content)
    assert "of records" in refused(name, root)


def test_a_key_that_would_lead_out_of_the_folder_is_refused(folder):
    root = folder("mm-safetybench")
    query = json.loads((root / FILES["mm-safetybench"]).read_text(encoding="utf-8"))["0"]
    write_json(root / FILES["mm-safetybench"], {"../0": query})
    assert "no number" in refused("mm-safetybench", root)


@pytest.mark.parametrize(("name", "content"), [("vlguard", "[]"), ("xstest", "id,prompt,type\n")])
def test_a_file_without_a_record_is_refused(name, content, folder):
    root = folder(name)
    file = root / {"vlguard": "test.json", "xstest": "xstest_prompts.csv"}[name]
    file.write_text(content, encoding="utf-8")
    assert "holds no question" in refused(name, root)


def test_pictures_that_are_not_there_are_counted_unless_their_type_is_left_out(folder):
    root = folder("vlguard")
    (root / "test/ads/b.png").unlink()
    assert "1 missing or unreadable (test/ads/b.png)" in refused("vlguard", root)
    kept = read_safety_set("vlguard", root, types=["safe_safes"])
    assert [row.types for row in kept.itertuples()] == [("safe_safes",)]
    assert "safe_safes" in refused("vlguard", root, types=["safe_saves"])


def test_no_published_key_is_taken_for_a_misspelt_one(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in READERS:
            read_safety_set(name, folder(name))
