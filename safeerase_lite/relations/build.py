"""How tiny-clip is made: a true CLIP that reads who does what to what.

First the vision tower learns to tell subject, relation and object; then both towers learn pictures
and captions together, against captions that differ in one slot or in who does it. Contrast alone
leaves a CLIP a bag of words (ARO, Yuksekgonul et al. 2023).
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
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from safeerase_lite.relations.data import labels, seen_tuples, split_of
from safeerase_lite.relations.scenes import SIDE, draw, scene
from safeerase_lite.relations.tuples import ORO, role_swap
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
LONGEST = 77  # tokens of a caption


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    width: int = 128
    layers: int = 3
    heads: int = 4
    patch: int = 8
    projection: int = 128
    pieces: int = 400  # tokens of the vocabulary
    broken: float = 0.05  # share of merges left out while learning, so that letters are read too
    pictures: int = 60_000
    tower_steps: int = 3000
    tower_batch: int = 96
    tower_rate: float = 1e-3
    rounds: tuple[int, ...] = (1300, 500)  # steps; roles take longest
    batch: int = 96
    rate: float = 1e-3
    slower: float = 0.1  # the tower's rate, once it has learned to see
    sharpness: float = 60.0  # CLIP's scale at the start: near captions are told apart from there on
    other_words: float = 0.2  # share of words said by a synonym or a hypernym
    alone: float = 0.1  # share of captions that name one of the two alone


def tokenizer(recipe: Recipe) -> CLIPTokenizer:
    """Byte-pair encoding learned from captions, as CLIP's is. The end token's id is not 2: with
    that id transformers pools the text at its highest id and not at its end."""
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.pieces,
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
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=LONGEST)


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
        "max_position_embeddings": LONGEST,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    vision = shape | {"image_size": SIDE, "patch_size": recipe.patch}
    return CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=recipe.projection,
        logit_scale_init_value=math.log(recipe.sharpness),
    )


# ---- what is learned from ----


class Bank:
    """Pictures of the train split, of every tuple that is not held out."""

    def __init__(self, recipe: Recipe):
        rng = random.Random(f"bank {recipe.seed}")
        tuples = seen_tuples()
        self.scenes = []
        while len(self.scenes) < recipe.pictures:
            drawn = scene(tuples[len(self.scenes) % len(tuples)], rng)
            if split_of(drawn) == "train":
                self.scenes.append(drawn)
        self.pixels = torch.from_numpy(np.stack([np.asarray(draw(s)) for s in self.scenes]))

    def pictures(self, index: list[int]) -> torch.Tensor:
        """(n, 3, side, side), scaled to [-1, 1]."""
        return self.pixels[index].permute(0, 3, 1, 2).float() / 127.5 - 1


def said(meant: ORO, rng: random.Random, recipe: Recipe) -> tuple[str, ...]:
    """The words of a caption of a tuple, some of them another word for the same: all three, or one
    of the two nouns alone."""
    words = tuple(
        rng.choice(others(concept, slot) or (concept,))
        if rng.random() < recipe.other_words
        else concept
        for concept, slot in zip(meant, SLOTS, strict=True)
    )
    return (rng.choice(words[::2]),) if rng.random() < recipe.alone else words


def sentence(words: tuple[str, ...], rng: random.Random) -> str:
    if len(words) == 1:
        return noun_caption(*words, rng.choice(NOUN_WORDINGS))
    return caption(*words, rng.choice(WORDINGS))


def hard_negatives(shown: ORO, rng: random.Random) -> list[ORO]:
    """What is nearly shown: another concept in each slot, two in the one that has most of them; and
    the roles swapped, to be said in two ways."""
    near = [
        shown._replace(**{slot: rng.choice([c for c in CONCEPTS[slot] if c not in shown])})
        for slot in (*SLOTS, "object")
    ]
    swapped = role_swap(shown) or near[0]
    return [*near, swapped, swapped]


# ---- learning ----


def train_tower(model: CLIPModel, bank: Bank, recipe: Recipe) -> None:
    """The vision tower learns to tell subject, relation and object, from its pooled output."""
    rng = random.Random(f"tower {recipe.seed}")
    truth = {s: torch.tensor(v) for s, v in labels([s.shown for s in bank.scenes]).items()}
    heads = nn.ModuleDict({s: nn.Linear(recipe.width, len(CONCEPTS[s])) for s in SLOTS})
    patch_heads = nn.ModuleDict({s: nn.Linear(recipe.width, len(CONCEPTS[s])) for s in SLOTS})
    learning = [*model.vision_model.parameters(), *heads.parameters(), *patch_heads.parameters()]
    optimizer, schedule = _descent(
        [{"params": learning, "lr": recipe.tower_rate}], recipe.tower_steps
    )
    begin = time.time()
    for step in range(recipe.tower_steps):
        index = rng.sample(range(len(bank.scenes)), recipe.tower_batch)
        seen = model.vision_model(bank.pictures(index))
        patches = seen.last_hidden_state[:, 1:]
        loss, right = 0.0, {}
        for slot in SLOTS:
            logits, wanted = heads[slot](seen.pooler_output), truth[slot][index]
            loss = loss + functional.cross_entropy(logits, wanted)
            everywhere = patch_heads[slot](patches).flatten(0, 1)
            loss = loss + functional.cross_entropy(
                everywhere, wanted.repeat_interleave(patches.shape[1])
            )
            right[slot] = (logits.argmax(-1) == wanted).float().mean().item()
        _descend(loss, optimizer, schedule, learning)
        if (step + 1) % 100 == 0:
            shares = "  ".join(f"{name} {share:.2f}" for name, share in right.items())
            print(f"tower {step + 1:5d}  {time.time() - begin:5.0f} s  {shares}", flush=True)


def train_pair(model: CLIPModel, bank: Bank, recipe: Recipe, number: int = 0) -> None:
    """Both towers together: each picture its caption, each caption its picture (Radford et al.
    2021), with the hard negatives of every picture among the captions (NegCLIP)."""
    rng, steps = random.Random(f"pair {recipe.seed} {number}"), recipe.rounds[number]
    tok = tokenizer(recipe)
    tok.backend_tokenizer.model.dropout = recipe.broken
    slow = list(model.vision_model.parameters())
    known = {id(p) for p in slow}
    quick = [p for p in model.parameters() if id(p) not in known]
    groups = [
        {"params": quick, "lr": recipe.rate},
        {"params": slow, "lr": recipe.rate * recipe.slower},
    ]
    optimizer, schedule = _descent(groups, steps)
    begin, recent = time.time(), []
    for step in range(steps):
        index = rng.sample(range(len(bank.scenes)), recipe.batch)
        n, shown = len(index), [bank.scenes[i].shown for i in index]
        near = [negative for t in shown for negative in hard_negatives(t, rng)]
        words = [said(t, rng, recipe) for t in shown + near]
        texts = tok([sentence(w, rng) for w in words], padding=True, return_tensors="pt")
        logits = model(**texts, pixel_values=bank.pictures(index)).logits_per_image
        loss = contrastive(logits, describes(words, shown))
        _descend(loss, optimizer, schedule, slow + quick)
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        own, near = logits[:, :n].diagonal(), logits[:, n:].unflatten(1, (n, -1))
        near = near[range(n), range(n)].detach()
        recent.append((own[:, None] > near).float().mean(0).tolist())
        if (step + 1) % 100 == 0:
            shares = np.mean(recent[-100:], 0)
            names = (*SLOTS, "object", "roles", "roles")
            told = "  ".join(f"{k} {v:.2f}" for k, v in zip(names, shares, strict=True))
            print(f"pair {step + 1:5d}  {time.time() - begin:5.0f} s  {told}", flush=True)


def describes(words: list[tuple[str, ...]], shown: list[ORO]) -> torch.Tensor:
    """Whether a caption's words are true of a picture: bool (pictures, captions)."""
    parts = {
        slot: [w[place] if len(w) == 3 else None for w in words] for place, slot in enumerate(SLOTS)
    }
    alone = [w[0] if len(w) == 1 else None for w in words]
    tuples = torch.stack([_fits(shown, slot, slot, said) for slot, said in parts.items()]).all(0)
    subject, object = (_fits(shown, slot, "object", alone) for slot in ("subject", "object"))
    return torch.where(torch.tensor([len(w) == 1 for w in words]), subject | object, tuples)


def _fits(shown: list[ORO], slot: str, as_slot: str, words: list[str | None]) -> torch.Tensor:
    """Whether a word can stand for what a picture shows in a slot: bool (pictures, words)."""
    meant = torch.tensor([_meant(word, as_slot) for word in words])
    return meant[:, [CONCEPTS[as_slot].index(getattr(t, slot)) for t in shown]].T


@cache
def _meant(word: str | None, slot: str) -> list[bool]:
    return [word is not None and concept in meanings(word, slot) for concept in CONCEPTS[slot]]


def contrastive(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of picture → caption and caption → picture. A caption that is true of a
    picture, and is not its own, counts for neither.

    Args:
        logits: (pictures, captions); caption i belongs to picture i, and those after the pictures'
            own are negatives.
        true: bool, of the same shape.
    """
    n = len(logits)
    own = torch.arange(n)
    also = true.clone()
    also[own, own] = False
    logits = logits.masked_fill(also, float("-inf"))
    to_caption = functional.cross_entropy(logits, own)
    to_picture = functional.cross_entropy(logits[:, :n].T, own)
    return (to_caption + to_picture) / 2


def _descent(groups, steps: int):
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    rates = [group["lr"] for group in groups]
    return optimizer, OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)


def _descend(loss, optimizer, schedule, parameters) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


# ---- the files ----


def build(out: Path | str, seed: int = 0) -> None:
    """Make tiny-clip and write it to `out`, weights in half precision. Half an hour on two cores.
    A rebuild is judged by its measures, not by its bytes."""
    out, recipe = Path(out).resolve(), Recipe(seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, bank = CLIPModel(configuration(recipe)), Bank(recipe)
    train_tower(model, bank, recipe)
    for number in range(len(recipe.rounds)):
        train_pair(model, bank, recipe, number)
    model.half().save_pretrained(out)
    processor(recipe).save_pretrained(out)
    describe(out)


def describe(out: Path) -> None:
    """Measure the model in a folder; write `measures.csv`, `strengths.csv` and the files'
    `hashes.json` there."""
    from safeerase_lite.relations.reading import reading
    from safeerase_lite.relations.strengths import calibrate

    measures = reading(str(out))
    measures.to_csv(out / "measures.csv", index=False, float_format="%.4f")
    print(measures.to_string(index=False))
    calibrate(str(out)).to_csv(out / "strengths.csv", index=False, float_format="%.4f")
    files = sorted(f for f in out.iterdir() if f.name not in ("README.md", "hashes.json"))
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    (out / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
