"""A variational autoencoder of handwritten digits (Kingma and Welling 2013): a step of one's own, and data without targets.

python examples/vae/train.py

The encoder gives a normal distribution over codes of 12 numbers, the decoder makes a digit of a code. The loss is what
the decoder gets wrong, plus how far the codes are from N(0, 1): so that a code drawn from N(0, 1) becomes a digit too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor, randn, tensor
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.nn import Gelu, Linear, LinearConfig
from wgpu_nn.optim import AdamConfig, CosineSchedule
from wgpu_nn.report import canvas
from wgpu_nn.train import Batch, Learner, Output, progress

DIGITS = Path(__file__).parents[1] / "mnist" / "mnist10k.npz"
PIXELS = 28 * 28


class Vae(Module):
    encoder: Linear
    to_code: Linear
    decoder: Linear
    to_pixels: Linear
    activation: Gelu

    def encode(self, images: Tensor[2]) -> tuple[Tensor, Tensor]:
        """[batch, pixels] -> twice [batch, code]: mean and logarithm of the variance of the code."""
        both = self.to_code.forward(self.activation.forward(self.encoder.forward(images)))
        code = both.shape[1] // 2
        return both.narrow(1, 0, code), both.narrow(1, code, code)

    def decode(self, codes: Tensor[2]) -> Tensor[2]:
        """[batch, code] -> [batch, pixels]: logits of each pixel being white."""
        return self.to_pixels.forward(self.activation.forward(self.decoder.forward(codes)))

    def forward(self, images: Tensor[2]) -> Tensor[2]:
        """[batch, pixels] -> [batch, pixels]: the images again, from the means of their codes, in 0..1."""
        return self.decode(self.encode(images)[0]).sigmoid()


class VaeConfig(Config):
    code: int = 12
    hidden: int = 256

    def init(self, device: Device) -> Vae:
        return Vae(
            encoder=LinearConfig(PIXELS, self.hidden).init(device),
            to_code=LinearConfig(self.hidden, 2 * self.code).init(device),
            decoder=LinearConfig(self.code, self.hidden).init(device),
            to_pixels=LinearConfig(self.hidden, PIXELS).init(device),
            activation=Gelu(),
        )


def step(model: Module, batch: Batch) -> Output:
    """The negative evidence lower bound, in nats an image; the same in training and validation."""
    model = cast(Vae, model)
    (images,) = cast("tuple[Tensor, ...]", batch)
    mean, log_variance = model.encode(images)
    codes = mean + (log_variance * 0.5).exp() * randn(mean.shape, mean.device)
    logits = model.decode(codes)
    reconstruction = (logits.softplus() - logits * images).sum(1).mean()
    divergence = (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1).mean() * 0.5
    return Output(reconstruction + divergence, values={"reconstruction": reconstruction, "divergence": divergence})


def train(args: argparse.Namespace) -> None:
    digits, epochs = (512, 10) if args.short else (9000, 15)
    (x, _), (x_test, _) = load_mnist(DIGITS)
    flat, flat_test = ((a.reshape(-1, PIXELS) / 255).astype(np.float32) for a in (x[:digits], x_test))
    train_data = DataLoader(ArrayDataset(flat), 128, shuffle=True, seed=1)
    test_data = DataLoader(ArrayDataset(flat_test), 250, shuffle=False, seed=0)

    device = Device()
    device.seed(1)  # weights and noise
    model = VaeConfig().init(device.autodiff())
    steps = epochs * len(train_data)
    rate = CosineSchedule(3e-3, steps=steps, warmup=steps // 20)
    learner = Learner(model, AdamConfig().init(), step=step, schedule=rate)
    learner.fit(train_data, test_data, epochs, show=progress())
    measured = learner.evaluate(test_data)
    print(f"test: {measured['loss']:.1f} nats an image, {measured['divergence']:.1f} of them in the code")

    rng = np.random.default_rng(3)
    drawn = rng.standard_normal((4 * 14, VaeConfig().code))
    samples = model.valid().decode(tensor(drawn, device)).sigmoid().numpy()
    draw(args.out / "picture.png", flat_test[:14], learner.predict(flat_test[:14]), samples)


def draw(path: Path, images: np.ndarray, again: np.ndarray, samples: np.ndarray) -> None:
    """Draw test digits, what became of them, and digits that nobody wrote."""
    with canvas(path, (9, 4.6)) as page:
        above, below = page.subfigures(2, 1, height_ratios=(2.7, 4.6))
        for part, title, rows in (
            (above, "Test digits, and what is left of them in 12 numbers", np.concatenate([images, again])),
            (below, "Digits that nobody wrote: codes drawn from N(0, 1)", samples),
        ):
            part.suptitle(title, x=0.012, ha="left", fontweight="bold")
            for axes, image in zip(part.subplots(len(rows) // 14, 14).flat, rows):
                axes.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
                axes.set_axis_off()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a variational autoencoder on handwritten digits.")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/vae"), help="folder of the picture")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
