"""The pictures of LFM2-VL by Pillow. transformers has them by torchvision alone.

A picture is one view of its own shape: its sides are multiples of what a token covers, and it takes
a bounded number of tokens. transformers cuts larger ones into tiles besides.
"""

import math

from transformers import Lfm2VlConfig
from transformers.image_utils import SizeDict
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorKwargs,
    Siglip2ImageProcessorPil,
)


class Settings(Siglip2ImageProcessorKwargs, total=False):
    """What a published LFM2-VL says of its pictures, and is used here.

    encoder_patch_size: pixels.  downsample_factor: patches of a token's side.
    min_image_tokens, max_image_tokens: of a picture.
    """

    encoder_patch_size: int
    downsample_factor: int
    min_image_tokens: int
    max_image_tokens: int
    do_image_splitting: bool
    use_thumbnail: bool
    tile_size: int
    return_row_col_info: bool


class Lfm2VlImageProcessor(Siglip2ImageProcessorPil):
    """Found by its name, which is in the processor's file."""

    valid_kwargs = Settings
    encoder_patch_size = 16
    downsample_factor = 2
    min_image_tokens, max_image_tokens = 64, 256
    do_image_splitting = use_thumbnail = False
    tile_size = 512  # of tiles, which there are none of

    def _preprocess(self, images, **settings):
        side = settings["encoder_patch_size"] * settings["downsample_factor"]
        least, most = settings["min_image_tokens"], settings["max_image_tokens"]
        sizes = [size_in_tokens(*image.shape[-2:], side, least, most) for image in images]
        images = [
            self.resize(image, SizeDict(height, width), resample=settings["resample"])
            for image, (height, width) in zip(images, sizes, strict=True)
        ]
        patches = {
            "do_resize": False,
            "patch_size": settings["encoder_patch_size"],
            "max_num_patches": most * settings["downsample_factor"] ** 2,
        }
        made = super()._preprocess(images, **(settings | patches))
        one = [1] * len(images)
        made.update({"image_rows": one, "image_cols": one, "image_sizes": sizes})
        return made


def size_in_tokens(height: int, width: int, side: int, least: int, most: int) -> tuple[int, int]:
    """The size in pixels to which a picture is brought: (height, width), multiples of a token's
    `side`, nearest to its own, and as many tokens as the bounds allow."""
    tall, wide = (max(side, round(length / side) * side) for length in (height, width))
    if tall * wide > most * side**2:
        scale, whole = math.sqrt(most * side**2 / (height * width)), math.floor
    elif tall * wide < least * side**2:
        scale, whole = math.sqrt(least * side**2 / (height * width)), math.ceil
    else:
        return tall, wide
    tall, wide = (max(side, whole(length * scale / side) * side) for length in (height, width))
    return tall, wide


# `AutoImageProcessor.register` would also want the class that needs torchvision.
IMAGE_PROCESSOR_MAPPING.register(Lfm2VlConfig, {"pil": Lfm2VlImageProcessor}, exist_ok=True)
