"""RESULTS.md: a section for each benchmark, replaced when it is run again."""

import re
from importlib import metadata
from pathlib import Path

FILE = Path(__file__).with_name("RESULTS.md")
TITLE = "# Benchmarks\n\nWritten by the scripts beside this file, each a section.\n"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def write(name: str, text: str) -> None:
    """Put `text` under the heading `name`."""
    page = FILE.read_text(encoding="utf-8") if FILE.exists() else TITLE
    section = f"## {name}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: section + "\n", page)
    else:
        page = f"{page.rstrip()}\n\n{section}"
    FILE.write_text(page.rstrip() + "\n", encoding="utf-8")


def versions() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)


def markdown(rows: list[dict]) -> str:
    """A table; every row has the keys of the first."""
    lines = [list(rows[0]), ["---"] * len(rows[0])] + [list(row.values()) for row in rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
