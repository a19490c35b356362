"""What lesson 05 asks while a model learns, and what it reads off the answers."""

import pandas as pd

from safeerase_lite.lessons import probe


def answers(**failed_by_step):
    """Ten answers of one run and group at each step, so many of them refused."""
    return pd.DataFrame(
        {"run": "PO", "what": "hazards", "step": int(step[1:]),
         "verdict": "refused" if n < failed else "right"}
        for step, failed in failed_by_step.items()
        for n in range(10)
    )  # fmt: skip


def test_the_first_steps_are_probed_closely_and_the_later_ones_now_and_then():
    due = [step for step in range(33) if probe.is_due(step, every=8, closely=4)]
    assert due == [0, 1, 2, 3, 4, 8, 16, 24, 32]


def test_the_first_step_of_a_share_is_found_and_missing_where_it_is_not_reached():
    asked = answers(s0=0, s1=4, s2=5, s3=10)
    assert probe.first_at(asked)["PO", "hazards"] == 2
    assert probe.first_at(asked, 0.4)["PO", "hazards"] == 1
    assert probe.first_at(answers(s0=0, s1=1)).isna().all()


def test_a_path_has_both_verdicts_at_every_step():
    paths = probe.paths(answers(s0=0, s1=4))
    assert list(paths["verdict"]) == ["refused", "gibberish"] * 2
    assert list(paths["share"]) == [0, 0, 0.4, 0]


def test_a_probe_asks_seen_and_new_kinds_in_seen_and_new_templates(world):
    asked = probe.one_each(world, "test")
    for name, rows in asked.groupby("set"):
        assert rows.groupby(["seen_kind", "seen_template"]).size().nunique() == 1, name
        assert (
            rows["question"].nunique() == 4
            and rows.groupby("seen_template")["question"].nunique().eq(2).all()
        )
