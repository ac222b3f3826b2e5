"""Metrics of decoded text: error rates, BLEU, ROUGE-L. They run on the host, as words are nothing that a device has."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from wgpu_nn.errors import ConfigError, DataError
from wgpu_nn.metrics.alignment import common_length, edit_distance
from wgpu_nn.metrics.base import Better, ratio
from wgpu_nn.tensor import Tensor

Tokens = str | Sequence[Hashable]  # text, or tokens that are compared as they are: Ints, words


class TextMetric(abc.ABC):
    """A number that says how good text is: counts of each pair of output and reference, added up.

    Outputs and references are str, or sequences of tokens (see ``token_lists`` for tensors). Text is split as the metric
    says: into characters, or words at white space; upper case and punctuation count.
    """

    __slots__ = ()

    name: str
    better: ClassVar[Better | None] = None

    @abc.abstractmethod
    def counts(self, output: Tokens, reference: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Return what one pair adds, [k]."""

    @abc.abstractmethod
    def value(self, total: np.ndarray) -> float:
        """Return the number, from the sum of the counts; NaN where there is none."""


class TextMeter:
    """Adds up a text metric over batches."""

    def __init__(self, metric: TextMetric) -> None:
        self.metric = metric
        self._total: np.ndarray | None = None

    def reset(self) -> None:
        """Forget all batches."""
        self._total = None

    def update(self, outputs: Sequence[Tokens], references: Sequence[Tokens | Sequence[Tokens]]) -> None:
        """Add a batch of decoded outputs, with a reference each; DataError where their numbers differ."""
        if isinstance(outputs, str) or isinstance(references, str) or len(outputs) != len(references):
            raise DataError(
                f"{self.metric.name}: expected a list of outputs and as many references, got {_many(outputs)} and "
                f"{_many(references)}"
            )
        for output, reference in zip(outputs, references):
            found = self.metric.counts(output, reference)
            self._total = found if self._total is None else self._total + found

    def value(self) -> float:
        """Return the metric over all pairs since the last ``reset``; NaN over none."""
        return math.nan if self._total is None else self.metric.value(self._total)


def token_lists(tokens: Tensor | np.ndarray, pad: int | None = None, end: int | None = None) -> list[list[int]]:
    """[batch, length] Int -> a list of tokens for each: up to the first ``end``, and without ``pad``. Reads the device."""
    found: list[list[int]] = []
    for row in np.asarray(tokens).tolist():
        stop = row.index(end) if end is not None and end in row else len(row)
        found.append([t for t in row[:stop] if t != pad])
    return found


@dataclass(frozen=True, slots=True)
class CER(TextMetric):
    """Character error rate: insertions, deletions and substitutions over the characters of the references.

    NaN without characters; above 1 where outputs are much too long. Tokens count as characters.
    """

    name: str = "cer"
    better: ClassVar[Better | None] = "lower"

    def counts(self, output: Tokens, reference: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Return the edits and the length of the reference."""
        expected = cast(Tokens, reference)
        return np.array([edit_distance(output, expected), len(expected)], np.int64)

    def value(self, total: np.ndarray) -> float:
        return float(ratio(total[0], total[1]))


@dataclass(frozen=True, slots=True)
class WER(TextMetric):
    """Word error rate: insertions, deletions and substitutions of words over the words of the references.

    NaN without words; above 1 where outputs are much too long.
    """

    name: str = "wer"
    better: ClassVar[Better | None] = "lower"

    def counts(self, output: Tokens, reference: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Return the edits and the length of the reference."""
        expected = _words(cast(Tokens, reference))
        return np.array([edit_distance(_words(output), expected), len(expected)], np.int64)

    def value(self, total: np.ndarray) -> float:
        return float(ratio(total[0], total[1]))


@dataclass(frozen=True, slots=True)
class BLEU(TextMetric):
    """The geometric mean of clipped precisions of 1 to ``n`` words, times the brevity penalty (Papineni et al. 2002).

    Of the whole corpus, 0 to 1, not smoothed: 0 if no run of ``n`` words matches. A reference may be a list of several. NaN
    over nothing. The name is "bleu-<n>" unless one is given.
    """

    n: int = 4
    name: str = ""
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"BLEU: expected n of 1 or more, got {self.n}")
        if not self.name:
            object.__setattr__(self, "name", f"bleu-{self.n}")

    def counts(self, output: Tokens, reference: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Return the lengths of output and nearest reference, and matches and runs of each length, [2 + 2 n]."""
        words, references = _words(output), [_words(r) for r in _several(output, reference)]
        if not references:
            raise DataError(f"{self.name}: expected at least one reference, got an empty list")
        nearest = min((abs(len(r) - len(words)), len(r)) for r in references)[1]
        found = [len(words), nearest]
        for length in range(1, self.n + 1):
            runs, most = _runs(words, length), Counter[tuple[Hashable, ...]]()
            for r in references:
                most |= _runs(r, length)
            found += [(runs & most).total(), runs.total()]
        return np.array(found, np.int64)

    def value(self, total: np.ndarray) -> float:
        length, reference, matches, runs = int(total[0]), int(total[1]), total[2::2], total[3::2]
        if not length or not matches.all():
            return 0.0 if reference or length else math.nan
        return math.exp(min(0.0, 1 - reference / length) + float(np.log(matches / runs).mean()))


@dataclass(frozen=True, slots=True)
class RougeL(TextMetric):
    """ROUGE-L: F-score of the longest common subsequence of words, the mean over pairs (Lin 2004).

    (1 + b²) P R / (R + b² P) with P the subsequence's share of the output and R that of the reference; 0 where they share
    nothing, as where one is empty. NaN over nothing.
    """

    beta: float = 1.0
    name: str = "rouge-l"
    better: ClassVar[Better | None] = "higher"

    def counts(self, output: Tokens, reference: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Return the score and 1."""
        x, y = _words(output), _words(cast(Tokens, reference))
        common, square = common_length(x, y), self.beta**2
        return np.array([(1 + square) * common / (square * len(y) + len(x)) if common else 0.0, 1.0])

    def value(self, total: np.ndarray) -> float:
        return float(ratio(total[0], total[1]))


def _words(tokens: Tokens) -> Sequence[Hashable]:
    return tokens.split() if isinstance(tokens, str) else tokens


def _several(output: Tokens, reference: Tokens | Sequence[Tokens]) -> Sequence[Tokens]:
    """Return the references of an output: a list of str beside a str, and of sequences beside a sequence, is several."""
    if isinstance(reference, str):
        return [reference]
    many = isinstance(output, str) or any(isinstance(t, list | tuple) for t in reference)
    return cast(Sequence[Tokens], reference) if many else [cast(Tokens, reference)]


def _runs(words: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _many(given: object) -> str:
    return "one str" if isinstance(given, str) else str(len(cast(Sequence[object], given)))
