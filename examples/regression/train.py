"""Regression that knows how sure it is: a network gives a mean and a variance, and its intervals are checked.

python examples/regression/train.py

The power that a wind turbine gives at a wind speed, in generated data: nothing below 3 m/s, then the cube of the speed,
then what it is rated for. How much it scatters depends on the wind as well, and a network that gives a mean alone cannot
say so. The loss is the negative log-likelihood of a normal distribution, a function of our own; `Coverage` is a metric of
our own.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import Better, Metric, ratio
from wgpu_nn.nn import Gelu, Linear, LinearConfig
from wgpu_nn.optim import AdamConfig, CosineSchedule
from wgpu_nn.report import canvas
from wgpu_nn.train import Learner, progress

LEVELS = np.linspace(0.05, 0.95, 19)


def wind_farm(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return wind speeds [n, 1] in m/s, and powers [n] in MW."""
    rng = np.random.default_rng(seed)
    speed = np.clip(rng.weibull(2.0, n) * 9.0, 0.0, 22.0)
    x = np.clip((speed - 3) / 9, 0, 1)
    scatter = 0.015 + 0.45 * x * (1 - x)
    return speed[:, None].astype(np.float32), (2 * x**3 + rng.normal(0, scatter)).astype(np.float32)


class Forecast(Module):
    """What the power may be: a normal distribution."""

    first: Linear
    second: Linear
    last: Linear
    activation: Gelu

    def forward(self, speed: Tensor[2]) -> Tensor[2]:
        """[batch, 1] -> [batch, 2]: mean, and the logarithm of the variance."""
        x = self.activation.forward(self.first.forward(speed / 11.0 - 1.0))
        x = self.activation.forward(self.second.forward(x))
        # Far from 0 the exponential of the second would make the first steps wild.
        return self.last.forward(x).clamp(-12.0, 12.0)


class ForecastConfig(Config):
    hidden: int = 48

    def init(self, device: Device) -> Forecast:
        sizes = (1, self.hidden, self.hidden, 2)
        first, second, last = (LinearConfig(a, b).init(device) for a, b in pairwise(sizes))
        return Forecast(first=first, second=second, last=last, activation=Gelu())


def negative_log_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
    """0.5 (log σ² + (y - μ)² / σ²), the mean over the batch, less the constant 0.5 log 2π."""
    mean, log_variance = outputs[:, 0], outputs[:, 1]
    return ((targets - mean).square() * (-log_variance).exp() + log_variance).mean() * 0.5


@dataclass(frozen=True, slots=True)
class Coverage(Metric):
    """The share of targets within the central interval that should hold 90% of them."""

    name: str = "coverage-90"
    better: ClassVar[Better | None] = None  # 0.9 is right, more and less are wrong

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        z = (targets - outputs[:, 0]).abs() * (outputs[:, 1] * -0.5).exp()
        inside = z < NormalDist().inv_cdf(0.95)
        return inside.int().sum(), (z == z).int().sum()

    def value(self, *totals: np.ndarray) -> float:
        return float(ratio(*totals))


def train(args: argparse.Namespace) -> None:
    items, epochs = (1024, 3) if args.short else (8192, 30)
    train_set, test_set = ArrayDataset(*wind_farm(items, 1)), ArrayDataset(*wind_farm(2000, 2))
    train_data = DataLoader(train_set, 128, shuffle=True, seed=1)
    test_data = DataLoader(test_set, 500, shuffle=False, seed=0)

    device = Device()
    device.seed(1)
    model = ForecastConfig().init(device.autodiff())
    steps = epochs * len(train_data)
    rate = CosineSchedule(5e-3, steps=steps, warmup=steps // 20)
    learner = Learner(model, AdamConfig().init(), negative_log_likelihood, [Coverage()], schedule=rate)
    learner.fit(train_data, test_data, epochs, show=progress())
    measured = learner.evaluate(test_data)
    print(f"test: {measured['loss']:.4f} nats, {measured['coverage-90']:.1%} within the interval of 90%")
    draw(args.out / "picture.png", learner, *test_set.arrays)


def draw(path: Path, learner: Learner, speed: np.ndarray, power: np.ndarray) -> None:
    """Draw the bands over the data, and how often the intervals hold what they should."""
    x = np.linspace(0, 22, 200, dtype=np.float32)[:, None]
    curve, at_test = learner.predict(x), learner.predict(speed)
    with canvas(path, (11, 4.4), "What a wind turbine gives, and how sure that is") as page:
        left, right = page.subplots(1, 2, width_ratios=(2, 1))
        left.scatter(speed[:800, 0], power[:800], s=7, color="#8a8f98", alpha=0.6, linewidths=0, label="test data")
        mean, sigma = curve[:, 0], np.exp(curve[:, 1] / 2)
        for z, alpha, label in ((1.645, 0.16, "90%"), (0.674, 0.28, "50%")):
            left.fill_between(
                x[:, 0], mean - z * sigma, mean + z * sigma, color="#2563eb", alpha=alpha, linewidth=0, label=label
            )
        left.plot(x[:, 0], mean, label="mean")
        left.set(title="Mean and intervals", xlabel="wind speed, m/s", ylabel="power, MW", ylim=(-0.4, 2.7))
        left.legend(loc="upper left")

        z = np.abs(power - at_test[:, 0]) / np.exp(at_test[:, 1] / 2)
        found = [float((z < NormalDist().inv_cdf((1 + level) / 2)).mean()) for level in LEVELS]
        right.plot([0, 1], [0, 1], color="#8a8f98", linewidth=1.2, linestyle="--", label="as it should be")
        right.plot(LEVELS, found, marker="o", label="of 2,000 test data")
        right.set(title="Calibration", xlabel="interval of", ylabel="holds", xlim=(0, 1), ylim=(0, 1))
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_formatter(lambda share, _: f"{share:.0%}")
        right.legend(loc="upper left", fontsize=9)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network that gives a mean and a variance.")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer data and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/regression"), help="folder of the picture")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
