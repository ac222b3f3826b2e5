"""What steps measure, kept on their device: scalars step by step, and metrics over the epoch; reads both rarely."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wgpu_nn.metrics import Metric
from wgpu_nn.tensor import Cell, Device
from wgpu_nn.train.step import Output
from wgpu_nn.train.totals import Statistics, Totals
from wgpu_nn.train.window import Steps, Window


class Ledger:
    """A window of step values and the totals of metrics, put down by the step and read together."""

    def __init__(self, metrics: Sequence[Metric], device: Device) -> None:
        self.window, self.totals = Window(device), Totals(metrics, device)

    def cells(self) -> list[Cell]:
        """Return what ``put`` replaces: the state of a captured step that calls it."""
        return self.window.cells() + self.totals.cells()

    def put(self, out: Output) -> Statistics:
        """Put down what a step made of a batch; ``note`` must follow, with what comes back."""
        self.window.put({"loss": out.loss.reshape([]), **{k: t.reshape([]) for k, t in out.values.items()}})
        return self.totals.add(out.outputs, out.targets)

    def note(self, found: Statistics, items: int, lr: float = math.nan) -> Steps:
        """Say what the step returned and how many items it had; return the steps whose numbers have come, see Window."""
        window, asked = self.window, self.window.asked
        self.totals.keep(found)
        steps = window.note(items, lr)
        if window.asked != asked:
            self.totals.ask()
        return steps

    def read(self) -> Steps:
        """Return all steps that were not returned yet; waits for the device."""
        return self.window.read()

    def clear(self) -> None:
        """Forget everything, as before the first step."""
        self.window.clear()
        self.totals.clear()
