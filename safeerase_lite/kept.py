"""Tensors computed once and kept, on the CPU's memory and no more of it than allowed."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Kept:
    """Tensors by key, up to a number of bytes; what came first stays.

    Questions come in shuffled epochs: of a set twice as large as the room, half is found again. To
    let the oldest go instead would find next to nothing.
    """

    def __init__(self, room: int):
        self.room = room
        self.tensors: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, computed where it is not kept; on the CPU, without a gradient."""
        if key in self.tensors:
            return self.tensors[key]
        with torch.inference_mode(False), torch.no_grad():
            found = compute().cpu()
        if found.nbytes <= self.room:
            self.room -= found.nbytes
            self.tensors[key] = found
        return found
