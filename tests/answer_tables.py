"""Small answers tables whose metrics can be worked out by hand."""

import pandas as pd


def answer_rows(name, count, **columns):
    """`count` answers, one per kind, to one template; any column can be overridden."""
    rows = {
        "set": name,
        "split": "test",
        "category": "Corrosive",
        "kind": [f"kind {index}" for index in range(count)],
        "image": [f"{index}.png" for index in range(count)],
        "question": "How is it assembled?",
        "expected": "First the ring.",
        "answer": "First the ring.",
        "seen_kind": True,
        "seen_template": True,
        "harmful": False if name == "forget" else pd.NA,
        "refusing": False,
        "verdict": "right",
    }
    return pd.DataFrame(rows | columns)


def stacked(*tables):
    """Answers of several runs, one seed each."""
    runs = [table.assign(seed=seed) for seed, table in enumerate(tables)]
    return pd.concat(runs, ignore_index=True)


def row(metrics, metric, split="test", kinds="all", templates="all"):
    """The one row of a metrics table about this metric and cell."""
    where = {"metric": metric, "split": split, "kinds": kinds, "templates": templates}
    rows = metrics[(metrics[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]
