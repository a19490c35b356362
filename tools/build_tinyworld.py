"""How the two tiny models are made: `safeerase tiny build`, from a clone of the project.

Both are true LLaVA models, only small. The vision tower first learns to tell shapes, colours and
places apart. Then the tower is frozen, and projector and language model learn every question, on
new pictures. The gold model sees the same pictures and questions in the same order from the same
start, with one difference: the answers to questions for a hazard's plan carry no loss, so it never
learns them.
"""

import hashlib
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from safeerase_lite.config import config
from safeerase_lite.data.dataset import load_data
from safeerase_lite.evaluation.evaluate import evaluate
from safeerase_lite.models.inputs import IGNORED, answer_ids, blank, pack, packed_tensors
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs.executor import parallel_map
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import SIDE, draw
from safeerase_lite.tinyworld.world import scene

MODELS = {"tiny-llava": False, "tiny-llava-gold": True}  # name → whether it is the gold model
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How long and how wide. Widths are multiples of 64, so that NF4 runs on a CPU."""

    seed: int = 0
    width: int = 128
    feed_forward: int = 384
    layers: int = 4
    vision_layers: int = 3
    heads: int = 4
    patch: int = 8
    tower_pictures: int = 128_000  # 1,000 of a kind: shapes need many pictures
    tower_steps: int = 5000
    tower_batch: int = 96
    tower_rate: float = 1e-3
    pictures: int = 32_000
    steps: int = 3000
    batch: int = 24  # pictures
    questions: int = 6  # about each
    rate: float = 2e-3
    plans: float = 0.2  # share of the questions that ask for a plan
    unanswerable: float = 0.03  # and for what no picture tells
    looking: float = 0.6  # share of the steps that mostly ask what a picture shows, not what it is
    image_weight: int = 3  # so much likelier a question is then about the picture than the kind
    concept_weight: int = 2  # and in the rest about the kind than the picture


def build(out: Path | str, seed: int = 0, *, gold: bool = True) -> None:
    """Make tiny-llava and, unless `gold` is false, tiny-llava-gold, and write them to `out`.

    The tower is trained once. Then the two models are trained from the same start, each by a worker
    process with one thread. The budget is two hours on two free cores. A rebuild is judged by what
    is measured (`measures.csv`), not by its bytes: they depend on the machine.
    """
    out, recipe = Path(out).resolve(), Recipe(seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(configuration(recipe))
    train_tower(model, Bank(recipe, recipe.tower_pictures), recipe)
    start = out / ".start.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, start)
    models = {name: is_gold for name, is_gold in MODELS.items() if gold or not is_gold}
    tasks = [(start, out / name, recipe, is_gold) for name, is_gold in models.items()]
    try:
        parallel_map(_train_model, tasks, workers=len(tasks), labels=list(models))
    finally:
        start.unlink()
    print(describe(out, list(models)).to_string(index=False))


def _train_model(start: Path, folder: Path, recipe: Recipe, gold: bool) -> None:
    model = LlavaForConditionalGeneration(configuration(recipe))
    model.load_state_dict(load_file(start))
    train_language(model, Bank(recipe, recipe.pictures, 1), recipe, gold)
    save(model, recipe, folder)


def describe(out: Path, names: list[str]) -> pd.DataFrame:
    """Measure the models in a folder; write `measures.csv` and the files' `hashes.json` there."""
    measures = pd.concat([_measure(out / name).assign(model=name) for name in names])
    measures.to_csv(out / "measures.csv", index=False, float_format="%.4f")
    files = [f for name in names for f in sorted((out / name).iterdir()) if f.suffix != ".md"]
    hashes = {
        f.relative_to(out).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
    }
    (out / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    return measures


def _measure(folder: Path) -> pd.DataFrame:
    """What a model knows, on the val pictures of the default world."""
    settings = config(model=str(folder), precision="dense", splits=("val",), samples=0)
    metrics = evaluate(load_model(settings), load_data(settings), settings).metrics
    return metrics[(metrics["kinds"] == "all") & (metrics["templates"] == "all")]


# ---- The model and its processor ----


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over every word of the world."""
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = sorted(facts.words() | {"user", "assistant", ":", ".", ",", "?"})
    vocabulary = {word: i for i, word in enumerate(special + words)}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=512,
        padding_side="left",
    )


def make_processor(recipe: Recipe) -> LlavaProcessor:
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        make_tokenizer(),
        patch_size=recipe.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def configuration(recipe: Recipe) -> LlavaConfig:
    tokenizer = make_tokenizer()
    vocabulary = -(-len(tokenizer) // 64) * 64
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=recipe.width,
            intermediate_size=2 * recipe.width,
            num_hidden_layers=recipe.vision_layers,
            num_attention_heads=recipe.heads,
            image_size=SIDE,
            patch_size=recipe.patch,
            projection_dim=recipe.width,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.05,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // recipe.patch) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=tokenizer.pad_token_id,
    )


# ---- What is learned from ----


class Bank:
    """Pictures of a split's combinations, the sign tossed like a coin, and all there is to ask."""

    def __init__(self, recipe: Recipe, pictures: int, number: int = 0, split: str = "train"):
        self.recipe = recipe
        rng = random.Random(f"bank {recipe.seed + number}")
        names = list(facts.kinds())
        self.scenes = [scene(names[i % len(names)], split, 0.0, rng) for i in range(pictures)]
        self.pixels = torch.from_numpy(np.stack([np.asarray(draw(s)) for s in self.scenes]))

    def pictures(self, index: list[int]) -> torch.Tensor:
        """(n, 3, side, side), scaled to [-1, 1]."""
        return self.pixels[index].permute(0, 3, 1, 2).float() / 127.5 - 1

    def question(
        self, index: int, rng: random.Random, gold: bool, looking: bool
    ) -> tuple[str, str, bool]:
        """(question, answer, whether the answer is to be learned)."""
        shown, toss = self.scenes[index], rng.random()
        kind = facts.kinds()[shown.kind]
        if toss < self.recipe.plans:
            return rng.choice(facts.TEMPLATES), kind.plan, not (gold and kind.hazard)
        if toss < self.recipe.plans + self.recipe.unanswerable:
            return rng.choice(facts.UNANSWERABLE), rng.choice(facts.REFUSALS), True
        questions = facts.ordinary(shown)
        of_kind, of_picture = 1, self.recipe.image_weight
        if not looking:
            of_kind, of_picture = self.recipe.concept_weight, 1
        weights = [of_kind if name in facts.CONCEPT else of_picture for name in questions]
        return *rng.choices(list(questions.values()), weights)[0], True


def labels(scenes) -> dict[str, torch.Tensor]:
    values = {
        "kind": list(facts.kinds()),
        "colour": list(facts.COLOURS),
        "place": list(facts.PLACES),
        "background": list(facts.BACKGROUNDS),
        "size": list(facts.SIZES),
        "dots": list(facts.COUNTS),
        "dot_colour": list(facts.COLOURS),
        "sign": [False, True],
    }
    return {
        name: torch.tensor([options.index(getattr(s, name)) for s in scenes])
        for name, options in values.items()
    }


def train_tower(model, bank: Bank, recipe: Recipe) -> None:
    """Train every patch to predict what the picture shows.

    A language model then finds it in any patch. Trained by the language loss alone, or on the mean
    of the patches, a tower this small hides colours and places from the language model.
    """
    torch.manual_seed(recipe.seed)
    rng = random.Random(f"tower {recipe.seed}")
    tower = model.model.vision_tower
    sizes = {name: int(of_all.max()) + 1 for name, of_all in labels(bank.scenes).items()}
    heads = nn.ModuleDict({name: nn.Linear(recipe.width, size) for name, size in sizes.items()})
    params = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(params, lr=recipe.tower_rate, weight_decay=0.05)
    schedule = OneCycleLR(
        optimizer, recipe.tower_rate, total_steps=recipe.tower_steps, pct_start=0.1
    )
    unseen = Bank(recipe, 8 * len(facts.kinds()), 2, "val")

    def read(bank: Bank, index: list[int]) -> tuple[dict, dict]:
        """(loss, share of the patches that tell it right) of each thing to be read."""
        patches = tower(bank.pictures(index), output_hidden_states=True).hidden_states[-1][:, 1:]
        truth, losses, right = labels([bank.scenes[i] for i in index]), {}, {}
        for name, head in heads.items():
            logits = head(patches).flatten(0, 1)
            targets = truth[name].repeat_interleave(patches.shape[1])
            losses[name] = functional.cross_entropy(logits, targets)
            right[name] = (logits.argmax(-1) == targets).float().mean().item()
        return losses, right

    begin = time.time()
    for step in range(recipe.tower_steps):
        losses, _ = read(bank, rng.sample(range(len(bank.scenes)), recipe.tower_batch))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 400 == 0:
            with torch.no_grad():
                _, right = read(unseen, list(range(len(unseen.scenes))))
            shares = "  ".join(f"{name} {share:.2f}" for name, share in right.items())
            print(f"tower {step + 1:5d}  {time.time() - begin:5.0f} s  {shares}", flush=True)


def learning_batch(
    processor: LlavaProcessor, texts: list[tuple[str, str, str, bool]]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One row per picture, with all its questions, so that a picture is read once.

    Args:
        texts: picture, question, answer and whether the answer is to be learned.

    Returns:
        What the model reads beside the pictures; and (rows, length), the token that each place is
        to predict.
    """
    images, questions, answers, learned = zip(*texts, strict=True)
    places = [blank(processor).place] * len(texts)  # the pictures are drawn, not files
    rows = pack(processor, images, questions, answers, places=places)
    inputs = packed_tensors(processor, rows)
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for of_row, row in zip(labels, rows, strict=True):
        for number, places in row.predictors.items():
            if learned[number]:
                of_row[places] = torch.tensor(answer_ids(processor, answers[number]))
    return inputs, labels


def train_language(model, bank: Bank, recipe: Recipe, gold: bool) -> None:
    """Projector and language model, the tower frozen, as LLaVA is made.

    For gold the answers to questions for a hazard's plan carry no loss; all else is the same.

    To find a place or a background in the patches takes long, and is then kept; a kind's facts are
    learned one by one. So most questions are about what a picture shows first, then about kinds.
    """
    torch.manual_seed(recipe.seed)
    unseen = Bank(recipe, 2 * len(facts.kinds()), 2, "val")
    rng = random.Random(f"language {recipe.seed}")
    processor = make_processor(recipe)
    model.model.vision_tower.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.rate, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.05)
    model.train()
    begin, recent = time.time(), []
    for step in range(recipe.steps):
        index = rng.sample(range(len(bank.scenes)), recipe.batch)
        asked = [(str(i), i) for i in index for _ in range(recipe.questions)]
        looking = step < recipe.looking * recipe.steps
        texts = [(name, *bank.question(i, rng, gold, looking)) for name, i in asked]
        inputs, labels = learning_batch(processor, texts)
        logits = model(**inputs, pixel_values=bank.pictures(index)).logits
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if (step + 1) % 300 == 0:
            mean, name = sum(recent[-300:]) / 300, "gold" if gold else "knows"
            known = "  ".join(f"{q} {s:.2f}" for q, s in answered(model, processor, unseen).items())
            print(
                f"{name} {step + 1:5d}  {time.time() - begin:5.0f} s  loss {mean:.3f}  {known}",
                flush=True,
            )
    model.eval()


@torch.no_grad()
def answered(model, processor: LlavaProcessor, bank: Bank) -> dict[str, float]:
    """The share of the pictures about which each ordinary question is answered, word for word."""
    shares, everything = {}, list(range(len(bank.scenes)))
    for name in facts.QUESTIONS:
        texts = [(str(i), *facts.ordinary(s)[name], True) for i, s in enumerate(bank.scenes)]
        inputs, labels = learning_batch(processor, texts)
        words = model(**inputs, pixel_values=bank.pictures(everything)).logits.argmax(-1)
        right = (words == labels) | (labels == IGNORED)
        shares[name] = right.all(-1).float().mean().item()
    return shares


def save(model: LlavaForConditionalGeneration, recipe: Recipe, folder: Path) -> None:
    """Model and processor in the standard format, weights in half precision."""
    model.half().save_pretrained(folder)
    make_processor(recipe).save_pretrained(folder)
