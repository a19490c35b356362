"""What lesson 08 shows of edits, so that the lesson itself can be read."""

import random
from collections.abc import Iterable, Mapping

import pandas as pd

from safeerase_lite import relations as rel
from safeerase_lite.relations.editing import EditedClip
from safeerase_lite.relations.runs import LABELS
from safeerase_lite.report import plots

# A column of a table → (measure, slot, value or relative).
CELLS = {
    "tuple top-1": ("tuple top-1", "", "value"),
    "leakage": ("leakage", "", "value"),
    "leakage, held out": ("leakage", "held out", "value"),
    "probe": ("linear probe", "", "value"),
    "margin": ("margin", "", "value"),
    "subject": ("marginal on unsafe", "subject", "relative"),
    "object": ("marginal on unsafe", "object", "relative"),
    "held-out neighbours": ("neighbour, held out", "", "relative"),
    "unrelated": ("unrelated", "", "relative"),
}

_FORMATS = {
    "leakage": "{:.2f}",
    "leakage, held out": "{:.2f}",
    "margin": "{:+.1f}",
}  # the others are shares


def with_intervals(means: pd.DataFrame) -> pd.DataFrame:
    """A row per method, without an attack: CELLS, each with its interval where it has one."""
    rows = {}
    for method, group in means[means["attack"] == ""].groupby("method", sort=False):
        at = group.set_index(["measure", "slot"])
        rows[LABELS[method]] = {
            name: _with_interval(name, at.loc[(measure, slot)], column)
            for name, (measure, slot, column) in CELLS.items()
            if (measure, slot) in at.index
        }
    return pd.DataFrame(rows).T


def _with_interval(name: str, row: pd.Series, column: str) -> str:
    number = _FORMATS.get(name, "{:.0%}").format
    if pd.isna(row[column]):
        return "–"
    ends = f" [{number(row['low'])}, {number(row['high'])}]" if pd.notna(row["low"]) else ""
    return number(row[column]) + ends


def cost(means: pd.DataFrame) -> pd.DataFrame:
    """What `plots.trade_off` draws: method (its label), leakage, kept (held-out neighbours, in
    shares of the base model's)."""
    plain = means[(means["attack"] == "") & (means["slot"] == "")]
    leakage, kept = (
        plain[plain["measure"] == measure].set_index("method")[column]
        for measure, column in (("leakage", "value"), ("neighbour, held out", "relative"))
    )
    table = pd.DataFrame({"leakage": leakage, "kept": kept}).loc[plain["method"].unique()]
    return table.rename(index=LABELS).rename_axis("method").reset_index()


def under_attack(means: pd.DataFrame, measure: str, methods: Iterable[str]) -> pd.DataFrame:
    """One measure of some methods under every attack, and without: attack, method (its label),
    value, low, high, base. Of the strengths of an attack, that which leaves the base model 75%, or
    the full one of those that never take so much."""
    rows = means[(means["measure"] == measure) & means["method"].isin(list(methods))]
    rows = rows[~rows["left"].isin([0.9, 0.5])]
    rows = rows.assign(method=rows["method"].map(LABELS), attack=rows["attack"].replace("", "none"))
    return rows[["attack", "method", "value", "low", "high", "base"]]


def best_captions(
    models: Mapping[str, EditedClip], clip, triple, unsafe, count: int = 2
) -> tuple[rel.scenes.Scene, pd.DataFrame]:
    """A test scene of a tuple, and the captions that fit it best, among those that share two slots:
    model, caption, share (of a softmax), unsafe."""
    scene = rel.scenes_of([triple], "test", 1)[0]
    close = [t for t in rel.ALL_TUPLES if len(rel.tuples.changed_slots(t, triple)) <= 1]
    texts, rows = [rel.caption(*t) for t in close], []
    images = rel.preprocess(clip, [rel.draw(scene)])
    for name, model in models.items():
        scores = model.scores(model.encode_images(images), model.encode_texts(texts))[0]
        shares = scores.softmax(-1)
        for i in shares.argsort(descending=True)[:count].tolist():
            rows.append((name, texts[i], shares[i].item(), close[i] in unsafe))
    return scene, pd.DataFrame(rows, columns=["model", "caption", "share", "unsafe"])


def attacked(models: Mapping[str, EditedClip], clip, u, unsafe, attack: str, strength: float):
    """One unsafe test scene under a natural attack: the picture, the unsafe caption, and a row per
    model: rank of the unsafe caption, top caption."""
    kind, scene = rel.ATTACKS[attack], rel.scenes_of([u], "test", 1, seed=2)[0]
    candidates = [u, *rel.neighbours(u, unsafe)]
    texts, picture = [rel.caption(*t) for t in candidates], rel.draw(scene)
    if kind.changes == "caption":
        texts = [kind.run(t, strength, random.Random(f"{attack} {t}")) for t in candidates]
    else:
        picture = kind.run(scene, strength, random.Random(f"{attack} {scene}"))
    images, rows = rel.preprocess(clip, [picture]), {}
    for name, model in models.items():
        scores = model.scores(model.encode_images(images), model.encode_texts(texts))[0]
        rank = int((scores > scores[0]).sum()) + 1
        rows[name] = {
            "rank of the unsafe caption": rank,
            "top caption": texts[int(scores.argmax())],
        }
    return picture, texts[0], pd.DataFrame(rows).T


def together_or_in_turn(edits: pd.DataFrame, method: str = "relation") -> pd.DataFrame:
    """What `plots.several` draws, of `rel.shipped("several")`: tuples, way, measure, value."""
    rows = edits[edits["method"] == LABELS[method]]
    rows = rows[(rows["slot"] == "") | (rows["measure"] == "marginal on unsafe")]
    rows = rows[
        rows["measure"].isin(
            ["tuple top-1", "leakage", *(m for m, _, c in CELLS.values() if c == "relative")]
        )
    ]
    rows = rows.assign(
        measure=[f"{m} {s}".strip() for m, s in zip(rows["measure"], rows["slot"], strict=True)]
    )
    alone = rows[rows["way"] == "one tuple"]
    rows = pd.concat([rows, alone.assign(way="one after another")]).replace(
        {"way": {"one tuple": "together"}}
    )
    absolute = rows["measure"].isin(["tuple top-1", "leakage"])
    rows["value"] = rows["value"].where(absolute, rows["relative"])
    rows = rows[rows["tuples"].isin([1, 2, 4, 8])].sort_values("tuples", kind="stable")
    return rows[["tuples", "way", "measure", "value"]]


def show_scene(scenes: Iterable, names: list[str], side: int = 88, columns: int = 4) -> None:
    """Scenes side by side, named below."""
    sheet = plots.contact_sheet([rel.draw(s) for s in scenes], names, side=side, columns=columns)
    plots.show(sheet, f"Scenes: {'; '.join(names)}.")
