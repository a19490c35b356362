"""Unsafe tuples are data: closed under other words, with neighbours that are never unsafe."""

import pytest

from safeerase_lite.relations import words
from safeerase_lite.relations.tuples import (
    ALL_TUPLES,
    RelationTriple,
    TupleSet,
    containing,
    covered,
    expand,
    load_tuples,
    neighbours,
    parse,
    role_swap,
    table,
    two_slot_changes,
)
from safeerase_lite.utils import UserError

FIZZ = RelationTriple("imp", "tasting", "fizz")
OWL = RelationTriple("imp", "chasing", "owl")
U = (FIZZ, OWL)


def differing(t, u):
    return [slot for slot in words.SLOTS if getattr(t, slot) != getattr(u, slot)]


# ---- words ----


def test_a_synonym_is_the_same_tuple_and_a_hypernym_several():
    assert expand(["sprite", "sipping", "pop"]) == (FIZZ,)
    assert set(expand(["imp", "tasting", "drink"])) == {FIZZ, FIZZ._replace(object="cocoa")}


def test_another_word_for_an_unsafe_tuple_is_no_safe_neighbour():
    assert covered(["sprite", "touching", "drink"], U)
    assert not covered(["robot", "tasting", "fizz"], U)


def test_every_concept_of_every_slot_is_near_by_its_other_words():
    for slot, concepts in words.CONCEPTS.items():
        for concept in concepts:
            for word in words.others(concept, slot):
                assert concept in words.meanings(word, slot)


def test_a_caption_says_who_does_it_in_the_active_and_in_the_passive():
    assert words.caption(*FIZZ) == "an imp tasting some fizz"
    assert words.caption(*OWL, "{o} is being {p} by {s}") == "an owl is being chased by an imp"
    assert words.caption("imp", "sipping", "pop", words.WORDINGS[4]).endswith("tasted by an imp")


def test_no_caption_says_a_word_outside_the_vocabulary_and_no_wording_is_both_kinds():
    for wording in (*words.WORDINGS, *words.HELD_OUT_WORDINGS):
        for t in ALL_TUPLES:
            assert set(words.caption(*t, wording).split()) <= words.vocabulary()
    assert not set(words.WORDINGS) & set(words.HELD_OUT_WORDINGS)


# ---- around U ----


def test_nobody_does_a_thing_to_itself_and_things_do_nothing():
    assert all(t.subject != t.object and t.subject in words.BEINGS for t in ALL_TUPLES)
    assert len(ALL_TUPLES) == 8 * 7 * 15


@pytest.mark.parametrize("u", U)
def test_a_neighbour_changes_exactly_one_slot_and_lies_outside_u(u):
    for slot in words.SLOTS:
        near = neighbours(u, U, [slot])
        assert near and all(differing(t, u) == [slot] for t in near)
    assert not set(neighbours(u, U)) & set(U)


def test_two_slot_changes_share_one_slot():
    near = two_slot_changes(FIZZ, U)
    assert near and all(len(differing(t, FIZZ)) == 2 for t in near)
    assert OWL not in near and len(set(near)) == len(near)


def test_roles_are_swapped_among_beings_only():
    assert role_swap(OWL) == RelationTriple("owl", "chasing", "imp") and role_swap(FIZZ) is None


def test_the_table_has_a_row_for_each_with_its_role():
    near = table(U)
    assert near["role"].value_counts().to_dict() == {
        "neighbour": len(neighbours(FIZZ, U)) + len(neighbours(OWL, U)),
        "unsafe": 2,
        "role swap": 1,
    }
    assert set(near.loc[near["role"] == "neighbour", "slot"]) == set(words.SLOTS)


def test_the_tuples_of_a_being_are_all_it_does_and_all_done_to_it():
    owl = containing("owl", "object")
    assert all("owl" in t for t in owl) and len(owl) == 7 * 7 + 7 * 15
    assert {t.relation for t in containing("chasing", "relation")} == {"chasing"}


# ---- the file ----


def test_a_file_names_unsafe_and_safe_tuples(tmp_path):
    text = "unsafe: [[imp, tasting, fizz], [imp, chasing, owl]]\nsafe: [[robot, tasting, fizz]]\n"
    (tmp_path / "tuples.yaml").write_text(text)
    tuples = TupleSet(U, (RelationTriple("robot", "tasting", "fizz"),))
    assert load_tuples(tmp_path / "tuples.yaml") == tuples


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("unsafe: [[imp, tasting, fiz]]", "no object 'fiz': did you mean 'fizz'"),
        ("unsafe: [[fizz, tasting, imp]]", "no subject 'fizz'"),
        ("unsafe: [[imp, eating, fizz]]", "no relation 'eating'"),
        ("unsafe: [[imp, tasting]]", "number 1: .*give subject, relation, object"),
        ("unsafe: [[imp, tasting, 3]]", "is no tuple"),
        ("unsafe: [imp tasting fizz]", "is no tuple"),
        ("unsafe: [[imp, holding, imp]]", "nobody does that to itself"),
        ("unsafe: [[imp, tasting, fizz], [sprite, sipping, pop]]", "named already by number 1"),
        ("unsafe: [[imp, tasting, drink], [imp, tasting, cocoa]]", "named already by number 1"),
        ("unsafe: [[imp, tasting, drink]]\nsafe: [[imp, tasting, fizz]]", "both unsafe and safe"),
        ("unsafe: []", "write `unsafe:`"),
        ("unsafe: imp", "is no list"),
        ("unsave: [[imp, tasting, fizz]]", "write `unsafe:`"),
        ("unsafe: [[imp", "is not YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_says_where_and_what(tmp_path, text, complaint):
    path = tmp_path / "tuples.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as raised:
        load_tuples(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_tuples(tmp_path / "none.yaml")


def test_texts_are_tuples_and_a_relation_unlike_any_other_gets_the_list():
    assert parse(["fox hunting owl"]) == [RelationTriple("fox", "chasing", "owl")]
    with pytest.raises(UserError, match="give subject, relation, object"):
        parse(["imp tasting"])
    with pytest.raises(UserError, match="it has tasting, holding"):
        parse(["imp drinking fizz"])
