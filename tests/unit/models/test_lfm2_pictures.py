"""A picture of LFM2-VL keeps its shape, within the bounds of its tokens."""

import pytest

from safeerase_lite.models.lfm2_pictures import size_in_tokens

SIDE, LEAST, MOST = 32, 64, 256  # of the published models


@pytest.mark.parametrize("height, width", [(8, 8), (48, 48), (336, 336), (480, 640), (3000, 200)])
def test_sides_are_whole_tokens_and_their_number_is_within_the_bounds(height, width):
    tall, wide = size_in_tokens(height, width, SIDE, LEAST, MOST)
    assert tall % SIDE == wide % SIDE == 0
    assert LEAST <= tall * wide / SIDE**2 <= MOST


@pytest.mark.parametrize("height, width", [(336, 336), (448, 512), (320, 448)])
def test_a_picture_within_the_bounds_is_brought_to_the_nearest_size(height, width):
    tall, wide = size_in_tokens(height, width, SIDE, LEAST, MOST)
    assert abs(tall - height) <= SIDE / 2 and abs(wide - width) <= SIDE / 2


def test_a_large_picture_keeps_its_shape():
    tall, wide = size_in_tokens(3000, 1500, SIDE, LEAST, MOST)
    assert tall / wide == pytest.approx(2, rel=0.1)
