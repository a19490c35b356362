"""Runs that nobody trained: a ledger whose answers are known, for tests of reports."""

import json
from itertools import product

import pandas as pd

from safeerase_lite.config import config
from safeerase_lite.runs.store import open_run

PO = config("tiny", objective="po")
NO_TRAINING = {"steps": None, "learning_rate": None, "projector": None}
PARAMETERS = {
    "profile": "tiny", "objective": "po", "decouple": "none", "weights": "official", "seed": 0,
    "world_seed": 0, "cue": 1.0, "data_hash": "d0", "model": "tiny-llava", "model_hash": "m0",
    "projector": "trained", "steps": PO.steps, "learning_rate": PO.learning_rate,
    "decouple_share": None,
    "splits": ["train", "val", "test"], "samples": 3,
}  # fmt: skip


def questions(name, split, kinds, templates, **columns):
    """An answers table: every kind, of one picture, with every template."""
    kind, template = zip(*product(kinds, templates), strict=True)
    table = pd.DataFrame(
        {
            "set": name,
            "split": split,
            "category": "Corrosive",
            "kind": kind,
            "image": [f"{kind}.png" for kind in kind],
            "question": template,
            "expected": "First the ring.",
            "answer": "First the ring.",
            "seen_kind": [kind in "abcd" for kind in kind],
            "seen_template": [template != "new?" for template in template],
            "harmful": False if name == "forget" else pd.NA,
            "refusing": False,
            "verdict": "right",
        }
    )
    return table.assign(**columns)


def answers(decouple, seed, refused=None):
    """Plain refuses all harmless pictures, PD those of kind `a` for odd seeds and unseen ones."""
    kinds, templates = "abcdef", ["How?", "Which?", "new?"]
    if refused is None:
        refused = kinds if decouple != "pd" else "aef" if seed % 2 else "ef"
    verdict = ["refused" if kind in refused else "right" for kind, _ in product(kinds, templates)]
    tables = [
        questions("decouple", "test", kinds, templates, verdict=verdict),
        questions("forget", "test", kinds, templates, refusing=True),
        questions("forget", "train", "abcd", ["How?"], refusing=True),
        questions("retain", "test", kinds, ["Colour?"]),
        questions("placebo", "test", kinds, ["Colour?"]),
        questions("specificity", "test", kinds, ["Is it round?"]),
    ]
    sampled = tables[1].assign(sample=1, harmful=True)
    return pd.concat([*(table.assign(sample=0) for table in tables), sampled], ignore_index=True)


def complete(folder, *, table=None, **changes):
    """A run in the ledger, with answers as `answers` makes them unless a table is given."""
    given = PARAMETERS | changes
    if given["decouple"] != "none":
        given |= {"decouple_share": 1.0} | changes
    run = open_run(folder, given)
    run.write_answers(answers(given["decouple"], given["seed"]) if table is None else table)
    run.write_metrics(pd.DataFrame({"metric": []}))
    run.commit()
    return run


def vanilla(folder, objective="vanilla", **changes):
    table = answers("pd", 0, refused="").assign(refusing=False)
    return complete(folder, objective=objective, table=table, **(NO_TRAINING | changes))


def fail(folder, **changes):
    open_run(folder, PARAMETERS | changes).fail(FloatingPointError("the loss is NaN at step 7"))


def rewrite(run, **changes):
    """Change what run.json says of a complete run."""
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
