"""Random numbers of data: permutations, weighted draws, generators of an item; which data they choose from, others know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wgpu_nn.errors import DataError

__all__ = ["Sampler", "WeightedSampler", "drawn", "item_generator", "shuffled"]


@runtime_checkable
class Sampler(Protocol):
    """Which items a DataLoader reads in an epoch, in which order."""

    def __len__(self) -> int:
        """Return how many items an epoch has."""
        ...

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of ``epoch``, int64 ``[len(self)]``: a function of the epoch alone."""
        ...


def _words(n: int, seed: int, *more: int) -> np.ndarray:
    """Return n random words of 64 bits that depend on nothing but the arguments; the integers are not negative.

    NOTE: raw Philox words and seed sequences are promised to stay as they are (NEP 19), a Generator's methods are not.
    """
    if min(seed, *more, 0) < 0:
        raise DataError(f"shuffle: expected a seed that is not negative, got {[seed, *more]}; use its absolute value")
    # NOTE: not SeedSequence([seed, *more]), to which (2**32, 0) and (0, 1), or (5,) and (5, 0), are the same.
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=more)).random_raw(n)


def shuffled(n: int, seed: int, *more: int) -> np.ndarray:
    """Return a permutation of 0 .. n-1 that depends on nothing but its arguments; the integers are not negative."""
    return np.argsort(_words(n, seed, *more), kind="stable")


def drawn(weights: Sequence[float] | np.ndarray, n: int, replace: bool, seed: int, *more: int) -> np.ndarray:
    """Draw n of the indices of ``weights`` with probabilities in proportion to them: int64 [n].

    Without replacement one after the other, as in Efraimidis and Spirakis (2006). Raises DataError for weights that are
    negative, not finite, or all 0, and for more draws than there are items of weight.
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 1 or not len(w) or not np.isfinite(w).all() or w.min() < 0 or w.max() == 0:
        raise DataError(
            f"weights: expected a list of finite numbers, none negative and not all 0, got shape {list(w.shape)}"
            f"{f', {w.min()} .. {w.max()}' if w.size else ''}; one for each item"
        )
    if n < 1 or (not replace and n > np.count_nonzero(w)):
        raise DataError(
            f"weights: expected to draw 1 to {np.count_nonzero(w)} items without replacement, got {n}; "
            "draw fewer, or with replacement"
        )
    if replace:
        uniform = (_words(n, seed, *more) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        ends = np.cumsum(w)
        last = np.flatnonzero(w)[-1]  # rounding must not reach an item of no weight
        return np.minimum(np.searchsorted(ends, uniform * ends[-1], side="right"), last)
    uniform = ((_words(len(w), seed, *more) >> np.uint64(11)) + 1) * 2.0**-53  # in (0, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = np.where(w > 0, np.log(uniform) / w, -np.inf)
    return np.argsort(-keys, kind="stable")[:n]


class WeightedSampler:
    """Draws ``n`` items an epoch with probabilities in proportion to ``weights``, anew in each epoch.

    ``WeightedSampler.balanced(labels, seed=0)`` draws all classes equally often. Raises DataError as ``drawn`` does.
    """

    __slots__ = ("n", "replace", "seed", "weights")

    def __init__(
        self, weights: Sequence[float] | np.ndarray, seed: int, n: int | None = None, replace: bool = True
    ) -> None:
        self.weights = np.asarray(weights, np.float64)
        self.seed, self.replace = seed, replace
        self.n = len(self.weights) if n is None else n
        drawn(self.weights, self.n, replace, seed)  # what cannot be drawn is refused here

    @classmethod
    def balanced(cls, labels: Sequence[int] | np.ndarray, seed: int, n: int | None = None) -> WeightedSampler:
        """Weigh each item by 1 / the number of items of its class, and draw with replacement."""
        _, places, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        return cls(1.0 / counts[places], seed, n)

    def __len__(self) -> int:
        return self.n

    def order(self, epoch: int) -> np.ndarray:
        """Return the draws of ``epoch``."""
        return drawn(self.weights, self.n, self.replace, self.seed, epoch)


def item_generator(seed: int, epoch: int, item: int) -> np.random.Generator:
    """Return the generator for what is random about an item in an epoch, whoever reads it, and in whatever order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, item))))
