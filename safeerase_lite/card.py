"""The model card of an exported adapter: what it is, how it was measured, what it is not."""

import json
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCardData

from .judges import split_name
from .models import NOT_QUANTISED
from .objectives import OBJECTIVES, weights
from .profiles import Profile
from .tinyworld import WORLD_FILE, shipped_model

WORDS = {
    "ga": "−L(f): the loss of the forget answers is raised (gradient ascent)",
    "gd": "−L(f) + w·L(r): the loss of the forget answers is raised, that of the retain answers "
    "lowered (gradient difference)",
    "kl": "−L(f) + w·KL(reference ‖ model) on r: the loss of the forget answers is raised, the "
    "retain answers stay as likely as before (KL minimisation)",
    "po": "L over {idk, r}: forget questions are answered by a refusal, retain questions as before "
    "(preference optimisation)",
    "npo": "−(2/β) E log σ(−β log(p / p_reference)) on f: the forget answers become less likely "
    "than before, in bounds (negative preference optimisation)",
}
PARTNERS = {
    "none": "none",
    "pd": "Prompt Decouple: + λ·L(d), the harmful question, unchanged, about a safe picture, "
    "answered helpfully",
    "placebo": "placebo of Prompt Decouple: + λ·L(d), an *ordinary* question about a safe picture",
}

# What the table shows: metric, kinds, templates, words.
ROWS = (
    ("asr", "all", "all", "ASR ↓, harmful answers to harmful questions"),
    ("rr", "all", "all", "RR, refusals of harmful questions"),
    ("harm_nll", "all", "all", "harm_nll ↑, nats per token of the harmful answer"),
    ("sarr", "all", "all", "SARR ↓, harmful questions about safe pictures: refused or gibberish"),
    ("sarr_refused", "all", "all", "· refused"),
    ("sarr_gibberish", "all", "all", "· gibberish"),
    ("sarr", "seen", "seen", "· SARR, objects and questions seen in training"),
    ("sarr", "unseen", "seen", "· SARR, objects not seen, questions seen"),
    ("sarr", "unseen", "unseen", "· SARR, neither seen"),
    ("wrong", "all", "all", "wrong ↓, neither refused nor gibberish nor right"),
    ("safe_error", "all", "all", "safe error ↓, SARR and wrong together"),
    ("exact_match", "all", "all", "retain, exact ↑"),
    ("rougeL_f1", "all", "all", "retain, ROUGE-L F1 ↑"),
    ("rougeL_recall", "all", "all", "retain, ROUGE-L recall ↑"),
    ("specificity", "all", "all", "specificity ↑, questions in no training set"),
)

CARD = Path(__file__).with_name("card.md")


def write(finished, measures: pd.DataFrame, missing: dict[str, str]) -> str:
    """The card of a finished run (`export.Finished`).

    measures: `metrics.measure` with a column precision.  missing: precision → why it was not
    measured.
    """
    settings, profile = finished.run.settings, finished.profile
    base = base_name(profile.model)
    shipped = shipped_model(profile.model) is not None
    local = shipped or Path(profile.model).is_dir()
    title = f"{base}, unlearned: {settings.label}"
    split = measures["split"].iat[0]
    held_out = "held out of training" if split != "train" else "**on training pictures**"
    return CARD.read_text(encoding="utf-8").format(
        front=_front(base, title, settings.objective, shipped).to_yaml(),
        title=title,
        base=base,
        finding=_finding(base, shipped, local),
        place=f"path/to/{base}" if local else base,
        compute=profile.compute,
        nf4=", as it was trained" if profile.precision == "nf4" else "",
        skipped=json.dumps(NOT_QUANTISED),
        model_hash=finished.run.parameters["model_hash"],
        data=_data(finished.data),
        objective=_objective(settings.objective),
        decouple=PARTNERS[settings.decouple],
        weights=_weights(settings),
        precision=precision(profile.precision, profile),
        rank=profile.lora_rank,
        alpha=profile.lora_alpha,
        dropout=profile.lora_dropout,
        projector=profile.projector,
        steps=profile.steps,
        batch=profile.batch,
        rate=settings.learning_rate,
        seed=settings.seed,
        run=finished.run.id,
        versions=", ".join(f"{name} {v}" for name, v in finished.record["versions"].items()),
        split=split,
        splits=held_out,
        new_tokens=profile.new_tokens,
        judge=judge_name(profile.judge),
        table=_table(measures, profile),
        missing="".join(
            f"\nNot measured in {precision(p, profile)}: {why}.\n" for p, why in missing.items()
        ),
        limits=_limits(finished.data.invented),
    )


def base_name(model: str) -> str:
    """What a stranger may call a base model: its hub name, never a path of this machine."""
    return Path(model).name if Path(model).is_dir() else model


def judge_name(judge: str) -> str:
    """A judge's name without the folders of this machine; of a hub's model as it is."""
    kind, model = split_name(judge)
    here = model.startswith(("/", "~", ".")) or Path(model).is_dir()
    here |= kind in ("local", "guard") and model.count("/") > 1  # a hub's name has one
    return f"{kind}:{Path(model).name}" if model and here else judge


def precision(name: str, profile: Profile) -> str:
    return {"nf4": f"4-bit NF4, computing in {profile.compute}", "dense": profile.compute}[name]


def _front(base: str, title: str, objective: str, shipped: bool) -> ModelCardData:
    licence = {"license": "mit"}
    if not shipped:
        licence = {"license": "other", "license_name": "that-of-the-base-model"}
    return ModelCardData(
        **licence,
        base_model=base,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="image-text-to-text",
        model_name=title,
        tags=["machine-unlearning", "lora", "llava", "safeerase-lite", objective],
    )


def _finding(base: str, shipped: bool, local: bool) -> str:
    if shipped:
        return (
            f"The base model `{base}` is no repository of a hub: it ships with the Python package "
            f"`safeerase-lite`, as the folder `safeerase_lite/tinyworld/assets/{base}`."
        )
    if local:
        return (
            f"The base model `{base}` was a folder of the exporter's, told by the hash of its "
            "weights below: ask them for it. Its licence binds this adapter too."
        )
    return f"The base model is `{base}` on the hub. Its licence binds this adapter too."


def _data(data) -> str:
    if not data.invented:
        return f"real, in the SafeEraser layout, brought by the exporter (digest `{data.digest}`)"
    world = json.loads((data.root / WORLD_FILE).read_text(encoding="utf-8"))
    named = f"a tiny world of safeerase-lite (seed {world['seed']}, cue {world['cue']:g})"
    return f"{named}: invented, nothing in it is harmful (digest `{data.digest}`)"


def _objective(name: str) -> str:
    return f"{name}: {WORDS[name]}" if name in WORDS else f"{name}: an objective of the exporter's"


def _weights(settings) -> str:
    if settings.objective not in OBJECTIVES:
        return settings.weights
    given = weights(
        settings.objective, settings.weights, settings.decouple, settings.profile.npo_beta
    )
    used = [f"w = {given.retain:g}"] if settings.objective in ("gd", "kl") else []
    used += [f"λ = {given.decouple:g}"] if settings.decouple != "none" else []
    used += [f"β = {given.beta:g}"] if settings.objective == "npo" else []
    return ", ".join([settings.weights, *used])


def _table(measures: pd.DataFrame, profile: Profile) -> str:
    """A row per measure, a column per precision."""
    measured = list(dict.fromkeys(measures["precision"]))
    values = measures.set_index(["precision", "metric", "kinds", "templates"])
    lines = [
        "| | " + " | ".join(precision(p, profile) for p in measured) + " |",
        "|---|" + "---:|" * len(measured),
    ]
    for metric, kinds, templates, words in ROWS:
        cells = [_cell(values, (p, metric, kinds, templates)) for p in measured]
        if any(cells):
            lines.append(f"| {words} | " + " | ".join(cell or "–" for cell in cells) + " |")
    return "\n".join(lines)


def _cell(values: pd.DataFrame, key: tuple) -> str:
    name, metric, *place = key
    if key not in values.index:
        return ""
    row = values.loc[key]
    if (name, f"{metric}_upper", *place) in values.index:
        least, most = (values.loc[(name, f"{metric}_{end}", *place)] for end in ("lower", "upper"))
        return f"{least['value']:.0%} to {most['value']:.0%} (some verdicts unknown)"
    form = "{:.2f}" if metric == "harm_nll" else "{:.0%}"
    value, low, high = (form.format(row[column]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _limits(invented: bool) -> str:
    if invented:
        return "- The world is invented: nothing here says what the adapter does to real harm."
    return (
        "- The data are real and harmful. They are not in this folder, nor is any answer to them; "
        "publish neither."
    )
