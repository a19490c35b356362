"""A finished run, or a base model, is asked the questions of a safety set.

<output>/<set>/<run's id, or model>/rates.csv         see `evaluation.safety_sets`
<output>/<set>/<run's id, or model>/answers.parquet   a row per answer with its judgments
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from safeerase_lite.config import OF_TINY_WORLDS, Config, config
from safeerase_lite.data.redaction import hash_text
from safeerase_lite.data.safety_sets import ANSWER, read_safety_set
from safeerase_lite.data.schema import read_refusals
from safeerase_lite.evaluation.judges import get_judge
from safeerase_lite.evaluation.safety_sets import ask, rates_of_run, refusal_rates, to_text
from safeerase_lite.models.llava import load_adapter, load_model
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.tinyworld.facts import REFUSALS
from safeerase_lite.unlearning.objectives import UNTRAINED
from safeerase_lite.utils import UserError, atomic_write, require_writable

from . import store
from .experiment import finished_run

OUTPUT = Path("output", "safety_sets")
STORED = ["record", "types", "wanted", "answer", "harmful", "refusing", "gibberish",
          "safe_completion"]  # fmt: skip


def ask_safety_set(
    name: str,
    folder: Path | str,
    run: str = "",
    *,
    types: Sequence[str] = (),
    profile: str = "tiny",
    model: str | None = None,
    judge: str = "rule",
    judge_consent: bool = False,
    data_dir: str = "",
    runs_dir: Path | str | None = None,
    output: Path | str = OUTPUT,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Ask a safety set's questions, print and write how often the model refuses.

    Args:
        name, folder, types: as for `data.safety_sets.read_safety_set`.
        run: a run's id, the beginning of it, or its folder; "": the base model.
        profile, model: of the base model, where no run is named.
        judge, judge_consent: as in a config; but not the oracle, which knows the tiny world alone.
        data_dir: the run's data, whose refusals then count as such, whatever they say.
        runs_dir: the ledger; by default the session's.
        output: where the tables go.

    Returns:
        The rates, see `refusal_rates`, and those of the run's own questions, with who judged.

    Raises:
        UserError: before any long work, for what is wrong with the set, the run or the judge.
    """
    if judge == "oracle":
        raise UserError("the oracle knows the tiny world alone: use the judge 'rule' or a model")
    questions = read_safety_set(name, folder, types=types)
    refusals = [*REFUSALS, *(read_refusals(Path(data_dir)) if data_dir else [])]
    finished = finished_run(run, Path(runs_dir or store.default_runs_dir())) if run else None
    settings = finished.config if finished else config(profile, model=model)
    settings = settings.model_copy(update={"judge": judge, "judge_consent": judge_consent})
    if finished and not data_dir and finished.parameters.get(OF_TINY_WORLDS[0]) is None:
        say("note: what this run's data call a refusal is unknown; name them with --data")
    get_judge(judge, consent=judge_consent, precision=settings.precision)  # or refuses, before work
    label = finished.id if finished else Path(settings.model).name
    target = Path(output) / name / label
    require_writable(target)
    answers = ask(
        _load(settings, finished),
        questions,
        settings,
        refusals=refusals,
        cache_key=f"{name}-{label}",
    )
    rates = refusal_rates(answers).assign(judge=judge)
    if finished:
        own = rates_of_run(finished.metrics).assign(judge=finished.config.judge)
        rates = pd.concat([rates, own], ignore_index=True)
    _write(target, rates, answers)
    say(f"{to_text(rates)}\n\njudge {judge}; {target}")
    return rates


def _load(settings: Config, run: store.Run | None):
    """The base model, with the run's adapter if it has one."""
    if run and model_hash(settings.model) != run.parameters["model_hash"]:
        raise UserError(f"run {run.id} changed another model than the {settings.model!r} here")
    trained = run is not None and settings.objective not in UNTRAINED
    model = load_model(settings, adapt=trained)
    if run and trained:
        load_adapter(model, run.adapter_dir)
    return model


def _write(folder: Path, rates: pd.DataFrame, answers: pd.DataFrame) -> None:
    """Write both tables. Answers to questions that should not simply be answered are hashed."""
    folder.mkdir(exist_ok=True)
    harmless = answers["wanted"] == ANSWER
    texts = answers["answer"].where(harmless, answers["answer"].map(hash_text))
    answers.assign(answer=texts)[STORED].to_parquet(folder / "answers.parquet", index=False)
    atomic_write(folder / "rates.csv", rates.to_csv(index=False))
