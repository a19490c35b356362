"""The exercises of notebook g: a logit lens, and the direction along which a model refuses.

The lens: nostalgebraist 2020, "interpreting GPT: the logit lens". The direction: Arditi et al. 2024
(arXiv 2406.11717). The package's own are in `interpretability/`.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from .exercise import Exercise, Mistake, slip

TITLE = "A logit lens, and the refusal direction"
EPSILON = 1e-6  # of the tiny model's last norm


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Random numbers whose mean is not zero, so that leaving a mean out is seen."""
    return torch.from_numpy(0.5 + rng.normal(size=shape)).float()


def stream_and_head(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A stream that grows from layer to layer, the gain of the last norm, and an output head."""
    layers, width, words = 3, int(rng.integers(4, 6)), 7
    growth = torch.tensor([0.3, 1.0, 3.0])[:, None]
    gain = torch.from_numpy(rng.uniform(0.4, 1.6, size=width)).float()
    return growth * normal(rng, layers, width), gain, normal(rng, words, width)


def rms(stream: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    return (stream.square().mean(dim, keepdim=True) + EPSILON).sqrt()


def lens(stream: Tensor, gain: Tensor, head: Tensor) -> Tensor:
    return (stream / rms(stream) * gain @ head.T).softmax(-1)


g1 = Exercise(
    "g1", "lens", "A logit lens", difficulty=3, importance=4, minutes=9,
    outcome="late (3 or 4)", reference=lens, inputs=stream_and_head, mistakes=(
        Mistake(lambda stream, gain, head: (stream @ head.T).softmax(-1),
                "the stream is read before the last norm: the head was trained on normed states, "
                "and a state's length, which grows from block to block, comes through as "
                "certainty."),
        Mistake(lambda stream, gain, head: (stream * gain @ head.T).softmax(-1),
                "the gain alone is no norm: divide by the root mean square first."),
        slip(lambda stream, gain, head: (stream / rms(stream) @ head.T).softmax(-1),
             "the norm's gain is left out: after the division each component is multiplied by "
             "its own."),
        slip(lambda stream, gain, head: lens(stream - stream.mean(-1, keepdim=True), gain, head),
             "a mean is subtracted: that is a layer norm. This model has an RMS norm, which only "
             "divides."),
        slip(lambda stream, gain, head: (
                 stream / stream.norm(dim=-1, keepdim=True) * gain @ head.T).softmax(-1),
             "divided by the length: the root *mean* square is smaller, by the root of the width."),
        slip(lambda stream, gain, head: (stream / rms(stream) ** 2 * gain @ head.T).softmax(-1),
             "divided by the mean square: its root is missing."),
        Mistake(lambda stream, gain, head: (stream / rms(stream, 0) * gain @ head.T).softmax(-1),
                "the mean square is taken over the layers: each layer is normed by itself, over "
                "its width (the last axis)."),
        Mistake(lambda stream, gain, head: (
                    stream / rms(stream, (0, 1)) * gain @ head.T).softmax(-1),
                "one mean square for all layers: each layer has its own, or later ones come "
                "through as more certain."),
        Mistake(lambda stream, gain, head: (stream / rms(stream) * gain @ head.T).softmax(0),
                "the softmax runs over the layers: at every layer the words' probabilities sum to "
                "1, so it runs over the last axis."),
        slip(lambda stream, gain, head: stream / rms(stream) * gain @ head.T,
             "these are logits: probabilities are their softmax over the words."),
        slip(lambda *given: lens(*given).log(),
             "these are log-probabilities: `softmax`, not `log_softmax`."),
))  # fmt: skip


def said_and_tokens(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Probabilities (rows, layers, words), and of each row the token that should come next, which
    is the likeliest at the last layer in some."""
    rows, layers, words = 5, 3, 7
    said = torch.from_numpy(rng.normal(size=(rows, layers, words))).float().mul(2).softmax(-1)
    tokens = torch.from_numpy(rng.integers(words, size=rows))
    tokens[:2] = said[:2, -1].argmax(-1)
    return said, tokens


def by_layer(said: Tensor, tokens: Tensor) -> Tensor:
    return said[torch.arange(len(tokens)), :, tokens].mean(0)


g2 = Exercise(
    "g2", "by_layer", "The plan's word, layer by layer", difficulty=2, importance=4, minutes=7,
    outcome="the first", reference=by_layer, inputs=said_and_tokens, mistakes=(
        Mistake(lambda said, tokens: said[torch.arange(len(tokens)), :, tokens].mean(1),
                "the mean is over the wrong axis: this is a number per row. Average over the rows, "
                "and keep the layers."),
        Mistake(lambda said, tokens: by_layer(said, tokens).mean(),
                "one number: the mean over layers hides what the lens is for. Average over rows "
                "alone."),
        Mistake(lambda said, tokens: said.amax(-1).mean(0),
                "this is the probability of the *likeliest* word, whichever it is: asked for is "
                "the token that should come next."),
        slip(lambda said, tokens: (said.argmax(-1) == tokens[:, None]).float().mean(0),
             "this is how often the token comes first: asked for is its probability, which shows "
             "what is on its way up."),
        Mistake(lambda said, tokens: said[:, :, tokens].mean((0, 2)),
                "every row is read at every row's token: each has one of its own, so index rows "
                "and tokens together, `said[torch.arange(len(tokens)), :, tokens]`."),
        Mistake(lambda said, tokens: said[:, :, tokens[0]].mean(0),
                "the first row's token is looked up in all rows: each row has its own."),
        Mistake(lambda said, tokens: said[0, :, tokens[0]],
                "the first row alone: average over all rows."),
        slip(lambda said, tokens: said[torch.arange(len(tokens)), :, tokens].sum(0),
             "a sum over rows: divide by how many there are."),
        slip(lambda said, tokens: -said[torch.arange(len(tokens)), :, tokens].log().mean(0),
             "these are nats: asked for are probabilities, without the logarithm."),
))  # fmt: skip


def two_sets_of_states(rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
    """States (rows, layers, width) of the same prompts, refused and answered, and a layer."""
    rows, layers, width = 5, 3, 4
    answered = normal(rng, rows, layers, width)
    refused = answered + 2 * normal(rng, layers, width) + 0.5 * normal(rng, rows, layers, width)
    return refused, answered, int(rng.integers(layers))


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)


def direction(refused: Tensor, answered: Tensor, layer: int) -> Tensor:
    return unit(refused[:, layer].mean(0) - answered[:, layer].mean(0))


g3 = Exercise(
    "g3", "direction", "A difference of means", difficulty=3, importance=5, minutes=8,
    outcome="above 0.7", reference=direction, inputs=two_sets_of_states, mistakes=(
        Mistake(lambda refused, answered, layer: direction(answered, refused, layer),
                "the sign: this points from refusing to answering. Refused minus answered."),
        slip(lambda refused, answered, layer: (refused - answered)[:, layer].mean(0),
             "the direction is right and its length is not 1: divide by its norm."),
        Mistake(lambda refused, answered, layer: (answered - refused)[:, layer].mean(0),
                "the sign, and the length: refused minus answered, divided by its norm."),
        Mistake(lambda refused, answered, layer: unit((refused - answered).mean(1)[layer]),
                "the mean is over the wrong axis: you averaged over the layers, and `layer` then "
                "chose a prompt. The prompts are axis 0."),
        Mistake(lambda refused, answered, layer: unit((refused - answered).mean((0, 1))),
                "averaged over all layers: each has a direction of its own, asked for is that of "
                "`layer`."),
        Mistake(lambda refused, answered, layer: unit((refused - answered)[0, layer]),
                "one prompt's difference: what that prompt is about is in it too. The mean over "
                "prompts leaves what they share."),
        slip(lambda refused, answered, layer: unit(unit((refused - answered)[:, layer]).mean(0)),
             "each prompt's difference was brought to length 1 before the mean: first the means, "
             "then the length."),
        slip(lambda refused, answered, layer: unit(
                 unit(refused[:, layer].mean(0)) - unit(answered[:, layer].mean(0))),
             "each mean was brought to length 1 before the difference: first the difference, then "
             "the length."),
        slip(lambda refused, answered, layer: (lambda r: (r / r.norm())[layer])(
                 (refused - answered).mean(0)),
             "divided by the norm of all layers together: this layer's vector alone is to have "
             "the length 1."),
))  # fmt: skip


def states_and_direction(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """States (tokens, width), and a direction whose length is far from 1."""
    return normal(rng, 3, 4), float(rng.uniform(1.5, 3)) * unit(normal(rng, 4))


def ablate(states: Tensor, r: Tensor, dose: float = 1.0) -> Tensor:
    return states - dose * (states @ unit(r))[:, None] * unit(r)


g4 = Exercise(
    "g4", "ablate", "Projected out", difficulty=3, importance=5, minutes=8,
    outcome="they stay right", reference=ablate, inputs=states_and_direction, mistakes=(
        Mistake(lambda states, r: states - (states @ r)[:, None] * r,
                "projected out with an unnormalised direction: r stands in the formula twice, so "
                "too much is taken by the square of its length. Use r / r.norm()."),
        slip(lambda states, r: states - (states @ r)[:, None] * unit(r),
             "r is brought to length 1 in one of its two places only: in the product as well."),
        Mistake(lambda states, r: states - r,
                "r was subtracted, from every state as much: take from each state *its own* "
                "component along r."),
        Mistake(lambda states, r: states - unit(r),
                "a vector of length 1 was subtracted from every state: take from each *its own* "
                "component along it."),
        Mistake(lambda states, r: (states @ unit(r))[:, None] * unit(r),
                "this is the component along r: asked for is what is left without it."),
        Mistake(partial(ablate, dose=2),
                "taken out twice: this mirrors each state, and its component along r is as long "
                "as before."),
        Mistake(partial(ablate, dose=-1),
                "the sign: the component along r was added, and is now twice as long."),
        Mistake(lambda states, r: states - (states @ unit(r)).mean() * unit(r),
                "the mean component was taken from every state: each has its own."),
        Mistake(lambda states, r: states * (1 - unit(r) ** 2),
                "component by component: r̂ r̂ᵀ is a matrix. First one number per state, its "
                "product with r̂; then that times r̂."),
        slip(lambda states, r: unit(ablate(states, r)) * states.norm(dim=-1, keepdim=True),
             "each state was stretched to its old length: that changes what is *not* along r. "
             "Leave it shorter."),
))  # fmt: skip

By_seed = dict[int, float]


def shares_by_seed(rng: np.random.Generator) -> tuple[By_seed, By_seed, dict[int, list[float]]]:
    """The share of plans that are said before, with the refusal direction out, and with each of
    several random ones out; not as many for every seed."""
    seeds = sorted(rng.permutation(10)[:3].tolist())

    def drawn(low: int, high: int) -> float:
        return int(rng.integers(low, high)) / 100

    before = {seed: drawn(1, 10) for seed in seeds}
    ablated = {seed: drawn(60, 95) for seed in seeds}
    counts = dict(zip(seeds, (rng.permutation(3) + 2).tolist(), strict=True))
    return before, ablated, {seed: [drawn(10, 50) for _ in range(counts[seed])] for seed in seeds}


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def beyond_chance(before: By_seed, ablated: By_seed, random: dict, of=mean) -> float:
    return mean(ablated[seed] - of(random[seed]) for seed in ablated)


g5 = Exercise(
    "g5", "beyond_chance", "The random control", difficulty=2, importance=5, minutes=6,
    outcome="hardly any", reference=beyond_chance, inputs=shares_by_seed, mistakes=(
        Mistake(lambda before, ablated, random: mean(ablated[s] - before[s] for s in ablated),
                "the random control is forgotten: any cut of that size may do some of this. Hold "
                "it against random directions, not against no cut at all."),
        Mistake(lambda before, ablated, random: mean(ablated.values()),
                "this is the share itself, held against nothing: subtract what random directions "
                "do."),
        Mistake(lambda before, ablated, random: mean(
                    mean(random[s]) - before[s] for s in ablated),
                "this is what *random* directions do: asked for is what the refusal direction does "
                "beyond it."),
        Mistake(lambda *given: -beyond_chance(*given),
                "the sign: the refusal direction's share comes first, random ones are "
                "subtracted."),
        Mistake(partial(beyond_chance, of=min),
                "the weakest of the random directions: that flatters. Take the mean of all of a "
                "seed."),
        slip(partial(beyond_chance, of=max),
             "the strongest of the random directions: cautious, but it grows with how many were "
             "drawn. Take their mean."),
        slip(partial(beyond_chance, of=lambda shares: shares[0]),
             "one random direction: all that were drawn count, so take their mean."),
        slip(lambda before, ablated, random: mean(ablated.values()) - mean(
                 share for shares in random.values() for share in shares),
             "all random shares in one pot: a seed with more of them weighs more. First the mean "
             "of each seed, then over seeds."),
        slip(lambda before, ablated, random: mean(
                 ablated[s] - before[s] - mean(random[s]) for s in ablated),
             "the start is subtracted from one side alone: the random directions start there too, "
             "so `before` falls out."),
        slip(lambda before, ablated, random: mean(
                 ablated[s] / mean(random[s]) for s in ablated),
             "a ratio: where random directions do nothing, it is infinite. Give the difference."),
))  # fmt: skip


g6 = Exercise(
    "g6", "supported", "Necessary, sufficient, erased?", difficulty=1, importance=5, minutes=5,
    outcome="begin as a refusal and end in babble", reference={"necessary"}, mistakes=(
        Mistake({"necessary", "sufficient"},
                "`sufficient` is not borne out: read the column `refused` of what was added. An "
                "answer that begins as a refusal is not yet one."),
        Mistake({"sufficient"},
                "the other way round: taken out, refusals go; put in, none is finished."),
        Mistake({"necessary", "erased"},
                "`erased`? With one direction out the plans are said word for word, by the same "
                "weights: they had been covered."),
        Mistake({"erased"},
                "what is erased does not come back when a direction is taken out; and the "
                "refusals went with it."),
        Mistake({"necessary", "any"},
                "`any`? Compare the rows of the random direction with those of the refusal "
                "direction, of the same length."),
        Mistake({"any"},
                "the random direction, as long, changes nothing when it is taken out: it is *this* "
                "direction."),
        Mistake({"necessary", "sufficient", "erased"},
                "two too many: what was added finishes no refusal, and what comes back was not "
                "erased."),
        Mistake({"necessary", "sufficient", "erased", "any"},
                "all four contradict each other: if any direction did it, this one would not be "
                "needed."),
        Mistake(set(),
                "not one? Look at the rows of what was taken out: what became of `refused`, and "
                "what did the random direction do?"),
))  # fmt: skip


EXERCISES = (g1, g2, g3, g4, g5, g6)
