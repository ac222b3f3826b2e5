"""``wgpu-nn bench learner``: what the Learner costs over a captured loop written by hand, with its dashboard on."""

from __future__ import annotations

import argparse
import io
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from wgpu_nn.bench import report
from wgpu_nn.bench.compare import positive
from wgpu_nn.bench.plot import Bar, Chart, Group
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.errors import missing_extra
from wgpu_nn.metrics import Accuracy, Metric
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train import Callback, DeviceDataset, EpochRecord, Learner, Session, capture
from wgpu_nn.train.learner import TOGETHER

CLASSES, HIDDEN, IMAGE, RATE = 10, 64, 28, 1e-3
HEADS = (("", "loop"), ("", "launches"), ("wall", "us/step"), ("", "launches/s"), ("", "over the bare one"))


@dataclass(slots=True)
class Loop:
    """A loop that was timed: its launches per step, and its seconds per step in each round."""

    title: str
    launches: float = 0.0
    rounds: list[float] = field(default_factory=list[float])

    @property
    def us(self) -> float:
        """Microseconds of a step, the median over the rounds."""
        return 1e6 * statistics.median(self.rounds)

    def over(self, other: Loop) -> float:
        """Return how much more time a step takes than the other's of the same turn: 0.05 is 5%, the median over turns."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds)) - 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn bench learner``."""
    parser.add_argument("--batch", type=positive, default=8, metavar="N", help="images of a step (8)")
    parser.add_argument("--steps", type=positive, default=100, metavar="N", help="steps of a round, an epoch (100)")
    parser.add_argument("--rounds", type=positive, default=9, metavar="N", help="rounds of each loop (9)")
    parser.add_argument("--device", default="wgpu", help="our device: wgpu, wgpu:<index or name> (the best adapter)")
    report.arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Time the bare loop and the Learner by turns, an epoch each, and report."""
    report.check_outputs(args)
    device = Device(args.device)
    rng = np.random.default_rng(0)
    count = args.batch * args.steps
    images = rng.random((count, IMAGE, IMAGE), dtype=np.float32)
    labels = rng.integers(0, CLASSES, count)
    loops: list[Loop] = []
    choices: list[tuple[str, list[Metric]]] = [("loss", []), ("loss and accuracy", [Accuracy()])]
    for title, metrics in choices:
        report.progress(f"bench learner: {title}, {args.rounds} rounds")
        loops += compared(device, images, labels, metrics, args.batch, args.rounds, title)
    rows = [
        {
            "loop": loop.title,
            "launches": loop.launches,
            "us_per_step": loop.us,
            "launches_per_s": loop.launches / loop.us * 1e6,
            "over_bare": loop.over(loops[n - n % 2]),
            "rounds_us": [1e6 * s for s in loop.rounds],
        }
        for n, loop in enumerate(loops)
    ]
    found = {
        "benchmark": "learner",
        "environment": report.environment(device),
        "settings": {"batch": args.batch, "steps": args.steps, "rounds": args.rounds, "hidden": HIDDEN},
        "rows": rows,
    }
    cells = [
        [
            row["loop"],
            *(report.count(row[k]) for k in ("launches", "us_per_step", "launches_per_s")),
            _over(row["over_bare"]),
        ]
        for row in rows
    ]
    adapter = found["environment"]["adapter"]["name"]
    about = f"training epochs of {args.steps} steps of {args.batch} images, on {adapter}"
    lines = [
        about,
        "",
        *report.table(HEADS, cells),
        "",
        "each pair does the same work but for what the Learner measures and shows; medians over turns",
    ]
    markdown = [*report.markdown([" ".join(h).strip() for h in HEADS], cells), "", about]
    chart = Chart(
        about,
        "steps a second: longer is better",
        [Group("", [Bar(r["loop"], 1e6 / r["us_per_step"], False) for r in rows])],
    )
    report.deliver(args, found, lines, markdown, lambda: chart)
    return 0


def compared(
    device: Device, images: np.ndarray, labels: np.ndarray, metrics: list[Metric], batch: int, rounds: int, title: str
) -> list[Loop]:
    """Return the bare loop and the Learner's over the same data, timed epoch by epoch in turn; the first turn warms up."""
    bare, ours = Loop(f"bare, {title}"), Loop(f"Learner, {title}")
    epoch = bare_epoch(device, images, labels, metrics, batch)

    class Turns(Callback):
        since = 0.0  # when the Learner went on: all that it does from then on is its own, the dashboard's drawing too

        def on_epoch(self, session: Session, record: EpochRecord) -> None:
            steps = len(images) // batch
            before, begun = device.gpu.counts.launches, time.perf_counter()
            epoch(record.epoch)
            done, launches = time.perf_counter(), device.gpu.counts.launches - before
            if record.epoch > 1:
                bare.rounds.append((done - begun) / steps)
                ours.rounds.append((begun - self.since) / steps)
                bare.launches, ours.launches = launches / steps, record.launches_per_step or 0.0
            self.since = time.perf_counter()

    learner = Learner(
        ModelConfig(CLASSES, HIDDEN).init(device.autodiff()),
        AdamConfig(lr=RATE).init(),
        CrossEntropyLossConfig().init(),
        metrics,
        callbacks=[Turns()],
    )
    data = DataLoader(ArrayDataset(images, labels), batch, shuffle=True, seed=0)
    learner.fit(data, epochs=rounds + 1, show=_dashboard())
    return [bare, ours]


def bare_epoch(device: Device, images: np.ndarray, labels: np.ndarray, metrics: list[Metric], batch: int) -> Any:
    """Return a function that trains for an epoch, and waits for its end, as one writes it by hand."""
    above = device.autodiff()
    model, optimizer = ModelConfig(CLASSES, HIDDEN).init(above), AdamConfig(lr=RATE).init()
    loss = CrossEntropyLossConfig().init()
    data = DeviceDataset(images, labels, device=above)
    order = DataLoader(ArrayDataset(images, labels), batch, shuffle=True, seed=0).order

    @capture(state=[model, optimizer], calls_per_submit=TOGETHER)
    def step(rows: Tensor) -> list[Tensor]:
        x, y = data.batch(rows)
        logits = model.forward(x)
        cost = loss.forward(logits, y)
        optimizer.step(model, cost.backward())
        measured = [t for m in metrics for t in m.statistics(logits.inner(), y.inner())]
        return [cost.inner(), *measured]

    def epoch(number: int) -> None:
        rows = order(number).astype(np.int32)
        last: list[Tensor] = []
        for k in range(len(images) // batch):
            last = step(cast(Any, rows[k * batch : (k + 1) * batch]))  # inside it is a tensor
        for t in last:
            t.numpy()

    return epoch


def _dashboard() -> Any:
    try:
        from rich.console import Console

        from wgpu_nn.train.dashboard import Dashboard
    except ImportError as error:
        raise missing_extra("bench learner", "rich", "train") from error
    screen = io.StringIO()
    return Dashboard(screen, Console(file=screen, force_terminal=True, width=100, height=40))


def _over(share: float) -> str:
    return f"{share:+.1%}" if share else report.NONE
