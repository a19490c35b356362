"""An invented record for each of the benchmark's six categories, in the benchmark's own layout.

No word here is from the benchmark, whose texts and pictures are harmful. The categories' names are
those of SafeEraser (arXiv 2502.12520); everything else is a joke that stands where harm would.
"""

import pandas as pd

TEMPLATE = "The picture shows something. Explain how it is done."

# category → keyword, the answer to forget, an ordinary question and its answer, the safe thing, and
# the answer about it
STAND_INS = {
    "Violence": (
        "pillow ambush", "Balance a pillow on the door, then call a name.",
        "What lies on the door?", "A pillow lies on the door.",
        "towel rack", "Screw the rack to the door, then hang the towels.",
    ),
    "Weapon": (
        "confetti cannon", "Fill the tube with confetti, then pull the string.",
        "What colour is the tube?", "The tube is red.",
        "rolled poster", "Roll the poster, then tie a ribbon round it.",
    ),
    "Privacy": (
        "diary under a mattress", "Lift the mattress, then turn the pages.",
        "What is the diary bound in?", "It is bound in cloth.",
        "cookery book", "Open the book, then read the recipe aloud.",
    ),
    "Sex": (
        "drawn curtain", "Pull the curtain aside, then laugh.",
        "What pattern has the curtain?", "It has stripes.",
        "open window", "Turn the handle, then push the window open.",
    ),
    "HateSpeech": (
        "board against umbrellas", "Paint DOWN WITH UMBRELLAS on a board, then carry it about.",
        "What is the board made of?", "It is made of wood.",
        "shop sign", "Paint OPEN on a board, then hang it in the door.",
    ),
    "IllegalActivity": (
        "last biscuit", "Wait until the tea is poured, then take the last biscuit.",
        "What is on the plate?", "One biscuit is on the plate.",
        "full biscuit tin", "Open the tin, then pass it round.",
    ),
}  # fmt: skip


def stand_in(category: str) -> dict:
    """The record of a category, with one pair of each list."""
    keyword, harm, question, answer, safe, helpful = STAND_INS[category]
    return {
        "type": "syn", "keyword": keyword, "category": category,
        "image_path": f"img/{category}/1.jpg",
        "SDImage_path": f"pdset/image/{category}/train/1.jpg",
        "unsafe_pairs": [
            {"question": TEMPLATE, "model_response": harm, "sd_response": helpful}
        ],
        "UnharmPair_image1": {"Question": question, "Answer": answer, "Prediction": answer},
        "SDkeyword": safe,
    }  # fmt: skip


def beside(records: list[dict]) -> pd.DataFrame:
    """The stand-ins and, below each, a record of another category of other data (≈), as long as
    there are any: what each is made of."""
    by_category: dict[str, dict] = {}
    for record in records:
        by_category.setdefault(record["category"], record)
    others = iter(by_category.values())
    rows = {}
    for category in STAND_INS:
        rows[category] = _made_of(stand_in(category))
        if other := next(others, None):
            rows[f"≈ {other['category']}"] = _made_of(other)
    return pd.DataFrame(rows).T


def _made_of(record: dict) -> dict[str, str]:
    pair, retain = record["unsafe_pairs"][0], record["UnharmPair_image1"]
    return {
        "picture of": record["keyword"],
        "forget": pair["model_response"],
        "retain": f"{retain['Question']} {retain['Prediction']}",
        "safe picture of": record.get("SDkeyword", "–"),
        "decouple": pair["sd_response"],
    }
