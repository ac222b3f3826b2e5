"""Metrics over an epoch: statistics joined on the device by the step itself, and read now and then; metrics know them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from wgpu_nn.backends.base import Pending
from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.metrics import Metric, measure
from wgpu_nn.tensor import Cell, Device, Tensor, cat, read_later, tensor, zeros

Statistics = tuple[tuple[Tensor, ...], ...]
"""What a step returns of each metric that is joined by concatenation."""


class Totals:
    """The statistics of ``metrics`` over the batches since ``clear``.

    Those that are summed are added up in cells, which a captured step has as state. Those that are joined by
    concatenation come out of the step, and the loop keeps them batch by batch: on the device, until they are read.
    """

    def __init__(self, metrics: Sequence[Metric], device: Device) -> None:
        self._metrics = list(metrics)
        self._summed = [m for m in metrics if m.joins == "sum"]
        self._joined = [m for m in metrics if m.joins == "concat"]
        self._device = device
        self._cells: dict[str, list[Cell]] = {}
        self._kept: list[Statistics] = []
        self._coming: dict[str, Pending] = {}
        self._last: dict[str, float] = {}
        self._empty = True

    def cells(self) -> list[Cell]:
        """Return the cells of sums."""
        return [cell for cells in self._cells.values() for cell in cells]

    def add(self, outputs: Tensor | None, targets: Tensor | None) -> Statistics:
        """Add a batch to the sums, and return what ``keep`` must be given once the step is done; reads nothing."""
        if not self._metrics:
            return ()
        if outputs is None or targets is None:
            raise TrainingError(
                "metrics: expected a step whose Output has outputs and targets, got one without; "
                "give the Output both, or leave the metrics out"
            )
        for metric in self._summed:
            found = metric.statistics(outputs, targets)
            cells = self._cells.get(metric.name)
            if cells is None:
                with self._device.untraced():  # a captured step must find them as state
                    cells = [Cell(self._zeros(t)) for t in found]
                self._cells[metric.name] = cells
            for cell, t in zip(cells, found, strict=True):
                cell.value = cell.value + t
        return tuple(metric.statistics(outputs, targets) for metric in self._joined)

    def keep(self, found: Statistics) -> None:
        """Note that a batch was measured, and keep what ``add`` returned of it."""
        self._empty = False
        if self._joined:
            self._kept.append(found)

    def clear(self) -> None:
        """Forget all batches."""
        for cell in self.cells():
            cell.value = self._zeros(cell.tensor)
        self._kept.clear()
        self._coming.clear()
        self._last = {}
        self._empty = True

    def _zeros(self, like: Tensor) -> Tensor:
        """Return zeros of a tensor's shape and kind, of full precision where the tensor is in halves."""
        return zeros(like.shape, self._device, like.kind, dtype=self._device.backend.dtypes[like.kind])

    # --- values ------------------------------------------------------------------------------------------------------
    def ask(self) -> None:
        """Begin to read the sums as they are now."""
        if not self._empty:
            self._coming = self.later()

    def values(self) -> dict[str, float]:
        """Return the values of the summed metrics as the last reads have them, without a wait."""
        if self._coming and all(p.ready() for p in self._coming.values()):
            coming, self._coming = self._coming, {}
            for metric in self._summed:
                parts = [coming[f"{metric.name}/{i}"].result() for i in range(len(self._cells[metric.name]))]
                self._last[metric.name] = float(metric.value(*parts))
        return dict(self._last)

    def measure(self) -> tuple[dict[str, float], dict[str, np.ndarray | float]]:
        """Return value and details of every metric over all batches; waits for the device.

        Details are named ``<metric>.<detail>``. Values are NaN, and there are no details, over nothing.
        """
        values: dict[str, float] = {}
        details: dict[str, np.ndarray | float] = {}
        columns = {m.name: list(zip(*(batch[i] for batch in self._kept))) for i, m in enumerate(self._joined)}
        joined = {name: [c[0] if len(c) == 1 else cat(c) for c in parts] for name, parts in columns.items()}
        for metric in self._metrics:
            if self._empty:
                values[metric.name] = math.nan
                continue
            given = joined.get(metric.name) or [cell.value for cell in self._cells[metric.name]]
            found = measure(metric, *given)
            values[metric.name] = found.value
            details |= {f"{metric.name}.{key}": value for key, value in found.details.items()}
        return values, details

    # --- files -------------------------------------------------------------------------------------------------------
    def later(self) -> dict[str, Pending]:
        """Begin to read the sums, as ``<metric>/<number>`` in a checkpoint."""
        return read_later({f"{name}/{i}": c.value for name, cells in self._cells.items() for i, c in enumerate(cells)})

    def load(self, arrays: Mapping[str, np.ndarray], empty: bool) -> None:
        """Replace the sums by those of a checkpoint; raises RecordError, and changes nothing, for other metrics'."""
        names = [m.name for m in self._summed]
        found: dict[str, dict[int, np.ndarray]] = {}
        for key, array in arrays.items():
            name, _, number = key.rpartition("/")
            found.setdefault(name, {})[int(number)] = array
        if found and sorted(found) != sorted(names):
            raise RecordError(
                f"resume: expected the metrics {sorted(names)}, got a checkpoint of {sorted(found)}; "
                "resume with the metrics that the run was started with"
            )
        self.clear()
        for name, parts in found.items():
            ordered = [tensor(parts[i], self._device) for i in sorted(parts)]
            cells = self._cells.get(name)
            if cells is None:
                self._cells[name] = [Cell(t) for t in ordered]
            else:
                for cell, t in zip(cells, ordered, strict=True):
                    cell.value = t
        self._empty = empty
