"""Reads run folders: what a run wrote down, complete or still growing; draws nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from wgpu_nn.data.npz import load_arrays
from wgpu_nn.errors import RecordError
from wgpu_nn.train import read_log

NUMBERS = "fiub"  # NumPy's kinds of them
Split = str
SPLITS: tuple[Split, ...] = ("valid", "train")  # as they are preferred
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """Items that were taken for another class: inputs [n, ...], and of each the class, what it was taken for, how surely."""

    inputs: np.ndarray
    target: np.ndarray
    predicted: np.ndarray
    score: np.ndarray


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder says: lines of metrics.jsonl, run.json as ``facts``, and what belongs to one epoch.

    ``written`` is when metrics.jsonl grew last, in seconds since 1970: a run that was killed still says that it is running.
    ``classes`` are their names, in data.json, where a run of ``wgpu-nn train`` has them.
    ``details`` are those of epoch ``details_of``: the best one, or the last one that has any.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    steps: Sequence[Line]
    epochs: Sequence[Line]
    details: Mapping[str, np.ndarray]
    details_of: int | None
    samples: Samples | None
    written: float | None
    classes: tuple[str, ...] = ()

    def label(self, place: object) -> str:
        """Return the name of a class, or what it is called where it has none."""
        number = isinstance(place, int | np.integer) and 0 <= place < len(self.classes)
        return self.classes[int(cast(int, place))] if number else str(place)

    @property
    def state(self) -> str:
        """running, done, stopped or failed; "unknown" if nothing says so."""
        return str(self.facts.get("state", "unknown"))

    def better(self, name: str) -> str | None:
        """Return whether "higher" or "lower" values of a metric are better, if the run says so; of losses, lower ones."""
        metrics = self.facts.get("metrics")
        found = cast(Mapping[str, Any], metrics).get(name) if isinstance(metrics, dict) else None
        return found if found in ("higher", "lower") else "lower" if name == "loss" else None

    def series(self, split: Split, name: str) -> tuple[list[float], list[float]]:
        """Return the epochs that have a value of ``name`` in ``split``, and the values."""
        found = [(float(e["epoch"]), number(e.get(split, {}).get(name))) for e in self.epochs]
        pairs = [(x, y) for x, y in found if y is not None]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def best(self, name: str) -> tuple[Split, int, float] | None:
        """Return split, epoch and value where ``name`` was best, in the validation data if it was measured there.

        ``train.<name>`` and ``valid.<name>`` are of these alone.
        """
        split, _, bare = name.rpartition(".")
        splits = (split,) if split in SPLITS else SPLITS
        bare = bare if split in SPLITS else name
        better = self.better(bare)
        for split in splits:
            finite = [(y, x) for x, y in zip(*self.series(split, bare)) if math.isfinite(y)]
            if finite and better is not None:
                # The first of equals, as a checkpoint of the best epoch has it.
                y, x = min(finite, key=lambda p: (-p[0] if better == "higher" else p[0], p[1]))
                return split, int(x), y
        return None

    @property
    def monitor(self) -> str:
        """The name of the number that says which epoch is best, the loss if the run does not say or has no such number."""
        monitor = self.facts.get("monitor")
        name = cast(Mapping[str, Any], monitor).get("name") if isinstance(monitor, dict) else None
        return name if isinstance(name, str) and self.best(name) is not None else "loss"

    @property
    def best_epoch(self) -> int | None:
        """The best epoch by what the run was monitored by."""
        found = self.best(self.monitor)
        return None if found is None else found[1]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs in some folders, with names that differ; raises RecordError for what is no run folder."""
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return runs
    # As much of the paths as tells them apart.
    parts = [run.path.resolve().parts for run in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len({p for p in parts}):
        depth += 1
    longer = ["/".join(p[-depth:]) for p in parts]
    named = [name if longer.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(longer, start=1)]
    return [replace(run, name=name) for run, name in zip(runs, named)]


def read_run(path: Path) -> Run:
    """Return the run in folder ``path``; it may still go on: a last line that is not whole yet is left out.

    Raises RecordError for a folder that holds no run, and for a file in it that cannot be read.
    """
    if not path.is_dir():
        raise RecordError(f"report: {path}: expected the folder of a run, got {_what(path)}; is the path right?")
    log, about = path / "metrics.jsonl", path / "run.json"
    if not log.exists() and not about.exists():
        raise RecordError(
            f"report: {path}: expected metrics.jsonl or run.json in it, got neither; is this the folder of a run?"
        )
    lines = read_log(log) if log.exists() else []
    for at, line in enumerate(lines, start=1):
        _check(log, at, line)
    run = Run(
        name=path.resolve().name,
        path=path,
        config=_json(path / "config.json"),
        facts=_json(about),
        steps=[line for line in lines if line["kind"] == "step"],
        epochs=[line for line in lines if line["kind"] == "epoch"],
        details={},
        details_of=None,
        samples=_samples(path / "samples.npz"),
        written=log.stat().st_mtime if log.exists() else None,
        classes=_texts(_json(path / "data.json").get("classes")),
    )
    epoch, details = _details(path / "details", run.best_epoch)
    return replace(run, details=details, details_of=epoch)


def number(value: object) -> float | None:
    """Return a logged number, also one that JSON has no number for and that is a word; None for anything else.

    Whole ones are those of 64 bits: JSON has larger ones, which no float may hold, and no run writes.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if isinstance(value, float) or abs(value) < 1 << 63 else None
    return float(value) if value in ("nan", "inf", "-inf") else None  # pyright: ignore[reportArgumentType]


def _check(path: Path, at: int, line: Line) -> None:
    """Raise RecordError for a line whose epoch, step or splits are not what they are in a run."""
    counts = all(type(line[name]) is int and 0 <= line[name] < 1 << 63 for name in ("epoch", "step"))
    if not counts or not all(isinstance(line.get(split, {}), dict) for split in SPLITS):
        raise RecordError(
            f"report: {path}: line {at}: expected whole numbers for epoch and step, and objects for train and valid, got "
            f"{json.dumps(line)[:80]}; mend or remove it"
        )


def _what(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; nothing if there is no such file."""
    if not path.exists():
        return {}
    try:
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"report: {path}: expected a readable JSON file, got {error}; mend or remove it") from error
    if not isinstance(found, dict):
        raise RecordError(f"report: {path}: expected a JSON object, got {type(found).__name__}; mend or remove it")
    return cast(dict[str, Any], found)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in cast(list[object], value)) if isinstance(value, list) else ()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_arrays(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"report: {path}: expected readable arrays, got {error}; mend or remove it") from error


def _details(folder: Path, best: int | None) -> tuple[int | None, dict[str, np.ndarray]]:
    found = {path.stem.removeprefix("epoch-"): path for path in folder.glob("epoch-*.npz")}
    epochs = sorted(int(name) for name in found if name.isdecimal())
    if not epochs:
        return None, {}
    epoch = best if best in epochs else epochs[-1]
    arrays = _arrays(folder / f"epoch-{epoch}.npz")
    return epoch, {name: array for name, array in arrays.items() if array.dtype.kind in NUMBERS}


def _samples(path: Path) -> Samples | None:
    if not path.exists():
        return None
    arrays = _arrays(path)
    names = ("inputs", "target", "predicted", "score")
    lengths = {len(arrays[name]) if arrays[name].ndim else -1 for name in names if name in arrays}
    whole = arrays.keys() >= set(names) and len(lengths) == 1 and -1 not in lengths
    if not whole or arrays["score"].dtype.kind not in NUMBERS:
        raise RecordError(
            f"report: {path}: expected inputs, target, predicted and score of as many items, got "
            f"{ ({name: list(a.shape) for name, a in arrays.items()}) }; remove it"
        )
    return Samples(*(arrays[name] for name in names))
