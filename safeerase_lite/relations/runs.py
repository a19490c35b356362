"""Edits as runs of a ledger: each is made and evaluated once, and read from then on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import pandas as pd
from peft import PeftModel
from pydantic import BaseModel, ConfigDict

from safeerase_lite.models.llava import LEARNING, add_adapter, save_adapter
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.executor import parallel_map
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.tinyworld.world import SPLITS
from safeerase_lite.utils import UserError, check_choice

from .adaptive import ADAPTIVE, adaptive_measures
from .attacks import ATTACKS, SHARES_LEFT, attack_strengths
from .clip import load_clip
from .editing import EditedClip, edit
from .evaluation import measure
from .evaluation_set import CAPTIONS, EvaluationSet, attacked, evaluation_set
from .objectives import METHODS, EditSettings, chosen
from .scenes import draw, scenes_of
from .tuples import ALL_TUPLES, RelationTriple, Tuples

BASE = "base"  # the frozen CLIP
GOLD = "gold"  # a CLIP that was never taught the tuple, for the tuples that have one
LABELS = {BASE: "base"} | {name: method.label for name, method in METHODS.items()}
LABELS |= {GOLD: "never taught it"}
MAIN_METHODS = (
    "relation", "one_sided", "no_preservation", "pair", "erase_object", "filter", "projection",
)  # fmt: skip
_PATIENCE = 600.0  # seconds to wait for an earlier edit that another process is making


class EditParameters(BaseModel):
    """What determines an edit and its measures; the ledger's run id is a hash of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data_hash: str
    model: str
    model_hash: str
    method: str
    unsafe: tuple[RelationTriple, ...]
    earlier: tuple[RelationTriple, ...]
    others: tuple[RelationTriple, ...]
    seed: int
    settings: EditSettings
    attacks: tuple[tuple[str, float], ...]
    adaptive: bool
    split: str

    @property
    def known(self) -> tuple[RelationTriple, ...]:
        """All of U: no neighbour is among it."""
        return self.unsafe + self.earlier + self.others


def edit_run(
    unsafe: Tuples,
    method: str = "relation",
    *,
    earlier: Tuples = (),
    others: Tuples = (),
    seed: int = 0,
    settings: EditSettings | None = None,
    strengths: Iterable[tuple[str, float]] = (),
    adaptive: bool = False,
    split: str = "test",
    model: str = "tiny-clip",
    runs_dir: Path | str | None = None,
) -> ledger.Run:
    """Edit a CLIP and evaluate it; a run that the ledger holds is read.

    Args:
        unsafe: the tuples to unlearn together.
        method: a name in `METHODS`, or base.
        earlier: tuples unlearned before, in this order, each by an edit of its own on top of the
            last; they are evaluated too.
        others: the rest of U. They are not unlearned here, and no neighbours.
        settings: those that were chosen for the method, if None.
        strengths: (attack, strength). The edit is evaluated again under each.
        adaptive: whether it is attacked by gradients too: see `adaptive`.
        runs_dir: the ledger, where edits have a folder `relations/`.

    Returns:
        The run, complete. Its metrics: tuple, attack, strength, and the columns of
        `evaluation.measure`.
    """
    strengths = sorted(set(strengths))
    check_choice(split, SPLITS, "split")
    for name, strength in strengths:
        check_choice(name, tuple(ATTACKS), "attack")
        if not 0 <= strength <= 1:
            raise UserError(f"attack {name}: strength {strength} is not between 0 and 1")
    check(unsafe, [method], earlier=earlier, others=others)
    parameters = EditParameters(
        data_hash=data_hash(),
        model=model,
        model_hash=_model_hash(model),
        method=method,
        unsafe=unsafe,
        earlier=earlier,
        others=sorted(others),
        seed=seed,
        settings=settings or chosen(method),
        attacks=strengths,
        adaptive=adaptive,
        split=split,
    )
    return _run(parameters, edits_dir(runs_dir))


def check(
    unsafe: Tuples, methods: Iterable[str], *, earlier: Tuples = (), others: Tuples = ()
) -> None:
    """Refuse tuples and methods that `edit_run` would refuse, before anything is edited."""
    if not unsafe:
        raise UserError("no unsafe tuple: name at least one")
    for method in methods:
        check_choice(method, (BASE, *METHODS, GOLD), "method")
        if method == GOLD and not (len(unsafe) == 1 and gold_model(unsafe[0])):
            raise UserError(f"no gold model for {', '.join(map(str, unsafe))}: see `gold_model`")
        if earlier and method not in (BASE, GOLD) and not METHODS[method].trained:
            raise UserError(f"{method} is no edit of the weights: unlearn its tuples together")
    known = [*unsafe, *earlier, *others]
    for u in known:
        if u not in ALL_TUPLES:
            raise UserError(f"{RelationTriple(*u)} is no tuple of this world: see `rel.expand`")
        if known.count(u) > 1:
            raise UserError(f"{u} is named twice")


def load_edited(run: ledger.Run) -> EditedClip:
    """The edited CLIP of a complete run. Where it has an adapter, `with clip.frozen(edited.model):`
    is the CLIP before this edit."""
    p = EditParameters(**run.parameters)
    if p.method in METHODS and METHODS[p.method].trained:
        return EditedClip(add_adapter(_before(p, run.runs_dir), run.adapter_dir, LEARNING).eval())
    return _edit(p, run.runs_dir)[0]


def gold_model(u: RelationTriple) -> str:
    """The name of the shipped CLIP that was never taught a tuple, "" if there is none. It was made
    by `safeerase relations build --without "subject relation object"`."""
    name = "-".join(["tiny-clip-without", *u])
    return name if shipped_model(name) else ""


def edits_dir(runs_dir: Path | str | None) -> Path:
    """The edits' own folder of a ledger: they have other data and measures than LLaVA's runs."""
    return (Path(runs_dir) if runs_dir else ledger.default_runs_dir()) / "relations"


# ---- many edits ----

TIDY_COLUMNS = [
    "method", "tuple", "measure", "slot", "attack", "strength", "seed", "value", "low", "high", "n",
]  # fmt: skip


def study(
    sets: Sequence[Tuples],
    methods: Iterable[str] = MAIN_METHODS,
    seeds: Iterable[int] = (0,),
    *,
    others: Tuples = (),
    left: Iterable[float] = SHARES_LEFT,
    adaptive: bool = True,
    runs_dir: Path | str | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """Edit and evaluate a CLIP by every method, for every set of tuples and every seed; the base
    model too, and gold where there is one. Edits that the ledger holds are read. A row per measure,
    with TIDY_COLUMNS.

    Args:
        sets: each is unlearned by an edit of its own.
        others: unsafe too, so no neighbours.
        left: attack so strongly that the base model is left these shares of its accuracy.
        adaptive: attack by gradients too.
    """
    strengths, cells = attack_strengths(left), []
    for unsafe, seed in product(sets, seeds):
        gold = [GOLD] if len(unsafe) == 1 and gold_model(unsafe[0]) else []
        cells += [(unsafe, seed, method) for method in (BASE, *methods, *gold)]
    tasks = [
        (unsafe, method, seed, others, strengths, adaptive, runs_dir)
        for unsafe, seed, method in cells
    ]
    labels = [f"{LABELS[m]}: {', '.join(map(str, u))}, seed {seed}" for u, m, seed, *_ in tasks]
    print(f"{len(tasks)} edits, {workers} at a time; finished ones are in {edits_dir(runs_dir)}")
    tables = parallel_map(_tidy_run, tasks, workers=workers, labels=labels)
    return pd.concat(tables, ignore_index=True)


def _tidy_run(
    unsafe, method: str, seed: int, others, strengths, adaptive: bool, runs_dir
) -> pd.DataFrame:
    rest = [u for u in others if u not in unsafe]
    attacks = {"strengths": strengths, "adaptive": adaptive}
    return tidy(edit_run(unsafe, method, others=rest, seed=seed, **attacks, runs_dir=runs_dir))


def tidy(run: ledger.Run) -> pd.DataFrame:
    """A run's metrics with its method and seed: TIDY_COLUMNS."""
    metrics, parameters = fill_blanks(run.metrics), run.parameters
    return metrics.assign(method=parameters["method"], seed=parameters["seed"])[TIDY_COLUMNS]


def fill_blanks(table: pd.DataFrame) -> pd.DataFrame:
    """No slot and no attack are "", which a CSV file gives back as NaN."""
    blank = {name: "" for name in ("slot", "attack") if name in table}
    return table.astype(dict.fromkeys(blank, object)).fillna(blank)


# ---- one edit ----


def _run(p: EditParameters, folder: Path, wait: float = 3.0) -> ledger.Run:
    run = ledger.open_run(folder, p.model_dump(mode="json"), wait=wait)
    if run.done:
        return run
    try:
        edited, history = _edit(p, folder)
        run.write_history(history)
        if isinstance(edited.model, PeftModel):
            edited.model.peft_config["default"].base_model_name_or_path = p.model
            save_adapter(edited.model, run.adapter_dir)
            edited = merged(edited)  # a third faster
        run.write_metrics(_evaluate(edited, p))
    except Exception as error:
        run.fail(error)
        raise
    run.commit()
    return run


def _edit(p: EditParameters, folder: Path) -> tuple[EditedClip, pd.DataFrame]:
    """The edited CLIP, and its history."""
    if p.method == GOLD:
        return EditedClip(load_clip(gold_model(p.unsafe[0]))), pd.DataFrame()
    model = _before(p, folder)
    if p.method == BASE:
        return EditedClip(model), pd.DataFrame()
    return edit(model, p.unsafe, METHODS[p.method], p.settings, known=p.known, seed=p.seed)


def merged(edited: EditedClip) -> EditedClip:
    """The edited CLIP with its adapter in its weights, for good."""
    processor = edited.model.processor
    model = edited.model.merge_and_unload()
    model.processor = processor
    return replace(edited, model=model)


def _before(p: EditParameters, folder: Path):
    """The CLIP that is edited: the frozen one with each earlier edit merged into its weights."""
    model = load_clip(p.model)
    for i, u in enumerate(p.earlier if p.method != BASE else ()):
        earlier = p.model_copy(
            update={"unsafe": (u,), "earlier": p.earlier[:i], "attacks": (), "adaptive": False}
        )
        run = _run(earlier, folder, wait=_PATIENCE)
        model = add_adapter(model, run.adapter_dir, LEARNING).merge_and_unload()
    return model


def _evaluate(edited: EditedClip, p: EditParameters) -> pd.DataFrame:
    tables = []
    for u, (attack, strength) in product(p.unsafe + p.earlier, [("", 0.0), *p.attacks]):
        of_edit = p.model, p.model_hash, u, p.known, p.split, p.seed
        table = measure(edited, _evaluated_on(*of_edit, attack=attack, strength=strength))
        tables.append(table.assign(tuple=str(u), attack=attack, strength=strength))
    for u in p.unsafe if p.adaptive else ():
        of_edit = p.model, p.model_hash, u, p.known, p.split, p.seed
        rows = adaptive_measures(edited, _evaluated_on(*of_edit, attack="", strength=0.0))
        table = pd.DataFrame(rows, columns=["attack", "measure", "value", "low", "high", "n"])
        strength = table["attack"].map(ADAPTIVE).astype(float)
        tables.append(table.assign(tuple=str(u), slot="", strength=strength))
    table = pd.concat(tables, ignore_index=True)
    return table[["tuple", "measure", "slot", "attack", "strength", "value", "low", "high", "n"]]


@lru_cache(maxsize=64)
def _evaluated_on(
    model: str, model_hash: str, *of_edit, attack: str, strength: float
) -> EvaluationSet:
    """What all methods are evaluated on, computed once in a process."""
    if not attack:
        return evaluation_set(_clip(model, model_hash), *of_edit)
    plain = _evaluated_on(model, model_hash, *of_edit, attack="", strength=0.0)
    return attacked(plain, attack, strength)


_clip = lru_cache(maxsize=4)(lambda model, model_hash: load_clip(model))


# ---- what determines a result ----


@lru_cache
def data_hash() -> str:
    """A hash of the world: every caption, and a test image of every tuple."""
    images = [draw(scene).tobytes() for scene in scenes_of(ALL_TUPLES, "test", 1)]
    return _hash("\n".join(CAPTIONS).encode(), *images)


def _model_hash(model: str) -> str:
    """`model_hash` in the ledger's length; "" for a model on the Hub, whose name identifies it."""
    found = model_hash(model)
    return "" if found == model else found[:12]


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
