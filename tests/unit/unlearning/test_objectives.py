"""The objectives are the formulas they claim to be, to the digit."""

import math
from dataclasses import replace

import pytest
import torch

from safeerase_lite.config import config
from safeerase_lite.unlearning.objectives import (
    OBJECTIVES,
    Answers,
    Batch,
    LossWeights,
    Objective,
    divergence,
    label_of,
    loss,
    loss_weights,
    nll,
)
from safeerase_lite.utils import UserError

VOCABULARY = 4
WITH_PD = [name for name, objective in OBJECTIVES.items() if not objective.negated]


def answers(probabilities, labels):
    """Answers whose model gives the labelled token that probability; the others share the rest."""
    labels = torch.tensor(labels)
    logits = torch.zeros(*labels.shape, VOCABULARY)
    for position, probability in zip(labels.ge(0).nonzero(), probabilities, strict=True):
        rest = math.log((1 - probability) / (VOCABULARY - 1))
        logits[tuple(position)] = rest
        logits[(*position, labels[tuple(position)])] = math.log(probability)
    return Answers(logits.requires_grad_(), labels)


def frozen(x, **changes):
    """What the frozen model predicts for a batch's groups: the same, unless it is stated."""
    groups = {name: getattr(x, name) for name in ("forget", "refuse", "retain")}
    groups = {
        name: Answers(of.logits.detach(), of.labels, hidden=of.hidden.detach())
        for name, of in groups.items()
        if of is not None
    }
    return Batch(**(groups | changes))


@pytest.fixture
def batch():
    """Two forget answers, and a refusal to each; states of width 2, different at every place."""
    groups = {
        "forget": answers([0.5, 0.25, 0.8], [[0, 1], [-100, 2]]),
        "refuse": answers([0.1, 0.2, 0.3], [[-100, 1], [1, 3]]),
        "retain": answers([0.9], [[3]]),
        "decouple": answers([0.4], [[2]]),
    }
    generator = torch.Generator().manual_seed(0)
    for name, of in groups.items():
        hidden = torch.rand(*of.labels.shape, 2, generator=generator).requires_grad_()
        groups[name] = replace(of, hidden=hidden)
    x = Batch(**groups, direction=torch.tensor([0.6, 0.8]))
    return replace(x, reference=frozen(x))


F = -(math.log(0.5) + math.log(0.25) + math.log(0.8)) / 3
R = -math.log(0.9)
D = -math.log(0.4)


def plain(batch, **groups):
    return replace(batch, **({"decouple": None} | groups))


def value(objective, x, **weights):
    return loss(objective, x, LossWeights(**weights))[0].item()


# Float32 throughout: the sixth digit after the point is rounding, the fifth for losses of order 10
# (NPO, and differences of such losses).


def test_l_is_the_mean_over_answer_tokens_not_over_answers(batch):
    assert nll(batch.forget).item() == pytest.approx(F, abs=1e-6)


def test_ga_raises_the_forget_loss_and_gd_adds_the_retain_loss(batch):
    assert value("ga", plain(batch)) == pytest.approx(-F, abs=1e-6)
    assert value("gd", plain(batch)) == pytest.approx(-F + R, abs=1e-6)
    assert value("gd", plain(batch), retain=0.5) == pytest.approx(-F + R / 2, abs=1e-6)


def test_po_weighs_refusals_and_retain_answers_by_their_tokens(batch):
    expected = -sum(map(math.log, (0.1, 0.2, 0.3, 0.9))) / 4
    assert value("po", plain(batch)) == pytest.approx(expected, abs=1e-6)


def test_kl_is_from_the_reference_to_the_model_on_retain_answers(batch):
    q, p = answers([0.9], [[3]]), answers([0.6], [[3]])
    expected = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    x = plain(batch, retain=q, reference=Batch(retain=p))
    assert divergence(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert value("kl", x) == pytest.approx(-F + expected, abs=1e-6)
    same = Answers(q.logits.detach(), q.labels)
    assert divergence(same, q).item() == 0


def test_npo_starts_at_the_constant_of_an_untrained_model(batch):
    """log p = log p_reference: −(2/β) log σ(0) = (2/β) log 2."""
    assert value("npo", plain(batch), beta=0.1) == pytest.approx(2 / 0.1 * math.log(2), abs=1e-5)


def test_npo_is_bounded_below_where_ga_is_not():
    reference = answers([0.9], [[0]])
    for probability in (1e-3, 1e-6, 1e-30):
        x = Batch(forget=answers([probability], [[0]]), reference=Batch(forget=reference))
        assert value("npo", x, beta=0.1) >= 0
        assert value("ga", x) == pytest.approx(math.log(probability), rel=1e-6)


@pytest.mark.parametrize("objective", ["gd", "kl"])
def test_bounded_ascent_is_the_official_one_until_an_answer_is_forgotten(objective, batch):
    x = plain(batch)
    likely = value(f"{objective}_bounded", x, cap=1.5)  # nats: of both answers' means
    assert likely == pytest.approx(value(objective, x), abs=1e-6)


def test_a_forgotten_answer_is_pushed_no_further_and_the_others_are():
    forget = answers([0.5, 0.25, 0.01], [[0, 1], [-100, 2]])  # means of 1.04 and 4.6 nats
    x = Batch(forget=forget, retain=answers([0.9], [[3]]))
    total, _ = loss("gd_bounded", x, LossWeights(cap=4.0))
    total.backward()
    likely, forgotten = forget.logits.grad
    assert (likely != 0).any()
    assert (forgotten == 0).all()
    assert total.item() == pytest.approx((math.log(0.5) + math.log(0.25) - 4) / 3 + R, abs=1e-6)


def test_npo_rt_is_npo_and_the_retain_loss(batch):
    expected = value("npo", plain(batch)) + 0.5 * R
    assert value("npo_rt", plain(batch), retain=0.5) == pytest.approx(expected, abs=1e-5)


# ---- beyond the paper ----


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def test_simnpo_counts_each_answer_by_its_mean_per_token(batch):
    means = [-(math.log(0.5) + math.log(0.25)) / 2, -math.log(0.8)]
    expected = -2 / 2.5 * sum(log_sigmoid(2.5 * mean) for mean in means) / 2 + 0.5 * R
    assert value("simnpo", plain(batch), strength=2.5, retain=0.5) == pytest.approx(
        expected, abs=1e-6
    )


def test_dpo_starts_where_npo_does_and_falls_as_the_refusal_becomes_the_likelier(batch):
    constant = 2 / 0.1 * math.log(2)
    assert value("dpo", plain(batch)) == pytest.approx(constant + R, abs=1e-5)
    likelier = replace(batch.refuse, logits=answers([0.4, 0.2, 0.3], [[-100, 1], [1, 3]]).logits)
    expected = -2 / 0.1 * (log_sigmoid(0.1 * math.log(0.4 / 0.1)) + log_sigmoid(0)) / 2
    x = plain(batch, refuse=likelier)
    assert value("dpo", x) == pytest.approx(expected + R, abs=1e-5)


def test_dpo_without_its_refusal_is_npo_rt(batch):
    other = answers([0.9, 0.9, 0.9], [[0, 1], [-100, 2]])
    x = plain(batch, reference=frozen(batch, forget=other))
    assert value("dpo", x) == pytest.approx(value("npo_rt", x), abs=1e-5)


def test_undial_is_lowest_where_the_answers_token_has_lost_its_strength_in_nats_of_odds():
    """Before p : 1 − p; the target's odds are those times e^−γ, whatever the other tokens are."""
    before, gamma = 0.8, 3.0
    odds = before / (1 - before) * math.exp(-gamma)
    target = odds / (1 + odds)
    reference = Batch(forget=answers([before], [[2]]))

    def at(probability):
        x = Batch(forget=answers([probability], [[2]]), reference=reference)
        return value("undial", x, strength=gamma)

    others = (1 - target) * math.log((1 - target) / 3)  # three tokens share the rest
    entropy = -target * math.log(target) - others
    assert at(target) == pytest.approx(entropy, abs=1e-6)
    assert min(at(target * 0.9), at(target * 1.1)) > at(target)


def test_rmu_turns_forget_states_to_the_direction_and_keeps_retain_states():
    """‖h − c‖h₀‖u‖² / ‖h₀‖² on f, ‖h − h₀‖² / ‖h₀‖² on r, each the mean over answer tokens."""
    forget = answers([0.5, 0.5], [[-100, 0, 1]])
    retain = answers([0.5], [[2]])

    def states(group, rows):
        return replace(group, hidden=torch.tensor([rows]))

    before = states(forget, [[9.0, 9.0], [3.0, 4.0], [0.0, 2.0]])  # ‖h₀‖: padding, 5, 2
    kept = states(retain, [[1.0, 0.0]])
    x = Batch(
        forget=before,
        retain=states(retain, [[1.0, 0.5]]),
        reference=Batch(forget=before, retain=kept),
        direction=torch.tensor([0.6, 0.8]),
    )
    first = (3 - 2 * 5 * 0.6) ** 2 + (4 - 2 * 5 * 0.8) ** 2
    second = (0 - 2 * 2 * 0.6) ** 2 + (2 - 2 * 2 * 0.8) ** 2
    expected = (first / 25 + second / 4) / 2 + 0.5 * 0.25
    assert value("rmu", x, strength=2.0, retain=0.5) == pytest.approx(expected, abs=1e-6)
    steered = states(forget, [[0.0, 0.0], [6.0, 8.0], [2.4, 3.2]])
    done = replace(x, forget=steered, retain=kept)
    assert value("rmu", done, strength=2.0) == pytest.approx(0, abs=1e-6)


def test_text_alone_is_the_refusal_and_kl_on_what_is_kept(batch):
    q, p = answers([0.9], [[3]]), answers([0.6], [[3]])
    divergence = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    refusals = -sum(map(math.log, (0.1, 0.2, 0.3))) / 3
    x = plain(batch, retain=q, reference=Batch(retain=p))
    assert value("text", x, retain=0.5) == pytest.approx(refusals + divergence / 2, abs=1e-6)


def test_negation_learns_the_forget_answers_first(batch):
    assert value("negation", plain(batch)) == pytest.approx(F, abs=1e-6)


def test_pd_is_refused_where_the_adapter_is_negated():
    with pytest.raises(UserError, match="negation is plain only.*decouple='none'"):
        config(objective="negation", decouple="pd")


def test_the_history_has_each_groups_loss_and_the_total(batch):
    total, terms = loss("gd", batch, LossWeights(retain=0.5, decouple=0.5))
    expected = {"loss": -F + R / 2 + D / 2, "forget": F, "retain": R, "decouple": D}
    assert {name: terms[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert terms["loss"] == total.item()


@pytest.mark.parametrize("objective", WITH_PD)
def test_pd_is_one_added_term(objective, batch):
    w = LossWeights(decouple=0.7)
    with_pd, without = loss(objective, batch, w)[0], loss(objective, plain(batch), w)[0]
    assert (with_pd - without).item() == pytest.approx(0.7 * D, abs=1e-5)


@pytest.mark.parametrize("objective", WITH_PD)
def test_the_gradient_of_pd_is_its_own_term_and_nothing_else(objective, batch):
    x, part = batch, "logits" if OBJECTIVES[objective].depth is None else "hidden"
    leaves = {name: getattr(getattr(x, name), part) for name in OBJECTIVES[objective].needs}
    leaves["decouple"] = x.decouple.logits

    def gradients(total):
        computed = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, computed, strict=True))

    with_pd = gradients(loss(objective, x, LossWeights(decouple=0.7))[0])
    without = gradients(loss(objective, plain(x), LossWeights())[0])
    alone = gradients(0.7 * nll(x.decouple))
    assert torch.equal(with_pd["decouple"], alone["decouple"])
    for name in OBJECTIVES[objective].needs:
        assert torch.equal(with_pd[name], without[name])
        assert alone[name] is None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_positions_without_an_answer_get_no_gradient(objective):
    labels = [[-100, 0, 1], [-100, -100, 2]]
    groups = {
        name: replace(answers([0.5, 0.3, 0.2], labels), hidden=torch.ones(2, 3, 2).requires_grad_())
        for name in ("forget", "refuse", "retain", "decouple")
    }
    other = replace(answers([0.6, 0.1, 0.2], labels), hidden=torch.full((2, 3, 2), 0.5))
    other = replace(other, logits=other.logits.detach())
    reference = Batch(forget=other, refuse=other, retain=other)
    x = Batch(**groups, reference=reference, direction=torch.tensor([0.6, 0.8]))
    loss(objective, x, LossWeights())[0].backward()
    for name in (*OBJECTIVES[objective].needs, "decouple"):
        of = groups[name]
        in_layer = OBJECTIVES[objective].depth is not None and name != "decouple"
        gradient = (of.hidden if in_layer else of.logits).grad
        assert (gradient[of.labels == -100] == 0).all()
        assert (gradient[of.labels != -100] != 0).any()


@pytest.mark.parametrize(
    ("objective", "retain", "decouple"),
    [("ga", 1, 0.5), ("gd", 0.5, 0.5), ("kl", 1, 1), ("po", 1, 1), ("npo", 1, 0.5),
     ("gd_bounded", 0.5, 0.5), ("kl_bounded", 1, 1), ("npo_rt", 1, 0.5), ("simnpo", 1, 0.5),
     ("dpo", 1, 1), ("undial", 1, 1), ("rmu", 1, 1), ("text", 1, 1)],
)  # fmt: skip
@pytest.mark.parametrize("pairs", ["pd", "placebo"])
def test_official_weights_are_those_of_the_code(objective, retain, decouple, pairs):
    given = config(objective=objective, decouple=pairs, npo_beta=0.3, forget_cap=2.0)
    strength = OBJECTIVES[objective].strength
    assert loss_weights(given) == LossWeights(retain, decouple, 0.3, 2.0, strength)


@pytest.mark.parametrize("objective", WITH_PD)
def test_matched_weights_change_nothing_but_the_added_term(objective):
    for preset, decouple in (("matched", "pd"), ("matched", "none"), ("official", "none")):
        given = config(objective=objective, decouple=decouple, weights=preset, forget_cap=2.0)
        strength = OBJECTIVES[objective].strength
        assert loss_weights(given) == LossWeights(cap=2.0, strength=strength)


def test_every_objective_has_a_label_and_one_of_ones_own_its_name():
    assert [label_of(name) for name in (*OBJECTIVES, "vanilla", "mine")] == [
        "GA", "GD", "KL", "GD bounded", "KL bounded", "PO", "NPO", "NPO+RT", "SimNPO", "DPO",
        "UNDIAL", "RMU", "Text alone", "Negation", "vanilla", "mine"
    ]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_parts_of_a_step_add_up_to_the_step(objective):
    """Gradient accumulation is exact: parts divide by the step's counts, not by their own."""
    labels = [[0, 1, 2], [-100, -100, 3]]
    probabilities = {"forget": [0.5, 0.3, 0.2, 0.4], "refuse": [0.1, 0.3, 0.5, 0.9],
                     "retain": [0.7, 0.6, 0.5, 0.4], "decouple": [0.2, 0.2, 0.2, 0.8]}  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    groups = {
        name: replace(answers(p, labels), hidden=torch.rand(2, 3, 2, generator=generator))
        for name, p in probabilities.items()
    }
    other = replace(answers([0.5, 0.5, 0.6, 0.7], labels), hidden=torch.rand(2, 3, 2))
    reference = {"forget": other, "refuse": other, "retain": other}

    def rows(groups, i):
        part = slice(i, i + 1)
        return {
            name: Answers(g.logits[part], g.labels[part], 4, 2, g.hidden[part])
            for name, g in groups.items()
        }

    def total(groups, reference):
        direction = torch.tensor([0.6, 0.8])
        x = Batch(**groups, reference=Batch(**reference), direction=direction)
        return loss(objective, x, LossWeights())[0]

    step = total(groups, reference)
    parts = [total(rows(groups, i), rows(reference, i)) for i in (0, 1)]
    assert sum(parts).item() == pytest.approx(step.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"needs": ("forgett",)}, "unknown group in needs 'forgett': .*did you mean 'forget'"),
        ({"needs": "forget"}, "needs is 'forget': name groups"),
        ({"needs": ()}, "name groups"),
        ({"needs": ("forget",), "reference": "forget"}, "reference is 'forget': name groups"),
        ({"needs": ("forget",), "reference": ("forgett",)}, "reference .*did you mean 'forget'"),
        ({"needs": ("forget",), "reference": ("retain",)}, "reference .*choose one of forget"),
    ],
)
def test_a_group_that_an_objective_cannot_have_is_named_when_it_is_made(fields, says):
    with pytest.raises(UserError, match=says):
        Objective(lambda x, w: 0, **fields)
