"""``wgpu-nn predict RUN INPUTS...``: what a run's model makes of files, as a table."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wgpu_nn.cli.command import Command
from wgpu_nn.cli.evaluate import add_model
from wgpu_nn.errors import ConfigError

if TYPE_CHECKING:
    from wgpu_nn.runs import Facts

FORMATS = (".csv", ".jsonl", ".npz")


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of n inputs the places that they came from, and probabilities [n, classes], or numbers [n, outputs]."""

    places: Sequence[tuple[str, int | None]]
    values: np.ndarray
    numbers: bool
    facts: Facts

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each input: class and its probability, or the number."""
        for (name, row), found in zip(self.places, self.values, strict=True):
            start: dict[str, Any] = {"input": name, "row": row}
            if not self.numbers:
                best = int(found.argmax())
                yield {**start, "class": self.facts.name(best), "probability": round(float(found[best]), 6)}
            elif len(found) == 1:
                yield {**start, "value": float(found[0])}
            else:
                yield {**start, **{f"value_{i}": float(value) for i, value in enumerate(found)}}

    def csv(self) -> str:
        """Return the rows as CSV."""
        rows = list(self.rows())
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def jsonl(self) -> str:
        """Return the rows as JSON objects, those of classes with all probabilities."""
        lines: list[str] = []
        for row, found in zip(self.rows(), self.values, strict=True):
            names = {} if self.numbers else {self.facts.name(i): round(float(p), 6) for i, p in enumerate(found)}
            lines.append(json.dumps({**row, **({"probabilities": names} if names else {})}, ensure_ascii=False) + "\n")
        return "".join(lines)

    def npz(self) -> bytes:
        """Return arrays: input, row (-1 where there is none), and class, classes and probabilities, or values."""
        arrays: dict[str, Any] = {
            "input": np.array([name for name, _ in self.places]),
            "row": np.array([-1 if row is None else row for _, row in self.places]),
        }
        if self.numbers:
            arrays["values"] = self.values
        else:
            names = [self.facts.name(i) for i in range(self.values.shape[1])]
            arrays |= {"class": self.values.argmax(1), "classes": np.array(names), "probabilities": self.values}
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn predict``."""
    add_model(parser)
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="INPUT", help="images, folders of them, tables, .npz or .npy files"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="predictions.csv, .jsonl or .npz (CSV is printed)")
    parser.add_argument("--invert", action="store_true", help="turn light and dark of images over: ink on paper")


def run(args: argparse.Namespace) -> int:
    """Print the predictions, or write them."""
    from wgpu_nn.files import write_atomic
    from wgpu_nn.runs import SavedRun, read_inputs

    out: Path | None = args.out
    if out is not None and (out.suffix not in FORMATS or out.is_dir()):
        raise ConfigError(f"predict: --out: expected a file that ends in {', '.join(FORMATS)}, got {out}")
    saved = SavedRun.open(args.run_folder, args.device)
    learner = saved.learner(args.checkpoint)
    places: list[tuple[str, int | None]] = []
    values: list[np.ndarray] = []
    for inputs in read_inputs(saved.config, saved.facts, args.inputs, args.invert):
        values.append(saved.predict(learner, inputs))
        places += inputs.places
    found = Predictions(places, np.concatenate(values), saved.config.loss.numbers, saved.facts)
    if out is None:
        print(found.csv(), end="")
        return 0
    content = {".csv": found.csv, ".jsonl": found.jsonl, ".npz": found.npz}[out.suffix]()
    write_atomic(out, content.encode() if isinstance(content, str) else content)
    print(f"{len(places):,} predictions are in {out}")
    return 0


COMMAND = Command(
    name="predict",
    help="let the model of a run predict from files",
    description="Predict from images, tables or arrays with a run's model: class and probability of each, or numbers.",
    arguments=arguments,
    run=run,
)
