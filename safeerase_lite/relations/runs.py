"""Edits as runs of a ledger: each is made and evaluated once, and read from then on."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path

import pandas as pd
from peft import PeftModel
from pydantic import BaseModel, ConfigDict

from safeerase_lite.models.llava import quiet_peft
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.executor import parallel_map
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError, check_choice, reading

from .attacks import ATTACKS, SHARES_LEFT, attack_strengths
from .clip import load_clip
from .editing import NEIGHBOUR_IMAGES, UNSAFE_IMAGES, EditedClip, edit, listed, train_images
from .evaluation import divergences, measure, probed
from .evaluation_set import CAPTIONS, attacked, attacked_part, evaluation_set
from .objectives import METHODS, SETTINGS, EditSettings
from .scenes import SPLITS, draw, scenes_of
from .tuples import ALL_TUPLES, RelationTriple, Tuples

BASE = "base"  # the frozen CLIP
LABELS = {BASE: "base"} | {name: method.label for name, method in METHODS.items()}
MAIN_METHODS = (
    "relation", "no_preservation", "pair", "erase_subject", "erase_object", "filter", "projection",
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
    settings: EditSettings = SETTINGS,
    strengths: Iterable[tuple[str, float]] = (),
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
        strengths: (attack, strength). The edit is evaluated again under each.
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
        model_hash=model_hash(model),
        method=method,
        unsafe=tuple(unsafe),
        earlier=tuple(earlier),
        others=tuple(sorted(others)),
        seed=seed,
        settings=settings,
        attacks=tuple(strengths),
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
        check_choice(method, (BASE, *METHODS), "method")
        if earlier and method != BASE and not METHODS[method].trained:
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
        return EditedClip(_with_adapter(_before(p, run.runs_dir), run))
    return _edit(p, run.runs_dir)[0]


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
    runs_dir: Path | str | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """Edit and evaluate a CLIP by every method, for every set of tuples and every seed; the base
    model too. Edits that the ledger holds are read. A row per measure, with TIDY_COLUMNS.

    Args:
        sets: each is unlearned by an edit of its own.
        others: unsafe too, so no neighbours.
        left: attack so strongly that the base model is left these shares of its accuracy.
    """
    strengths, cells = attack_strengths(left), product(sets, seeds, (BASE, *methods))
    tasks = [(unsafe, method, seed, others, strengths, runs_dir) for unsafe, seed, method in cells]
    labels = [f"{LABELS[m]}: {', '.join(map(str, u))}, seed {seed}" for u, m, seed, *_ in tasks]
    print(f"{len(tasks)} edits, {workers} at a time; finished ones are in {edits_dir(runs_dir)}")
    tables = parallel_map(_tidy_run, tasks, workers=workers, labels=labels)
    return pd.concat(tables, ignore_index=True)


def _tidy_run(unsafe, method: str, seed: int, others, strengths, runs_dir) -> pd.DataFrame:
    rest = [u for u in others if u not in unsafe]
    return tidy(
        edit_run(unsafe, method, others=rest, seed=seed, strengths=strengths, runs_dir=runs_dir)
    )


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
        run.write_metrics(_evaluate(edited, p))
        if isinstance(edited.model, PeftModel):
            edited.model.peft_config["default"].base_model_name_or_path = p.model
            edited.model.save_pretrained(run.adapter_dir, save_embedding_layers=False)
            (run.adapter_dir / "README.md").unlink()  # PEFT's template, with nothing filled in
    except Exception as error:
        run.fail(error)
        raise
    run.commit()
    return run


def _edit(p: EditParameters, folder: Path) -> tuple[EditedClip, pd.DataFrame]:
    """The edited CLIP, and its history."""
    model = _before(p, folder)
    if p.method == BASE:
        return EditedClip(model), pd.DataFrame()
    return edit(model, p.unsafe, METHODS[p.method], p.settings, known=p.known, seed=p.seed)


def _before(p: EditParameters, folder: Path):
    """The CLIP that is edited: the frozen one with each earlier edit merged into its weights."""
    model = load_clip(p.model)
    for i, u in enumerate(p.earlier if p.method != BASE else ()):
        earlier = p.model_copy(update={"unsafe": (u,), "earlier": p.earlier[:i], "attacks": ()})
        run = _run(earlier, folder, wait=_PATIENCE)
        model = _with_adapter(model, run).merge_and_unload()
    return model


def _with_adapter(model, run: ledger.Run):
    with quiet_peft(), reading(run.adapter_dir, f"move {run.folder} away and run it again"):
        adapted = PeftModel.from_pretrained(model, run.adapter_dir, local_files_only=True)
    # PEFT starts an adapter that has no weights on disk at zero, and says nothing.
    if not any(w.any() for name, w in adapted.named_parameters() if "lora_B" in name):
        raise UserError(f"{run.adapter_dir} holds no trained adapter: remove {run.folder}")
    return adapted.eval()


def _evaluate(edited: EditedClip, p: EditParameters) -> pd.DataFrame:
    base, tables = EditedClip(_clip(p.model)), []
    for u in p.unsafe + p.earlier:
        evaluation = _evaluation_set(base.model, u, p.known, p.split, p.seed)
        near = listed(u, p.known, p.seed)
        train_unsafe = train_images(edited.model, [u], UNSAFE_IMAGES, p.seed)
        train_neighbours = train_images(edited.model, near, NEIGHBOUR_IMAGES, p.seed)
        plain = [
            measure(edited, evaluation),
            probed(edited, evaluation, train_unsafe, train_neighbours),
            divergences(edited, base, evaluation),
        ]
        tables.append(pd.concat(plain).assign(tuple=str(u), attack="", strength=0.0))
        part = attacked_part(evaluation)
        for name, strength in p.attacks:
            under_attack = _attacked(base.model, u, p.known, p.split, name, strength)
            table = measure(edited, part, under_attack)
            tables.append(table.assign(tuple=str(u), attack=name, strength=strength))
    table = pd.concat(tables, ignore_index=True)
    return table[["tuple", "measure", "slot", "attack", "strength", "value", "low", "high", "n"]]


# What all methods are evaluated on is computed once in a process.
_clip = lru_cache(maxsize=4)(load_clip)
_evaluation_set = lru_cache(maxsize=16)(evaluation_set)


@lru_cache(maxsize=64)
def _attacked(model, u, unsafe, split: str, name: str, strength: float):
    # Seed 0: the seed decides what neighbours are listed, not what the images are.
    return attacked(
        model, attacked_part(_evaluation_set(model, u, unsafe, split, 0)), name, strength
    )


# ---- what determines a result ----


@lru_cache
def data_hash() -> str:
    """A hash of the world: every caption, and a test image of every tuple."""
    images = [draw(scene).tobytes() for scene in scenes_of(ALL_TUPLES, "test", 1)]
    return _hash("\n".join(CAPTIONS).encode(), *images)


@lru_cache
def model_hash(model: str) -> str:
    """A hash of a model's weights on disk; "" for one on the Hub, whose name identifies it."""
    files = sorted(Path(shipped_model(model) or model).glob("*.safetensors"))
    return _hash(*(file.read_bytes() for file in files)) if files else ""


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
