"""What holding scores is for: without it the edit takes more, or does not even suppress; in every
seed."""

import pytest

from safeerase_lite.relations.runs import study
from safeerase_lite.relations.tuples import UNSAFE

SEEDS = (0, 1, 2)
METHODS = ["relation", "no_neighbours", "no_preservation"]
# The bounds lie between an effect and none. Over eight tuples (docs/how_faithful_relations.md) the
# edit keeps 97 to 100% of everything and is never on top. Without neighbours held it keeps 70% of
# held-out ones, and the caption stays on top in 76%; with nothing held 12% of neighbours are left.


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Means over two tuples: measure and slot × (method, seed)."""
    table = study(
        [[u] for u in UNSAFE[:2]],
        METHODS,
        SEEDS,
        left=(),
        adaptive=False,
        runs_dir=tmp_path_factory.mktemp("runs"),
        workers=1,
    )
    return table.pivot_table("value", ["measure", "slot"], ["method", "seed"])


ON_TOP = ("tuple top-1", "")
NEIGHBOURS = ("neighbour, held out", "")
MARGINALS = [("marginal on unsafe", slot) for slot in ("subject", "object")]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_edit_suppresses_and_keeps_what_takes_part_and_what_is_near(measured, seed):
    base, edited = measured["base", seed], measured["relation", seed]
    assert base[ON_TOP] > 0.95 and edited[ON_TOP] < 0.05
    for cell in (*MARGINALS, NEIGHBOURS, ("unrelated", "")):
        assert edited[cell] > 0.9 * base[cell]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_tells_less_of_the_tuple_than_before_whichever_way_its_score_is_turned(measured, seed):
    assert measured["relation", seed]["leakage", ""] < measured["base", seed]["leakage", ""] - 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_where_no_neighbour_is_held_they_sink_with_the_unsafe_caption(measured, seed):
    complete, less = measured["relation", seed], measured["no_neighbours", seed]
    assert less[NEIGHBOURS] < complete[NEIGHBOURS] - 0.1
    assert less[ON_TOP] > complete[ON_TOP] + 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_with_nothing_held_little_is_left(measured, seed):
    assert measured["no_preservation", seed][NEIGHBOURS] < 0.5
