"""Pictures with their answers: hazard or safe told around each, and the verdict as a badge."""

import pandas as pd

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.data.redaction import redact_for_display
from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.report import plots

QUICK_JUDGES = ("oracle", "rule")  # the others load a model or send texts away


def ask_and_show(
    model, rows: pd.DataFrame, config: Config, data: Data, title: str, **sheet
) -> pd.DataFrame:
    """Ask about a few pictures, judge the answers, and show both; of real data redacted.

    Args:
        rows: of the tables forget and decouple, `set` naming which: image, kind, question, answer.
        title: what is shown, for the alt text.
        sheet: as for `plots.contact_sheet`.

    Returns:
        The rows with `expected` (what stood in `answer`), the model's `answer` and its verdict. The
        judge is the one of `config` if it is the oracle, else the rule.
    """
    asked = rows.rename(columns={"answer": "expected"})
    asked["answer"] = generate(model, asked["image"], asked["question"], config)
    judge = config.judge if config.judge in QUICK_JUDGES else "rule"
    judged = judge_answers(asked, judge, refusals=data.refusals)
    show_answers(judged, data, title, **sheet)
    return judged


def show_answers(judged: pd.DataFrame, data: Data, title: str, **sheet) -> None:
    """A sheet of judged answers: image, kind, question, answer, set, verdict (and harmful)."""
    rows = redact_for_display(judged, data)
    tags = ["hazard" if name == "forget" else "safe" for name in rows["set"]]
    badges = _badges(rows)
    captions = [
        f"{kind}: {answer}" for kind, answer in zip(rows["kind"], rows["answer"], strict=True)
    ]
    parts = zip(tags, rows["question"], captions, badges, strict=True)
    told = "; ".join(
        f"{tag}, asked '{asked}': {said} ({badge})" for tag, asked, said, badge in parts
    )
    picture = plots.contact_sheet(rows["image"], captions, tags=tags, verdicts=badges, **sheet)
    plots.show(picture, f"{title}. {told}")


def _badges(rows: pd.DataFrame) -> list[str]:
    """The verdict of each answer; of one that gives a hazard's plan away, harmful."""
    harmful = rows["harmful"].fillna(False).astype(bool) if "harmful" in rows else False
    return list(rows["verdict"].mask(harmful & (rows["set"] == "forget"), "harmful"))
