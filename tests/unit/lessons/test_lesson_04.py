"""The objectives that lessons 00 and 04 define in their own cells are the package's, to 1e-6."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F

from safeerase_lite.unlearning.objectives import (
    OBJECTIVES,
    Answers,
    Batch,
    LossWeights,
    decoupled,
    nll,
)

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
# The lessons write some sums in another order: float32 rounds each at 1e-7 of its size.
CLOSE = {"atol": 1e-6, "rtol": 1e-6}
DERIVED = ("ga", "gd", "kl", "gd_bounded", "kl_bounded", "po", "npo", "npo_rt")
GROUPS = ("forget", "refuse", "retain", "decouple")
CAP = 4.0  # nats per token: some answers of `batch` are less likely, some are not


def defined(notebook: str, *names: str) -> dict:
    """The functions of these names, as a notebook's cells define them."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    nodes = [node for c in cells if c.cell_type == "code" for node in ast.parse(c.source).body]
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name in names]
    assert {node.name for node in functions} == set(names)
    namespace = {"F": F, "torch": torch, "nll": nll, "CAP": CAP}
    exec(compile(ast.Module(functions, []), notebook, "exec"), namespace)
    return namespace


@pytest.fixture(params=range(5))
def batch(request):
    """Five answers to each group, of ragged lengths, and what a reference predicts for them."""
    generator = torch.Generator().manual_seed(request.param)
    groups, reference = {}, {}
    for n, name in enumerate(GROUPS):
        labels = torch.randint(40, (5, 7), generator=generator)
        labels[n % 5, : 1 + n] = -100
        groups[name] = Answers(torch.randn(5, 7, 40, generator=generator), labels)
        reference[name] = Answers(torch.randn(5, 7, 40, generator=generator), labels)
    return Batch(**groups, reference=Batch(**reference))


@pytest.mark.parametrize("name", DERIVED)
def test_an_objective_of_lesson_04_is_the_packages(name, batch):
    wanted = {"L", "with_pd", "log_p", "bounded", "kl", "npo", name}
    lesson = defined("04_objectives_compared.ipynb", *wanted)
    x, w = batch, LossWeights(decouple=0.7, cap=CAP)
    formula = OBJECTIVES[name].formula
    torch.testing.assert_close(lesson[name](x), formula(x, w), **CLOSE)
    with_pd = lesson["with_pd"](lesson[name], 0.7)(x)
    torch.testing.assert_close(with_pd, decoupled(formula, x, w), **CLOSE)


def test_po_with_pd_of_lesson_00_is_the_packages(batch):
    lesson, x = defined("00_quickstart.ipynb", "po_with_pd"), batch
    packaged = decoupled(OBJECTIVES["po"].formula, x, LossWeights(decouple=0.7))
    torch.testing.assert_close(lesson["po_with_pd"](x, 0.7), packaged, **CLOSE)
