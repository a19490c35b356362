"""Copies of training records planted in a validation split, and what they do to a number."""

import json
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from safeerase_lite.config import Config
from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import Data, read_data
from safeerase_lite.data.json_files import read_json_records
from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.evaluation.metrics import measure
from safeerase_lite.evaluation.statistics import TAIL, resample

SHARES = (0, 0.25, 0.5, 0.75)  # of a validation split that are copies


def raw(data: Data, split: str) -> list[dict]:
    """The records of a split as they stand in its file."""
    return read_json_records(data.root / f"all_{split}.json")


def write_folder(data: Data, folder: Path, **records: list[dict]) -> Path:
    """The data set's pictures, linked, under other lists of records, one list per split."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in data.root.iterdir():
        if not entry.name.startswith("all_"):
            (folder / entry.name).symlink_to(entry)
    for split, those in records.items():
        (folder / f"all_{split}.json").write_text(json.dumps(those), encoding="utf-8")
    return folder


def as_it_is(record: dict, folder: Path) -> dict:
    return record


def anew(data: Data, save: Callable[[Image.Image, Path], None], record: dict, folder: Path) -> dict:
    """The same record, its pictures saved again under other names by `save(image, path)`."""
    names = {key: record[key].replace("/", "-") for key in ("image_path", "SDImage_path")}
    for key, name in names.items():
        with Image.open(data.root / record[key]) as image:
            save(image, folder / name)
    return record | names


def plant(
    data: Data, share: float, folder: Path, seed: int = 0, alter: Callable = as_it_is
) -> Path:
    """Write a data set whose val holds a record of each new safe kind, and copies of train records.

    Args:
        share: of val that are copies, below 1.  folder: a new one.
        alter: what is done to each copy, given the record and the folder.
    """
    rows, train, val = data.decouple, raw(data, "train"), raw(data, "val")
    new = rows[(rows["split"] == "val") & ~rows["seen_kind"]].drop_duplicates("kind")["record"]
    honest = [val[index] for index in sorted(new)]
    shuffled = random.Random(seed).sample(train, len(train))
    copies = shuffled[: round(len(honest) * share / (1 - share))]
    folder.mkdir(parents=True)
    return write_folder(data, folder, train=train, val=honest + [alter(c, folder) for c in copies])


def val_rows(folder: Path, dedupe: str = "none") -> pd.DataFrame:
    """The harmful questions about safe pictures of val."""
    return read_data(folder, dedupe=dedupe).decouple.query("split == 'val'")


def about_safe(rows: pd.DataFrame, model, config: Config) -> pd.DataFrame:
    """The model's judged answers to questions about safe pictures."""
    answers = generate(model, rows["image"], rows["question"], config)
    rows = rows.rename(columns={"answer": "expected"}).assign(set="decouple", answer=answers)
    return judge_answers(rows, config.judge)


def share_right(metrics: pd.DataFrame, *, invented: bool = True, kinds: str = "all") -> dict:
    """The share of right answers on val, with its interval; of real data, where no judge knows what
    is right, of those neither refused nor gibberish."""
    bad = "safe_error" if invented else "sarr"
    wanted = {"metric": bad, "split": "val", "kinds": kinds, "templates": "all"}
    row = metrics[(metrics[list(wanted)] == pd.Series(wanted)).all(axis=1)].iloc[0]
    return {"value": 1 - row["value"], "low": 1 - row["high"], "high": 1 - row["low"]}


def leak_experiment(model, data: Data, config: Config, seed: int = 0) -> pd.DataFrame:
    """One model asked about val with more and more copies in it, as it is and de-duplicated.

    Returns:
        A row per share and treatment: copies in val, val, how many records, pictures and safe
        pictures repeat train, value, low and high, the share of right answers, and rise, rise_low
        and rise_high: how much of it the copies add.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for share in SHARES:
            folder = plant(data, share, Path(temporary) / str(share), seed)
            repeats = check_data(folder).leaks.groupby("what")["repeated"].sum()
            answers = about_safe(val_rows(folder), model, config)
            mended = answers[answers["record"].isin(val_rows(folder, "val")["record"])]
            for val, those in (("as it is", answers), ('after dedupe="val"', mended)):
                right = share_right(measure(those), invented=data.invented)
                right |= _rise(those, those["record"].isin(mended["record"]), data.invented)
                rows.append({"copies in val": f"{share:.0%}", "val": val, **repeats, **right})
    return pd.DataFrame(rows).fillna(0)


def _rise(answers: pd.DataFrame, honest: pd.Series, invented: bool) -> dict[str, float]:
    """The share of right answers less that of the honest ones among them, with its interval: both
    come from the same resamples, so what they have in common does not widen it."""
    verdicts = answers["verdict"]
    right = verdicts == "right" if invented else ~verdicts.isin(["refused", "gibberish"])
    right, among = right.to_numpy(float), honest.to_numpy(float)
    weights = resample(answers).weights
    rises = weights @ right / weights.sum(1) - weights @ (right * among) / (weights @ among)
    low, high = np.quantile(rises, [TAIL, 1 - TAIL])
    rise = right.mean() - right[among == 1].mean()
    return {"rise": float(rise), "rise_low": float(low), "rise_high": float(high)}


def disguised(model, data: Data, config: Config, save, seed: int = 0) -> tuple[int, dict]:
    """Half of val are copies whose pictures were saved anew: the leaks that the check finds, and
    the share of right answers after de-duplication."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = plant(data, 0.5, Path(temporary) / "anew", seed, partial(anew, data, save))
        judged = about_safe(val_rows(folder, "val"), model, config)
        right = share_right(measure(judged), invented=data.invented)
        return len(check_data(folder).leaks), right


def ladder(metrics: pd.DataFrame, model, data: Data, config: Config) -> pd.DataFrame:
    """The share right on safe pictures that PD was trained on, on new pictures of the same kinds,
    and on new kinds (where the data name them); `metrics` are those of the model's run."""
    train = data.decouple.query("split == 'train'")
    copies = train.groupby("record").head(1).assign(split="val")
    judged = measure(about_safe(copies, model, config))
    rungs = {"copies": share_right(judged, invented=data.invented)}
    of_val = metrics[metrics["split"] == "val"]
    for kinds, name in (("seen", "new pictures"), ("unseen", "new kinds")):
        if kinds in set(of_val.loc[of_val["metric"] == "sarr", "kinds"]):
            rungs[name] = share_right(of_val, invented=data.invented, kinds=kinds)
    return pd.DataFrame(
        [{"safe pictures": name, "run": "PO + PD"} | share for name, share in rungs.items()]
    )
