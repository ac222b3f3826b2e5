"""Trains on the GPU and measures on the CPU: the backend is a matter of the device, and may change while a run goes on.

python examples/cpu_metrics/train.py

A classifier of digits is asked one question: is this an 8? One digit in ten is, so that the accuracy says little, and
AUROC and average precision, which need every score at once, say more. `valid_device` lets them be computed by NumPy; the
same metrics are then computed on the GPU as well, and the two must agree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor, tensor
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import AUROC, AveragePrecision, Meter, Metric
from wgpu_nn.nn import Conv2d, Conv2dConfig, Linear, LinearConfig, ReLU
from wgpu_nn.optim import AdamConfig
from wgpu_nn.report import canvas
from wgpu_nn.train import Callback, EpochRecord, Learner, Session, progress

DIGITS = Path(__file__).parents[1] / "mnist" / "mnist10k.npz"
ASKED = 8


class Detector(Module):
    conv: Conv2d
    linear: Linear
    activation: ReLU

    def forward(self, images: Tensor[3]) -> Tensor[1]:
        """[batch, 28, 28] -> [batch]: the logit of the digit being the one that is asked for."""
        x = self.activation.forward(self.conv.forward(images.unsqueeze(1)))
        return self.linear.forward(x.flatten(1)).squeeze(1)


class DetectorConfig(Config):
    channels: int = 8

    def init(self, device: Device) -> Detector:
        conv = Conv2dConfig([1, self.channels], [5, 5]).with_stride([2, 2]).init(device)
        return Detector(conv=conv, linear=LinearConfig(self.channels * 144, 1).init(device), activation=ReLU())


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log of the probability of each target, the mean over the batch."""
    return (logits.softplus() - logits * targets.float()).mean()


class OnGpu(Callback):
    """Measures the same metrics on the GPU after each epoch, with a Meter, as a loop of one's own does."""

    def __init__(self, metrics: list[Metric], images: Tensor, targets: Tensor) -> None:
        self.meters = [Meter(metric) for metric in metrics]
        self.images, self.targets = images, targets
        self.found: list[list[float]] = []

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        scores = session.model.valid().forward(self.images)  # pyright: ignore[reportAttributeAccessIssue]
        for meter in self.meters:
            meter.reset()
            meter.update(scores, self.targets)
        self.found.append([meter.value() for meter in self.meters])


def train(args: argparse.Namespace) -> None:
    digits, epochs = (640, 2) if args.short else (8960, 8)
    (x, y), (x_test, y_test) = load_mnist(DIGITS)
    train_set = ArrayDataset((x[:digits] / 255).astype(np.float32), (y[:digits] == ASKED).astype(np.int32))
    test_set = ArrayDataset((x_test / 255).astype(np.float32), (y_test == ASKED).astype(np.int32))
    train_data = DataLoader(train_set, 64, shuffle=True, seed=1)
    test_data = DataLoader(test_set, 250, shuffle=False, seed=0)

    gpu, cpu = Device(), Device("numpy")
    gpu.seed(1)
    model = DetectorConfig().init(gpu.autodiff())
    metrics: list[Metric] = [AUROC(), AveragePrecision()]
    beside = OnGpu(metrics, tensor(test_set.arrays[0], gpu), tensor(test_set.labels, gpu))
    learner = Learner(
        model, AdamConfig().init(), binary_cross_entropy, metrics, valid_device=cpu, callbacks=[beside], monitor="auroc"
    )
    history = learner.fit(train_data, test_data, epochs, show=progress()).history

    names = [metric.name for metric in metrics]
    on_cpu = np.array([[record.valid[name] for name in names] for record in history])
    on_gpu = np.array(beside.found)
    print(f"test: AUROC {on_cpu[-1, 0]:.4f}, average precision {on_cpu[-1, 1]:.4f}")
    print(f"CPU and GPU differ by {np.abs(on_cpu - on_gpu).max():.1e} at most")
    draw(args.out / "picture.png", on_cpu, on_gpu, test_set.labels, learner.predict(test_data))


def draw(path: Path, on_cpu: np.ndarray, on_gpu: np.ndarray, targets: np.ndarray, scores: np.ndarray) -> None:
    """Draw the metrics of both devices by epoch, and how far apart the two kinds of digits are in the end."""
    with canvas(path, (11, 4.2), f"Is it an {ASKED}? Trained on the GPU, measured on the CPU") as page:
        left, right = page.subplots(1, 2)
        epochs = np.arange(1, len(on_cpu) + 1)
        for k, name in enumerate(("AUROC", "average precision")):
            (line,) = left.plot(epochs, on_cpu[:, k], label=f"{name}, NumPy")
            left.plot(epochs, on_gpu[:, k], "o", markersize=9, mfc="none", color=line.get_color(), label=f"{name}, GPU")
        left.set(title="Test digits, by epoch", xlabel="epoch", xticks=epochs)
        left.legend(loc="lower right")
        bins = np.linspace(scores.min(), scores.max(), 40)
        for asked, label in ((0, "other digits"), (1, f"an {ASKED}")):
            right.hist(scores[targets == asked], bins, alpha=0.7, density=True, label=label)
        right.set(title="Their scores after training", xlabel="logit", yticks=[])
        right.legend(loc="upper left")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on the GPU, and measure on the CPU.")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/cpu_metrics"), help="folder of the picture")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
