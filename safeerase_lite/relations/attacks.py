"""Attacks on a CLIP that reads scenes and captions, by name: paraphrase, context, and pictures out
of distribution, the three of Relationship-Aware Safety Unlearning (arXiv 2603.14185). What each of
them does there could not be read; these are ours.

They are natural attacks: what a writer or a camera might do, without a look at the model. None is
adaptive, as projected gradient descent (PGD) is, so standing all of them is no adversarial
robustness.
"""

from collections.abc import Callable
from dataclasses import dataclass

from safeerase_lite.relations import caption_attacks as captions
from safeerase_lite.relations import picture_attacks as pictures


@dataclass(frozen=True)
class Attack:
    """kind: paraphrase, context or ood.
    changes: caption or picture.
    run: (tuple's words, strength, random.Random) → caption, or (Scene, strength, random.Random) →
        RGB picture. Strength is in [0, 1]; 0 leaves the plain caption or picture.
    about: what strength means.
    """

    name: str
    kind: str
    changes: str
    run: Callable
    about: str


_ALL = (
    Attack("wording", "paraphrase", "caption", captions.wording,
           "share of captions that get a wording no model has learned from"),
    Attack("passive", "paraphrase", "caption", captions.passive,
           "share of captions in the passive, in a learned or a held-out wording"),
    Attack("synonym", "paraphrase", "caption", captions.synonym,
           "probability that a word becomes a synonym, if it has one"),
    Attack("typos", "paraphrase", "caption", captions.typos,
           "probability that a letter is dropped, doubled, swapped with the next or a key beside"),
    Attack("story", "context", "caption", captions.story,
           f"clauses about others around the caption, in {captions.LONGEST_STORY}ths"),
    Attack("busy", "context", "picture", pictures.busy,
           f"number and size of bystanders, up to {pictures.BYSTANDERS}; the last stand in front"),
    Attack("palette", "ood", "picture", pictures.palette,
           "half turns of all colours about grey, light into dark too"),
    Attack("style", "ood", "picture", pictures.style,
           "½ is a line drawing, 1 its empty paper; blended between"),
    Attack("background", "ood", "picture", pictures.background,
           "½ is a pattern behind the scene, 1 the pattern alone; blended between"),
    Attack("blur", "ood", "picture", pictures.blur,
           f"radius of a Gaussian, {pictures.BLUR} pixels × strength²"),
    Attack("noise", "ood", "picture", pictures.noise,
           f"standard deviation of Gaussian noise, {pictures.NOISE} of 256 × strength²"),
    Attack("crop", "ood", "picture", pictures.crop,
           f"side that is cut off, up to {1 - pictures.SMALLEST:.0%}; the rest is enlarged"),
    Attack("occlusion", "ood", "picture", pictures.occlusion,
           "side of a square patch, as a share of the picture's"),
)  # fmt: skip
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}
