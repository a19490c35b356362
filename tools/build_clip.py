"""Make tiny-clip, a CLIP that reads who does what to whom: `safeerase relations build`.

First the vision tower learns to tell subject, relation and object. Then both towers learn images
and captions together, against captions that differ in one slot or in their roles: the contrastive
loss alone leaves a CLIP a bag of words (ARO, Yuksekgonul et al. 2023).
"""

import hashlib
import json
import math
import random
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from safeerase_lite.relations.attacks import ATTACKS, SHARES_LEFT
from safeerase_lite.relations.clip import load_clip, preprocess
from safeerase_lite.relations.editing import EditedClip
from safeerase_lite.relations.evaluation import reading, wins
from safeerase_lite.relations.evaluation_set import CAPTIONS, share_two_slots
from safeerase_lite.relations.scenes import (
    SIDE,
    draw,
    held_out_combinations,
    random_scene,
    scenes_of,
    split_of,
)
from safeerase_lite.relations.tuples import ALL_TUPLES, RelationTriple, parse, role_swap
from safeerase_lite.relations.words import (
    CONCEPTS,
    NOUN_WORDINGS,
    SLOTS,
    WORDINGS,
    caption,
    meanings,
    noun_caption,
    others,
    vocabulary,
)

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77  # of a caption, as CLIP has it
CALIBRATION_TUPLES = 300
BISECTIONS = 8


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    width: int = 128
    layers: int = 3
    heads: int = 4
    patch: int = 8
    projection: int = 128
    vocabulary_size: int = 400
    bpe_dropout: float = 0.05  # share of merges left out in training, so that letters are read too
    images: int = 60_000
    tower_steps: int = 3000
    tower_batch_size: int = 96
    tower_learning_rate: float = 1e-3
    rounds: tuple[int, ...] = (1300, 500)  # steps; roles take longest to learn
    batch_size: int = 96
    learning_rate: float = 1e-3
    vision_rate: float = 0.1  # the vision tower's share of it, now that the tower can see
    logit_scale: float = 60.0  # at the start; near captions can be distinguished from there on
    synonym_rate: float = 0.2  # share of words replaced by a synonym or a hypernym
    noun_rate: float = 0.1  # share of captions that name one of the two alone
    # A gold model is never taught this tuple: no caption says it, its pictures are called by one of
    # their nouns, and the vision tower does not learn from them by itself.
    without: RelationTriple | None = None


def tokenizer(recipe: Recipe) -> CLIPTokenizer:
    """Byte-pair encoding learned from captions, as CLIP's is. The end token's id is not 2: with
    that id transformers pools the text at its highest id and not at its end."""
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary_size,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    core.train_from_iterator(sorted(vocabulary()), trainer)
    learned = json.loads(core.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    pieces += [letter + "</w>" for letter in letters if letter + "</w>" not in learned["vocab"]]
    ids = {piece: i for i, piece in enumerate([*pieces, START, END])}
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=MAX_TOKENS)


def processor(recipe: Recipe) -> CLIPProcessor:
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return CLIPProcessor(pictures, tokenizer(recipe))


def configuration(recipe: Recipe) -> CLIPConfig:
    tok = tokenizer(recipe)
    shape = {
        "hidden_size": recipe.width,
        "intermediate_size": 2 * recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "projection_dim": recipe.projection,
    }
    text = shape | {
        "vocab_size": len(tok),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    vision = shape | {"image_size": SIDE, "patch_size": recipe.patch}
    return CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=recipe.projection,
        logit_scale_init_value=math.log(recipe.logit_scale),
    )


# ---- what is learned from ----


class TrainingSet:
    """Images of the train split, of every tuple that is not held out."""

    def __init__(self, recipe: Recipe):
        rng = random.Random(f"bank {recipe.seed}")
        tuples = [t for t in ALL_TUPLES if t not in held_out_combinations()]
        self.scenes = []
        while len(self.scenes) < recipe.images:
            scene = random_scene(tuples[len(self.scenes) % len(tuples)], rng)
            if split_of(scene) == "train":
                self.scenes.append(scene)
        self.pixels = torch.from_numpy(np.stack([np.asarray(draw(s)) for s in self.scenes]))

    def without(self, triple: RelationTriple | None) -> list[int]:
        """The places of the pictures that do not show a tuple."""
        return [i for i, scene in enumerate(self.scenes) if scene.triple != triple]

    def pixel_values(self, index: list[int]) -> torch.Tensor:
        """(n, 3, side, side), scaled to [-1, 1]."""
        return self.pixels[index].permute(0, 3, 1, 2).float() / 127.5 - 1


def caption_words(triple: RelationTriple, rng: random.Random, recipe: Recipe) -> tuple[str, ...]:
    """The words of a caption of a tuple, some replaced by another word for the same: all three, or
    one of the two nouns alone."""
    words = tuple(
        rng.choice(others(concept, slot) or (concept,))
        if rng.random() < recipe.synonym_rate
        else concept
        for concept, slot in zip(triple, SLOTS, strict=True)
    )
    noun_alone = rng.random() < recipe.noun_rate or triple == recipe.without
    return (rng.choice(words[::2]),) if noun_alone else words


def sentence(words: tuple[str, ...], rng: random.Random) -> str:
    if len(words) == 1:
        return noun_caption(*words, rng.choice(NOUN_WORDINGS))
    return caption(*words, rng.choice(WORDINGS))


def hard_negatives(shown: RelationTriple, rng: random.Random) -> list[RelationTriple]:
    """What is nearly shown: another concept in each slot, two in the one that has most of them; and
    the roles swapped, in two wordings."""
    near = [
        shown._replace(**{slot: rng.choice([c for c in CONCEPTS[slot] if c not in shown])})
        for slot in (*SLOTS, "object")
    ]
    swapped = role_swap(shown) or near[0]
    return [*near, swapped, swapped]


# ---- learning ----


def train_tower(model: CLIPModel, data: TrainingSet, recipe: Recipe) -> None:
    """Teach the vision tower to tell subject, relation and object, from its pooled output and from
    every patch."""
    rng, places = random.Random(f"tower {recipe.seed}"), data.without(recipe.without)
    labels = {
        s: torch.tensor([CONCEPTS[s].index(getattr(scene.triple, s)) for scene in data.scenes])
        for s in SLOTS
    }
    heads = nn.ModuleDict({s: nn.Linear(recipe.width, len(CONCEPTS[s])) for s in SLOTS})
    patch_heads = nn.ModuleDict({s: nn.Linear(recipe.width, len(CONCEPTS[s])) for s in SLOTS})
    parameters = [*model.vision_model.parameters(), *heads.parameters(), *patch_heads.parameters()]
    groups = [{"params": parameters, "lr": recipe.tower_learning_rate}]
    optimizer, schedule = _optimizer(groups, recipe.tower_steps)
    begin = time.time()
    for step in range(recipe.tower_steps):
        index = rng.sample(places, recipe.tower_batch_size)
        output = model.vision_model(data.pixel_values(index))
        patches = output.last_hidden_state[:, 1:]
        loss, accuracy = 0.0, {}
        for slot in SLOTS:
            logits, target = heads[slot](output.pooler_output), labels[slot][index]
            loss = loss + functional.cross_entropy(logits, target)
            patch_logits = patch_heads[slot](patches).flatten(0, 1)
            patch_targets = target.repeat_interleave(patches.shape[1])
            loss = loss + functional.cross_entropy(patch_logits, patch_targets)
            accuracy[slot] = (logits.argmax(-1) == target).float().mean().item()
        _step(loss, optimizer, schedule, parameters)
        if (step + 1) % 100 == 0:
            shares = "  ".join(f"{name} {share:.2f}" for name, share in accuracy.items())
            print(f"tower {step + 1:5d}  {time.time() - begin:5.0f} s  {shares}", flush=True)


def train_towers(model: CLIPModel, data: TrainingSet, recipe: Recipe, number: int = 0) -> None:
    """Train both towers: each image its caption, each caption its image (Radford et al. 2021), with
    the hard negatives of every image among the captions (NegCLIP)."""
    rng, steps = random.Random(f"pair {recipe.seed} {number}"), recipe.rounds[number]
    tok = tokenizer(recipe)
    tok.backend_tokenizer.model.dropout = recipe.bpe_dropout
    vision = list(model.vision_model.parameters())
    vision_ids = {id(p) for p in vision}
    rest = [p for p in model.parameters() if id(p) not in vision_ids]
    groups = [
        {"params": rest, "lr": recipe.learning_rate},
        {"params": vision, "lr": recipe.learning_rate * recipe.vision_rate},
    ]
    optimizer, schedule = _optimizer(groups, steps)
    begin, recent = time.time(), []
    for step in range(steps):
        index = rng.sample(range(len(data.scenes)), recipe.batch_size)
        n, triples = len(index), [data.scenes[i].triple for i in index]
        negatives = [negative for t in triples for negative in hard_negatives(t, rng)]
        words = [caption_words(t, rng, recipe) for t in triples + negatives]
        texts = tok([sentence(w, rng) for w in words], padding=True, return_tensors="pt")
        logits = model(**texts, pixel_values=data.pixel_values(index)).logits_per_image
        loss = contrastive(logits, describes(words, triples))
        _step(loss, optimizer, schedule, vision + rest)
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        own, near = logits[:, :n].diagonal(), logits[:, n:].unflatten(1, (n, -1))
        near = near[range(n), range(n)].detach()
        recent.append((own[:, None] > near).float().mean(0).tolist())
        if (step + 1) % 100 == 0:
            names, shares = (*SLOTS, "object", "roles", "roles"), np.mean(recent[-100:], 0)
            text = "  ".join(f"{k} {v:.2f}" for k, v in zip(names, shares, strict=True))
            print(f"pair {step + 1:5d}  {time.time() - begin:5.0f} s  {text}", flush=True)


def describes(words: list[tuple[str, ...]], triples: list[RelationTriple]) -> torch.Tensor:
    """Whether a caption's words are true of an image: bool (images, captions)."""
    is_noun = [len(w) == 1 for w in words]
    nouns = [w[0] if len(w) == 1 else None for w in words]
    of_slot = [
        _fits(triples, slot, slot, [None if len(w) == 1 else w[place] for w in words])
        for place, slot in enumerate(SLOTS)
    ]
    subject, object = (_fits(triples, slot, "object", nouns) for slot in ("subject", "object"))
    return torch.where(torch.tensor(is_noun), subject | object, torch.stack(of_slot).all(0))


def _fits(
    triples: list[RelationTriple], slot: str, as_slot: str, words: list[str | None]
) -> torch.Tensor:
    """Whether a word can mean what an image shows in a slot: bool (images, words)."""
    means = torch.tensor([_means(word, as_slot) for word in words])
    return means[:, [CONCEPTS[as_slot].index(getattr(t, slot)) for t in triples]].T


@cache
def _means(word: str | None, slot: str) -> list[bool]:
    return [word is not None and concept in meanings(word, slot) for concept in CONCEPTS[slot]]


def contrastive(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of image → caption and caption → image. A caption that is true of an image, and
    is not its own, counts for neither.

    Args:
        logits: (images, captions); caption i belongs to image i, and those after the images' own
            are negatives.
        true: bool, of the same shape.
    """
    own = torch.arange(len(logits))
    also_true = true.clone()
    also_true[own, own] = False
    logits = logits.masked_fill(also_true, float("-inf"))
    to_caption = functional.cross_entropy(logits, own)
    to_image = functional.cross_entropy(logits[:, : len(logits)].T, own)
    return (to_caption + to_image) / 2


def _optimizer(groups, steps: int):
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    rates = [group["lr"] for group in groups]
    return optimizer, OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)


def _step(loss, optimizer, schedule, parameters) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


# ---- how strong attacks are ----


def calibrate(model: str = "tiny-clip") -> pd.DataFrame:
    """The strength at which every attack leaves the base model a share of its tuples, by bisection.
    On val images: nothing is ever set on test. A minute or two."""
    clip = load_clip(model)
    rows = []
    for name in ATTACKS:
        for left in SHARES_LEFT:
            strength = _strength(clip, name, left)
            # An attack that never takes so much is used at its full strength, and left blank.
            within = left if strength < 1 else None
            rows.append((name, within, strength, base_accuracy(clip, name, strength)))
    table = pd.DataFrame(rows, columns=["attack", "left", "strength", "read"])
    return table.drop_duplicates(["attack", "strength"], ignore_index=True)


def _strength(clip: CLIPModel, name: str, left: float) -> float:
    if base_accuracy(clip, name, 1.0) > left:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if base_accuracy(clip, name, middle) > left else (low, middle)
    return round(high, 3)


def base_accuracy(clip: CLIPModel, name: str, strength: float, split: str = "val") -> float:
    """The share of images whose own caption beats all that share two slots with it, under an
    attack. An image of each of 300 tuples of the world."""
    attack, edited = ATTACKS[name], EditedClip(clip)

    def attacked(target):
        return attack.run(target, strength, random.Random(f"{name} {target}"))

    chosen = random.Random(0).sample(range(len(ALL_TUPLES)), CALIBRATION_TUPLES)
    tuples = [ALL_TUPLES[i] for i in chosen]
    scenes = scenes_of(tuples, split, 1)
    if attack.changes == "caption":
        captions, images = [attacked(t) for t in ALL_TUPLES], [draw(scene) for scene in scenes]
    else:
        captions, images = CAPTIONS, [attacked(scene) for scene in scenes]
    features = edited.encode_images(preprocess(clip, images))
    scores = edited.scores(features, edited.encode_texts(captions)).numpy()
    return float(np.mean(wins(scores, np.array(chosen), share_two_slots(tuples))))


# ---- the files ----


def build(out: Path | str, seed: int = 0, without: str | None = None) -> None:
    """Make tiny-clip and write it to `out`, weights in half precision. Half an hour on two cores.

    A rebuild is judged by its measures, not by its bytes. without: "subject relation object", which
    the model is never taught; what it is then, is the gold standard of unlearning that tuple.
    """
    triple = parse([without])[0] if without else None
    out, recipe = Path(out).resolve(), Recipe(seed=seed, without=triple)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, data = CLIPModel(configuration(recipe)), TrainingSet(recipe)
    train_tower(model, data, recipe)
    for number in range(len(recipe.rounds)):
        train_towers(model, data, recipe, number)
    model.half().save_pretrained(out)
    processor(recipe).save_pretrained(out)
    describe(out)


def describe(out: Path) -> None:
    """Measure the model in a folder; write `measures.csv`, `strengths.csv` and the files'
    `hashes.json` there."""
    measures = reading(str(out))
    measures.to_csv(out / "measures.csv", index=False, float_format="%.4f")
    print(measures.to_string(index=False))
    calibrate(str(out)).to_csv(out / "strengths.csv", index=False, float_format="%.4f")
    files = sorted(f for f in out.iterdir() if f.name not in ("README.md", "hashes.json"))
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    (out / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
