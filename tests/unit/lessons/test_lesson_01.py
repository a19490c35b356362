"""What lesson 01 defines in its own cells is what bitsandbytes and the package do."""

from pathlib import Path

import bitsandbytes.functional as bnb
import nbformat
import pytest
import torch

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "01_load_quantized_llava.ipynb"
CLOSE = {"atol": 1e-6, "rtol": 0}  # float32: levels differ by 2e-7, times weights up to 5


@pytest.fixture(scope="module")
def lesson():
    """The names that the lesson's defining cell brings, by running that cell alone."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    [source] = [c.source for c in cells if c.cell_type == "code" and "def nf4(" in c.source]
    names = {}
    exec(source, names)
    return names


@pytest.fixture(params=range(5))
def weight(request):
    """Weights of several sizes and scales, one of them with outliers."""
    generator = torch.Generator().manual_seed(request.param)
    weight = torch.randn(16, 1024, generator=generator) * 10.0**-request.param
    if request.param == 4:
        weight[::7, 3] *= 50
    return weight


def test_its_levels_are_those_of_bitsandbytes(lesson):
    assert torch.allclose(lesson["nf4_levels"](), bnb.get_4bit_type("nf4", device="cpu"), **CLOSE)


@pytest.mark.parametrize("block", [64, 128, 1024])
def test_its_nf4_restores_what_bitsandbytes_restores(lesson, weight, block):
    levels = lesson["nf4_levels"]()
    codes, scale = lesson["nf4"](weight, levels, block)
    ours = lesson["restored"](codes, scale, levels, weight.shape)
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4", blocksize=block)
    assert torch.allclose(ours, bnb.dequantize_4bit(packed, state), **CLOSE)
    assert torch.equal(scale.flatten(), state.absmax)


def test_its_codes_are_those_that_bitsandbytes_packs(lesson, weight):
    codes, _ = lesson["nf4"](weight, lesson["nf4_levels"]())
    packed = bnb.quantize_4bit(weight, quant_type="nf4", blocksize=64)[0].flatten()
    assert torch.equal(codes.flatten(), torch.stack([packed >> 4, packed & 15], 1).flatten())


def test_its_nf4_errs_less_than_equal_steps_on_normal_weights(lesson):
    weight = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))

    def error(levels):
        codes, scale = lesson["nf4"](weight, levels)
        return (weight - lesson["restored"](codes, scale, levels, weight.shape)).norm()

    assert error(lesson["nf4_levels"]()) < error(torch.linspace(-1, 1, 16))
