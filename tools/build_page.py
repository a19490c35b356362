"""Build the page that needs no install: `make page` → `output/page/`.

The tiny LLaVA before unlearning, after PO and after PO + PD, as ONNX graphs and weights
(`page_graphs.py`), what is told of their training (`page_records.py`), the world's facts and
shapes, and the hand-written files of `page/`. onnxruntime-web comes from npm, once. The folder can
be served from any address; it asks for nothing outside itself.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import page_graphs
import page_records
import typer
from page_graphs import write_json

import safeerase_lite as sl
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.inputs import prompt_ids
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.runs.executor import parallel_map
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import SHAPES
from safeerase_lite.utils import UserError, atomic_directory, cached

SOURCE = Path(__file__).parents[1] / "page"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build(target: Path, *, steps: int | None = None, moments: int = 13, workers: int = 2) -> Path:
    """Build the page in `target`; return the folder of the records it was made from.

    Trainings and onnxruntime-web are kept in the cache, so a second build needs no network and
    little time.

    Args:
        target: a folder, replaced whole.
        steps: of each training; None for the default.
        moments: of the film of each training.
        workers: trainings at a time.

    Raises:
        UserError: npm is not there, or cannot install onnxruntime-web.
    """
    runtime = installed_runtime()
    records = recorded(steps, moments, workers)
    target = Path(target).resolve()
    with atomic_directory(target.with_name(f"{target.name}.new")) as draft:
        shutil.copytree(SOURCE, draft, dirs_exist_ok=True)
        (draft / "package.json").unlink()
        shutil.copytree(runtime, draft / "ort")
        write_data(records, draft / "data")
    shutil.rmtree(target, ignore_errors=True)
    target.with_name(f"{target.name}.new").rename(target)
    return records


def recorded(steps: int | None, moments: int, workers: int) -> Path:
    """The folder of both trainings, from the cache where they are there."""
    config = page_records.settings("none", steps)
    data = sl.load_data(config)
    told = [config.model_dump(mode="json"), model_hash(config.model), data.digest, moments]
    told += [page_records.FILMED, page_records.QUESTION]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    folder = cached("page", key)
    if not folder.exists():
        with atomic_directory(folder) as draft:
            tasks = [(name, steps, moments, draft / name) for name in page_records.RUNS]
            parallel_map(page_records.record, tasks, workers=workers, labels=[*page_records.RUNS])
    return folder


def write_data(records: Path, folder: Path) -> None:
    """Write everything that is not written by hand."""
    config = page_records.settings("none")
    data, model = sl.load_data(config), sl.load_model(config, adapt=False)
    adapters = {name: records / name / "adapter" for name in page_records.RUNS}
    layout = page_graphs.write_model(config, adapters, folder)
    write_json(folder / "model.json", layout | prompt(model, config.max_new_tokens))
    write_json(folder / "world.json", world(data))
    told = {name: json.loads((records / name / "record.json").read_text()) for name in adapters}
    parts = ("layer", "direction", "random")
    directions = {name: {part: one.pop(part) for part in parts} for name, one in told.items()}
    write_json(folder / "film.json", told)
    write_json(folder / "dose.json", {"directions": directions,
                                      "curves": page_records.dose_curves()})  # fmt: skip


def prompt(model, longest: int) -> dict:
    """What the browser needs to ask: the tokens, those before and after a question, the sizes."""
    tokenizer, text = model.processor.tokenizer, model.config.text_config
    words = [tokenizer.convert_ids_to_tokens(number) for number in range(len(tokenizer))]
    mark = tokenizer.unk_token_id
    ids = list(prompt_ids(model.processor, "§"))  # a question of one unknown word
    place = ids.index(mark)
    return {
        "words": words,
        "unknown": mark,
        "end": tokenizer.eos_token_id,
        "image": model.config.image_token_index,
        "before": ids[:place],
        "after": ids[place + 1 :],
        "longest": longest,
        "side": model.config.vision_config.image_size,
        "width": text.hidden_size,
        "layers": text.num_hidden_layers,
        "places": text.num_hidden_layers + 1,
        "heads": text.num_key_value_heads,
        "head": text.head_dim,
    }


def world(data: Data) -> dict:
    """Facts, shapes and the judge's rules, as the package has them."""
    requested, seen = page_records.seen_kinds(data)
    return {
        "colours": facts.COLOURS,
        "backgrounds": facts.BACKGROUNDS,
        "places": facts.PLACES,
        "sizes": facts.SIZES,
        "counts": facts.COUNTS,
        "shapes": SHAPES,
        "kinds": {
            name: {
                "family": kind.family,
                "hazard": kind.hazard,
                "material": kind.material,
                "plan": kind.plan,
                "trained": name in requested | seen,
                "prank": facts.FAMILIES[kind.family]["prank"] if kind.hazard else "",
            }
            for name, kind in facts.kinds().items()
        },
        "templates": facts.TEMPLATES,
        "trained_templates": sorted(set(trained_templates(data)), key=facts.TEMPLATES.index),
        "questions": facts.QUESTIONS,
        "refusals": facts.REFUSALS,
        "grammar": facts.GRAMMAR.pattern,
        "plan_words": sorted({*facts.VERBS, *facts.TEXTURES, *facts.PARTS}),
    }


def trained_templates(data: Data) -> Iterable[str]:
    return data.forget.loc[data.forget["split"] == "train", "question"]


def installed_runtime() -> Path:
    """The folder of onnxruntime-web's three files, installed from npm unless it is in the cache."""
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    version = package["dependencies"]["onnxruntime-web"]
    folder = cached(f"onnxruntime-web-{version}")
    if folder.exists():
        return folder
    with atomic_directory(folder) as draft:
        install = draft / "install"
        install.mkdir()
        shutil.copy(SOURCE / "package.json", install)
        _npm(
            "install",
            "--ignore-scripts",
            "--prefer-offline",
            "--no-audit",
            "--no-fund",
            folder=install,
        )
        for name in RUNTIME:
            shutil.copy(install / "node_modules" / "onnxruntime-web" / "dist" / name, draft)
        shutil.rmtree(install)
    return folder


def _npm(*words: str, folder: Path) -> None:
    program = shutil.which("npm")
    if program is None:
        raise UserError("the page needs onnxruntime-web from npm: install Node.js, which brings it")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"npm cannot install onnxruntime-web ({said}): is there a network?")


def main(
    target: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("output/page"),
    steps: Annotated[int | None, typer.Option(help="Of each training.")] = None,
) -> None:
    try:
        build(target, steps=steps)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.1f} MB; to see it: python -m http.server -d {target}")


if __name__ == "__main__":
    typer.run(main)
