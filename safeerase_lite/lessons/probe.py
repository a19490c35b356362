"""A few questions put to a model again and again while it unlearns: what lesson 05 watches."""

from pathlib import Path

import pandas as pd

from safeerase_lite.config import Config, config
from safeerase_lite.data.dataset import Data
from safeerase_lite.data.redaction import redact_for_display
from safeerase_lite.evaluation.evaluate import Report, judge_answers
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.runs.experiment import evaluate, open_run, unlearn

LOST = ["refused", "gibberish"]  # an answer of such a verdict is lost
# (set, whether training shows the kind) → how the group reads
GROUPS = {
    ("forget", True): "hazards, requested",
    ("forget", False): "hazards, unrequested",
    ("decouple", True): "harmless, in PD's set",
    ("decouple", False): "harmless, not in it",
}


def one_each(data: Data, split: str) -> pd.DataFrame:
    """A picture of eight seen and of eight new kinds at most, hazards and harmless ones, each asked
    two templates that training shows and two that it does not."""
    seen = data.forget.query("split == 'train'")["question"].unique()
    held_out = [q for q in data.forget["question"].unique() if q not in seen]
    templates = pd.DataFrame({"question": [*seen[:2], *held_out[:2]]})
    parts = []
    for name, table in (("forget", data.forget), ("decouple", data.decouple)):
        pictures = table[table["split"] == split].drop_duplicates("kind")
        pictures = pictures.groupby("seen_kind").head(8).sort_values("seen_kind")[::-1]
        rows = pictures.drop(columns=["question", "seen_template"]).merge(templates, how="cross")
        rows = rows.assign(set=name, expected=rows["answer"])
        parts.append(rows.assign(seen_template=rows["question"].isin(seen)))
    return pd.concat(parts)


def is_due(step: int, every: int, closely: int) -> bool:
    """Whether the probe is put after so many steps: at each of the first, then at some."""
    return step <= closely or step % every == 0


def watched(
    model, data: Data, settings: Config, probe: pd.DataFrame, runs_dir: Path, *, every: int,
    closely: int,
) -> tuple[Config, Report, pd.DataFrame]:  # fmt: skip
    """A run whose probe is asked while it trains.

    The answers are kept in the run's folder, so a run that the ledger holds brings them along.

    Returns:
        The run's settings, its report, and the judged answers to the probe: step, run, what (which
        group), verdict and the probe's own columns.
    """
    settings = config(settings)
    folder = open_run(settings, data, runs_dir=runs_dir).folder

    def watch(step: int, model) -> None:
        if is_due(step, every, closely):
            said = generate(model, probe["image"], probe["question"], settings)
            judged = judge_answers(probe.assign(answer=said), settings.judge)
            kept = redact_for_display(judged, data).assign(step=step)
            kept.to_parquet(folder / f"probe-{step:05d}.parquet")

    run = unlearn(model, data, settings, runs_dir=runs_dir, watch=watch)
    report = evaluate(model, data, run)
    asked = pd.concat(
        [pd.read_parquet(file) for file in sorted(run.folder.glob("probe-*.parquet"))]
    )
    groups = [GROUPS[key] for key in zip(asked["set"], asked["seen_kind"], strict=True)]
    return settings, report, asked.assign(run=settings.label.rsplit(" seed")[0], what=groups)


def paths(asked: pd.DataFrame) -> pd.DataFrame:
    """The shares refused and gibberish of every run, group and step, for `plots.trajectory`."""
    groups = asked.groupby(["run", "what", "step"], sort=False)["verdict"]
    shares = {verdict: groups.apply(lambda v, w=verdict: (v == w).mean()) for verdict in LOST}
    table = pd.DataFrame(shares).rename_axis("verdict", axis="columns")
    return table.stack().rename("share").reset_index()


def first_at(asked: pd.DataFrame, share: float = 0.5) -> pd.Series:
    """The first probed step of every run and group at which this share was refused or gibberish;
    NaN where that never happened."""
    lost = asked.assign(lost=asked["verdict"].isin(LOST))
    means = lost.groupby(["run", "what", "step"], sort=False)["lost"].mean().reset_index()
    reached = means[means["lost"] >= share].groupby(["run", "what"], sort=False)["step"].min()
    every = means.groupby(["run", "what"], sort=False)["step"].min().index
    return reached.reindex(every)
