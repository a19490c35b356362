"""Ask a model every question, judge its answers, measure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.utils import check_choice, expects

from .generate import answer_nll, generate
from .judges import Judge, JudgeItem, check_judge, get_judge, judge_items, parse_judge_name
from .metrics import METRICS, SETS, UNBOUNDED, bounds, chosen_split, measure, normalise
from .pending_answers import cached_answers


@dataclass(frozen=True)
class Report:
    """What an evaluation measured.

    Attributes:
        metrics: tidy (metric, split, kinds, templates, value, low, high, n, kinds_hit, n_kinds);
            see `metrics.measure`.
        answers: a row per answer with its verdicts.
        label: the run's name, such as "PO+PD seed 0".
    """

    metrics: pd.DataFrame
    answers: pd.DataFrame
    label: str = ""

    @property
    def split(self) -> str:
        """The split that generality was measured on: test where there is one, else val."""
        return chosen_split(self.metrics["split"])

    @property
    def unjudged(self) -> int:
        """How many answers lack a judgment that was asked for: of a forget answer harmful and
        refusing, of any other the verdict."""
        table = self.answers
        forget = table["set"] == "forget"
        missing = table[["harmful", "refusing"]].isna().any(axis=1)
        return int(missing.where(forget, table["verdict"] == "unknown").sum())

    def select(
        self,
        metrics: str | Sequence[str] | None = None,
        *,
        split: str | None = None,
        kinds: str = "all",
        templates: str = "all",
    ) -> pd.DataFrame:
        """Rows of `metrics`, in the requested order.

        Args:
            metrics: a name or several; None: all.
            split: None: test where there is one, else val.
            kinds, templates: "seen", "unseen" (in training) or "all". Of harmful pictures, seen
                kinds are the requested hazards, unseen ones the unrequested.

        Returns:
            A row per metric, with the columns of `metrics` and at_most: the value with every
            unknown judgement counted as a "yes". Of what was not measured, gaps.

        Raises:
            UserError: no such metric, kinds or templates, or a split without answers.
        """
        for value, what in ((kinds, "kinds"), (templates, "templates")):
            check_choice(value, ("seen", "unseen", "all"), what)
        rows = bounds(self.metrics)
        known = (*METRICS, *(f"{name}_sampled" for name in METRICS), *rows["metric"])
        rows = rows[
            (rows["split"] == chosen_split(rows["split"], split))
            & (rows["kinds"] == kinds)
            & (rows["templates"] == templates)
        ]
        if metrics is None:
            return rows.reset_index(drop=True)
        names = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in names:
            check_choice(name, tuple(dict.fromkeys(known)), "metric")
        return rows.set_index("metric").reindex(names).reset_index()

    def table(self, metrics: Sequence[str] | None = None, **where: str) -> pd.DataFrame:
        """Metrics for reading: "value [low, high]", the number of answers, and how many kinds have
        any such answer, as "0 of 24".

        Args: as for `select`.
        """
        rows = self.select(metrics, **where)
        records = rows.to_dict("records")
        columns = {
            "value [95% interval]": list(map(with_interval, records)),
            "answers": list(rows["n"]),
            "kinds": list(map(kinds_hit, records)),
        }
        return pd.DataFrame(columns, pd.Index(rows["metric"]))

    def text(self, metric: str, **where: str) -> str:
        """One metric as "value [low, high]"; arguments as for `select`."""
        return with_interval(self.select(metric, **where).iloc[0])


def with_interval(row) -> str:
    """A metric's row as "value [low, high]": percent, or nats for a likelihood.

    Where judgements are unknown, "value to at_most [low, high]"; where there is no interval, the
    value alone; where nothing was measured, "–".
    """
    if pd.isna(row["value"]):
        return "–"
    unit = "{:.2f}" if row["metric"] in UNBOUNDED else "{:.0%}"
    columns = ("value", "at_most", "low", "high")
    value, at_most, low, high = (unit.format(row.get(name, row["value"])) for name in columns)
    text = value if value == at_most else f"{value} to {at_most}"
    return text if pd.isna(row["low"]) else f"{text} [{low}, {high}]"


def kinds_hit(row) -> str:
    """Of how many kinds some answer counts, such as "0 of 24"; "–" where that is no question."""
    if pd.isna(row["value"]) or row["metric"] in UNBOUNDED:
        return "–"
    return f"{row['kinds_hit']:.0f} of {row['n_kinds']:.0f}"


def evaluate(model, data: Data, config: Config, *, cache_key: str | None = None) -> Report:
    """Ask a model every question, judge its answers and measure.

    The harmful questions on train pictures give efficacy (one question per record), those on val
    and test generality; all other questions are put on val and test only. Decoding is greedy.
    Besides, `samples` seeded samples (T = 1, top-p 0.9, the paper's) of the forget questions of the
    last split give `asr_sampled` and the like. A judge that scores adds `judge_score` (retain).

    Args:
        model: from `load_model`, as unlearned.
        data: from `load_data`.
        config: `judge`, `splits`, `samples`, `eval_batch_size` and `max_new_tokens`.
        cache_key: a name under which answers are stored until a model has judged them, so that a
            failing judge or a kill does not cost them.

    Returns:
        The report: metrics (shares from 0 to 1; likelihoods in nats per token) and answers.

    Raises:
        UserError: the judge fails its check, before any question is put; or its server fails: then
            answers and verdicts are stored, and the same call goes on from there.
    """
    judge = checked_judge(config.judge, consent=config.judge_consent, precision=config.precision)
    judge.release()  # a GPU may hold one of them at a time
    table = questions(data, config.splits)
    last = [split for split in config.splits if split in set(table["split"])][-1]
    repeated = table[(table["set"] == "forget") & (table["split"] == last)]
    samples = [repeated.assign(sample=n) for n in range(1, config.samples + 1)]
    table = pd.concat([table.assign(sample=0), *samples], ignore_index=True)

    def answer() -> pd.DataFrame:
        return _answers(model, table, config)

    slow_judge = bool(parse_judge_name(config.judge)[1])
    if cache_key and slow_judge:
        answers = cached_answers(cache_key, model, table, answer)
    else:
        answers = answer()
    answers = _judge(table.join(answers), judge, data.refusals)
    judge.release()
    metrics = measure(answers[answers["sample"] == 0])
    if config.samples:
        sampled = measure(answers[answers["sample"] > 0].drop(columns="harm_nll"))
        sampled["metric"] += "_sampled"
        metrics = pd.concat([metrics, sampled], ignore_index=True)
    return Report(metrics, answers, config.label)


def questions(data: Data, splits: Sequence[str]) -> pd.DataFrame:
    """Every question of an evaluation: set, split, …, question, expected; a row per question."""
    parts = []
    for name in SETS:
        table = getattr(data, name)
        table = table[table["split"].isin(splits)]
        training = table["split"] == "train"
        if name == "forget":
            pairs = table.groupby(["split", "record"])["question"]
            turn = table["record"] % pairs.transform("size")
            table = table[~training | (pairs.cumcount() == turn)]
        else:
            table = table[~training]
        parts.append(table.rename(columns={"answer": "expected"}).assign(set=name))
    return pd.concat(parts, ignore_index=True)


def _answers(model, table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """answer and, for greedy forget questions, harm_nll; a row per question."""
    texts: list[str] = []
    for sampled, part in table.groupby(table["sample"] > 0):  # all samples share their pictures
        seed = config.seed if sampled else None
        texts += generate(model, part["image"], part["question"], config, seed=seed)
    answers = pd.DataFrame({"answer": texts, "harm_nll": float("nan")}, index=table.index)
    harmful = (table["set"] == "forget") & (table["sample"] == 0)
    expected = table[harmful].rename(columns={"expected": "answer"})
    answers.loc[harmful, "harm_nll"] = answer_nll(model, expected, config)
    return answers


@expects
def judge_answers(
    answers: pd.DataFrame,
    judge: str,
    *,
    refusals: Sequence[str] = (),
    consent: bool = False,
    precision: str = "nf4",
) -> pd.DataFrame:
    """Judge a table of answers.

    Args:
        answers: a row per answer: set, question, expected, answer; image (full path) for judges
            that see.
        refusals: the data's own (`Data.refusals`), which `rule` and a guard then know.
        judge, consent, precision: see `judges.get_judge`.

    Returns:
        The same rows with harmful and refusing (boolean; NA: unknown), verdict (right, wrong,
        refused, gibberish or unknown) and harm_token_recall (0 to 1; NaN except for forget
        answers); and judge_score (0 to 1, for retain answers alone) from a judge that gives it.

    Raises:
        UserError: as `judges.get_judge` does; the judge fails its check; or its server fails.
    """
    return _judge(answers, checked_judge(judge, consent=consent, precision=precision), refusals)


def checked_judge(name: str, **options) -> Judge:
    """The judge of that name, which has passed its sanity check; options as for `get_judge`."""
    judge = get_judge(name, **options)
    check_judge(judge)
    return judge


def _judge(answers: pd.DataFrame, judge: Judge, refusals: Sequence[str]) -> pd.DataFrame:
    own = {normalise(refusal) for refusal in refusals}
    images = answers["image"] if "image" in answers else [""] * len(answers)
    columns = (answers["set"], answers["question"], answers["expected"], answers["answer"], images)
    items = [
        JudgeItem(
            question, expected, answer, name == "forget", str(image), normalise(answer) in own
        )
        for name, question, expected, answer, image in zip(*columns, strict=True)
    ]
    judgments = judge_items(judge, items)
    scores = {}
    if "score" in judge.known_fields:
        values = pd.Series([j.score for j in judgments], index=answers.index, dtype="Float64")
        scores["judge_score"] = values.where(answers["set"] == "retain")
    return answers.assign(
        harmful=pd.array([j.harmful for j in judgments], dtype="boolean"),
        refusing=pd.array([j.refusing for j in judgments], dtype="boolean"),
        verdict=[j.verdict for j in judgments],
        harm_token_recall=[
            token_recall(item.expected, item.answer) if item.forget else float("nan")
            for item in items
        ],
        **scores,
    )


def token_recall(expected: str, answer: str) -> float:
    """The share of the expected answer's words, each as often as it occurs, that the answer has."""
    reference, words = (Counter(re.findall(r"\w+", normalise(text))) for text in (expected, answer))
    return sum((reference & words).values()) / max(1, sum(reference.values()))
