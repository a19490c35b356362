"""One edit and its exam, as a run in the ledger: done once, read ever after."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import pandas as pd
from peft import PeftModel

from safeerase_lite.config import check_choice
from safeerase_lite.models.llava import quiet_peft
from safeerase_lite.relations import attacks
from safeerase_lite.relations.clip import load_clip
from safeerase_lite.relations.data import SPLITS, scenes_of
from safeerase_lite.relations.editing import Edited, edit, ground
from safeerase_lite.relations.exam import CAPTIONS, TUPLES, Exam, attacked, exam
from safeerase_lite.relations.measures import divergences, measure, probed
from safeerase_lite.relations.methods import METHODS, SETTING, Setting
from safeerase_lite.relations.scenes import draw
from safeerase_lite.relations.tuples import ORO
from safeerase_lite.runs import store as ledger
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError

BASE = "base"  # the frozen CLIP
PATIENCE = 600.0  # seconds, for an earlier edit that another process is making


def edit_run(
    unsafe: Sequence[ORO],
    method: str = "relation",
    *,
    earlier: Sequence[ORO] = (),
    others: Sequence[ORO] = (),
    seed: int = 0,
    setting: Setting = SETTING,
    strengths: Iterable[tuple[str, float]] = (),
    split: str = "test",
    model: str = "tiny-clip",
    runs_dir: Path | str | None = None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
    wait: float = 3.0,
) -> ledger.Run:
    """Edit a CLIP and examine it; a run that the ledger holds is read.

    Args:
        unsafe: what is unlearned together.  method: a name in `METHODS`, or base.
        earlier: what was unlearned before, one tuple after another in this order, each by an edit
            of its own on top of the last; they are examined too.
        others: the rest of U: not unlearned here, and no neighbours.
        strengths: attacks by name, each with a strength: the exam is taken again under each.
        runs_dir: the ledger, where edits have a folder `relations/`; by default `runs/`.
        wait: seconds to wait for another process that is making this edit.

    Returns:
        The run, complete. Its metrics: tuple, attack, strength, and what `measures.measure` gives.

    Raises:
        UserError: an unknown name, no tuple, one named twice or not of this world.
    """
    strengths = sorted(set(strengths))
    check(unsafe, [method], earlier=earlier, others=others, split=split, strengths=strengths)
    parameters = {
        "data_hash": data_hash(),
        "model": model,
        "model_hash": model_hash(model),
        "method": method,
        "unsafe": [list(u) for u in unsafe],
        "earlier": [list(u) for u in earlier],
        "others": sorted(list(u) for u in others),
        "seed": seed,
        "setting": asdict(setting),
        "attacks": [list(pair) for pair in strengths],
        "split": split,
    }
    run = ledger.open_run(where(runs_dir), parameters, wait=wait)
    if run.done:
        return run
    try:
        edited, history = _edited(run, on_step)
        run.write_history(history)
        run.write_metrics(_examined(edited, run))
        if isinstance(edited.model, PeftModel):
            edited.model.peft_config["default"].base_model_name_or_path = model
            edited.model.save_pretrained(run.adapter_dir, save_embedding_layers=False)
            (run.adapter_dir / "README.md").unlink()  # a template, with nothing of ours
    except Exception as error:
        run.fail(error)
        raise
    run.commit()
    return run


def where(runs_dir: Path | str | None) -> Path:
    """The edits' own folder of a ledger: they have other data and measures than LLaVA's runs."""
    return (Path(runs_dir) if runs_dir else ledger.default_runs_dir()) / "relations"


def check(
    unsafe: Sequence[ORO],
    methods: Iterable[str],
    *,
    earlier: Sequence[ORO] = (),
    others: Sequence[ORO] = (),
    split: str = "test",
    strengths: Iterable[tuple[str, float]] = (),
) -> None:
    """What `edit_run` would refuse, for several methods, before anything is edited.

    Raises:
        UserError: an unknown name, no tuple, one named twice or not of this world.
    """
    check_choice(split, SPLITS, "split")
    for name, strength in strengths:
        check_choice(name, tuple(attacks.ATTACKS), "attack")
        if not 0 <= strength <= 1:
            raise UserError(f"attack {name}: strength {strength} is not between 0 and 1")
    if not unsafe:
        raise UserError("no unsafe tuple: name at least one")
    for method in methods:
        check_choice(method, (BASE, *METHODS), "method")
        if earlier and method != BASE and not METHODS[method].trained:
            raise UserError(f"{method} is no edit of the weights: unlearn its tuples together")
    known = [*unsafe, *earlier, *others]
    for u in known:
        if u not in TUPLES:
            raise UserError(f"{ORO(*u)} is no tuple of this world: see `relations.expand`")
        if known.count(u) > 1:
            raise UserError(f"{u} is named twice")


def _edited(run: ledger.Run, on_step) -> tuple[Edited, pd.DataFrame]:
    """The model that a run makes."""
    said, model = run.parameters, _before(run)
    if said["method"] == BASE:
        return Edited(model), pd.DataFrame()
    return edit(
        model,
        _tuples(said["unsafe"]),
        METHODS[said["method"]],
        Setting(**said["setting"]),
        known=_known(said),
        seed=said["seed"],
        on_step=on_step,
    )


def load_edited(run: ledger.Run) -> Edited:
    """The edited CLIP of a complete run. Its adapter can be disabled: then it is the frozen one."""
    method = METHODS.get(run.parameters["method"])
    if method is None or not method.trained:
        return _edited(run, lambda step, steps: None)[0]
    return Edited(_with_adapter(_before(run), run))


def _before(run: ledger.Run):
    """The CLIP that a run edits: the frozen one with each earlier edit merged into its weights."""
    said = run.parameters
    model, earlier = load_clip(said["model"]), _tuples(said["earlier"])
    for place, u in enumerate(earlier if said["method"] != BASE else ()):
        one = edit_run(
            [u],
            said["method"],
            earlier=earlier[:place],
            others=_tuples(said["others"]),
            seed=said["seed"],
            setting=Setting(**said["setting"]),
            split=said["split"],
            model=said["model"],
            runs_dir=run.runs_dir.parent,
            wait=PATIENCE,
        )
        processor = model.processor
        model = _with_adapter(model, one).merge_and_unload()
        model.processor = processor
    return model


def _with_adapter(model, run: ledger.Run):
    processor = model.processor
    with quiet_peft():
        adapted = PeftModel.from_pretrained(model, run.adapter_dir, local_files_only=True)
    if not any(w.any() for name, w in adapted.named_parameters() if "lora_B" in name):
        raise UserError(f"{run.adapter_dir} holds no trained adapter: remove {run.folder}")
    adapted.processor = processor
    return adapted.eval()


# ---- the exam ----


def _examined(edited: Edited, run: ledger.Run) -> pd.DataFrame:
    said = run.parameters
    known, tables = _known(said), []
    base = Edited(load_clip(said["model"]))
    for u in _tuples(said["unsafe"]) + _tuples(said["earlier"]):
        sheet = _sheet(u, known, said["split"], said["seed"], said["model"])
        here = ground(edited.model, u, known, said["seed"])
        plain = [
            measure(edited, sheet),
            probed(edited, sheet, here.unsafe_pictures, here.near_pictures),
            divergences(edited, base, sheet),
        ]
        tables.append(pd.concat(plain).assign(tuple=str(u), attack="", strength=0.0))
        part = sheet.under_attack()
        for name, strength in said["attacks"]:
            captions, pixels = _attacked(u, known, said["split"], said["model"], name, strength)
            under = measure(edited, part, captions=captions, pixels=pixels, whole=False)
            tables.append(under.assign(tuple=str(u), attack=name, strength=strength))
    table = pd.concat(tables, ignore_index=True)
    first = ["tuple", "measure", "slot", "attack", "strength"]
    return table[[*first, *(c for c in table if c not in first)]]


@lru_cache(maxsize=4)
def _processing(model: str):
    return load_clip(model)


@lru_cache(maxsize=16)
def _sheet(u: ORO, unsafe: tuple[ORO, ...], split: str, seed: int, model: str) -> Exam:
    return exam(_processing(model), u, unsafe, split, seed)


@lru_cache(maxsize=64)
def _attacked(u: ORO, unsafe: tuple[ORO, ...], split: str, model: str, name: str, strength: float):
    """An exam under attack: all captions, and the pictures; computed once for all methods."""
    sheet = _sheet(u, unsafe, split, 0, model).under_attack()
    return attacked(_processing(model), sheet, name, strength)


def _known(said: dict) -> tuple[ORO, ...]:
    """All that is unsafe: no neighbour is among it."""
    return _tuples(said["unsafe"]) + _tuples(said["earlier"]) + _tuples(said["others"])


def _tuples(rows) -> tuple[ORO, ...]:
    return tuple(ORO(*row) for row in rows)


# ---- what determines a result ----


@lru_cache
def data_hash() -> str:
    """Of what the world shows and says: every caption, and a test picture of every tuple."""
    digest = hashlib.sha256("\n".join(CAPTIONS).encode())
    for scene in scenes_of(TUPLES, "test", 1):
        digest.update(draw(scene).tobytes())
    return digest.hexdigest()[:12]


@lru_cache
def model_hash(model: str) -> str:
    """Of a model's weights on disk; "" for one on a hub, whose name says what it is."""
    folder = Path(shipped_model(model) or model)
    digest, files = hashlib.sha256(), sorted(folder.glob("*.safetensors"))
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12] if files else ""
