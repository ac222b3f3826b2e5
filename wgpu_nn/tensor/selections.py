"""Sorted, selected and counted elements: methods composed of sorts, scans and gathers; some read one number back."""

from __future__ import annotations

import abc
from typing import Self

import numpy as np

from wgpu_nn import shape as shapes
from wgpu_nn.dtype import Bool, Float, Int
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.tensor.composites import Composites

_LARGEST = 2**31 - 1  # of the Ints that GPUs have


class Selections(Composites):
    """What a Tensor can do with the order of its elements, and with those that it picks."""

    __slots__ = ()

    @abc.abstractmethod
    def numpy(self) -> np.ndarray:
        """The elements as a NumPy array."""

    # --- order -----------------------------------------------------------------------------------------------------
    def sort(self, dim: int = -1, descending: bool = False) -> tuple[Self, Self]:
        """The elements along ``dim`` in order, and the Int indices that they came from.

        Equal elements keep their order. NaN is larger than all numbers: last in an ascending order, as in NumPy, and
        first in a descending one, as in PyTorch. The gradient goes where the elements came from.
        """
        places = self.argsort(dim, descending)
        return self.gather(dim, places), places

    def topk(self, k: int, dim: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The first ``k`` of ``sort`` along ``dim``, the largest or the smallest ones, and their Int indices."""
        places = self.run("argtopk", self, axis=shapes.axis("topk", dim, self.rank), k=k, largest=largest)
        return self.gather(dim, places), places

    # --- elements that are picked: the size of the result depends on the elements, so it is read back ---------------
    def nonzero(self) -> Self:
        """[...] -> [count, rank] Int: the indices of all elements other than 0, in row-major order; NaN is one.

        Waits for the device, to read the count; a captured function cannot.
        """
        return self._places(self.shape)

    def masked_select(self, mask: Self) -> Self:
        """The elements where the Bool ``mask`` is true, of rank 1, in row-major order; shapes broadcast.

        Waits for the device, to read their number; a captured function cannot.
        """
        if mask.kind is not Bool:
            raise KindError(f"masked_select: expected a Bool mask, got {mask.kind}; compare it with something")
        shape = shapes.broadcast("masked_select", self.shape, mask.shape)
        x, picked = (y if y.shape == shape else y.expand(shape) for y in (self, mask))
        places = picked._places((picked.size,))
        return x._flat().gather(0, places.reshape(places.shape[0]))

    # --- counts ----------------------------------------------------------------------------------------------------
    def bincount(self, minlength: int = 0, length: int | None = None) -> Self:
        """[...] Int -> [n] Int: how often each of 0 .. n - 1 occurs, n being the largest element + 1 or ``minlength``.

        The largest element is read back. With ``length`` nothing is: n is that, and elements beyond it do not count.
        """
        if self.kind is not Int:
            raise KindError(f"bincount: expected an Int tensor, got {self.kind}; convert it with .int()")
        n = length
        if n is None:
            n = minlength
            if self.size:
                # One number says both: negative elements count as the largest of all Ints.
                most = int((self < 0).where(_LARGEST, self).max().numpy())
                if most == _LARGEST and (low := int(self.min().numpy())) < 0:
                    raise ShapeError(
                        f"bincount: expected elements of 0 or more, got {low}; give a length to leave it out"
                    )
                n = max(minlength, most + 1)
            return self._flat()._counts(n)
        # A place behind the last takes what is beyond; a negative one counts from the end.
        return self.maximum(-1).minimum(n)._flat()._counts(n + 1).narrow(0, 0, n)

    def histogram(self, bins: int, low: float, high: float) -> Self:
        """[...] -> [bins] Int: how many elements lie in each of ``bins`` equal parts of [low, high].

        Bin floor((x - low) bins / (high - low)) of the rounded quotient; ``high`` is in the last one. Others do not
        count, nor does NaN.
        """
        if bins < 1 or not low < high:
            raise ShapeError(f"histogram: expected bins of 1 or more and low < high, got {bins}, {low} and {high}")
        if self.kind is not Float:
            raise KindError(f"histogram: expected a Float tensor, got {self.kind}; convert it with .float()")
        x = self._flat()
        place = ((x - low) * (bins / (high - low))).floor().cast(self.run("arange", 0, 1, shape=(0,)).dtype)
        return ((x >= low) & (x <= high)).where(place.minimum(bins - 1), bins)._counts(bins + 1).narrow(0, 0, bins)

    def _flat(self) -> Self:
        return self if self.rank == 1 else self.reshape(self.size)

    def _places(self, shape: tuple[int, ...]) -> Self:
        """[count, len(shape)]: the indices of the elements other than 0, were they of ``shape``; waits for their number."""
        x = self._flat()
        tallies = self.run("tallies", x)
        slices = tallies.size
        count = int(tallies.narrow(0, slices - 1, 1).numpy()[0]) if slices else 0
        return self.run("places", x, tallies, shape=shape, count=count)

    def _counts(self, n: int) -> Self:
        """Return how often each of 0 .. n - 1 occurs in this Int tensor of rank 1, which has no others."""
        ones = self.run("full", 1, shape=(1,), dtype=self.dtype).expand(self.size)
        return self.run("full", 0, shape=(n,), dtype=self.dtype).scatter_add(0, self, ones)
