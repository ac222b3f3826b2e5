"""Images of one's own: a folder for each class, decoded by worker threads, augmented on the GPU.

python examples/image_folder/train.py                 draws a folder of shapes, and learns it
python examples/image_folder/train.py photos          learns yours: photos/cat/1.jpg, photos/dog/2.png, ...

The shapes that it draws by itself differ in size, place, turn and colour, under uneven light and noise.
Augmentation is a module like others: it works on whole batches, where they are, and rests in validation.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wgpu_nn import Config, Device, Module, Tensor
from wgpu_nn.data import DataLoader, ImageFolder, cached
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import Accuracy
from wgpu_nn.nn import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    BatchNorm,
    BatchNormConfig,
    Conv2d,
    Conv2dConfig,
    CrossEntropyLossConfig,
    Linear,
    LinearConfig,
    RandomFlip,
    RandomFlipConfig,
    ReLU,
)
from wgpu_nn.optim import AdamConfig, CosineSchedule
from wgpu_nn.report import canvas
from wgpu_nn.train import Learner, progress

SIZE, FINE = 32, 4  # pixels of an image's side; drawn FINE times as large, and reduced
CORNERS = {"triangle": (3, 1.0), "square": (4, 1.0), "pentagon": (5, 1.0), "star": (10, 0.42), "cross": (12, 0.0)}


def outline(name: str, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape of radius 1 around 0, turned by ``turn`` radians."""
    n, inner = CORNERS[name]
    if name == "cross":
        a = 0.32
        points = [
            (a, 1),
            (a, a),
            (1, a),
            (1, -a),
            (a, -a),
            (a, -1),
            (-a, -1),
            (-a, -a),
            (-1, -a),
            (-1, a),
            (-a, a),
            (-a, 1),
        ]
        found = [complex(x, y) for x, y in points]
    else:
        radii = [1.0 if k % 2 == 0 or inner == 1.0 else inner for k in range(n)]
        found = [r * complex(math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)) for k, r in enumerate(radii)]
    spun = [p * complex(math.cos(turn), math.sin(turn)) for p in found]
    return [(p.real, p.imag) for p in spun]


def draw_shapes(folder: Path, n: int, seed: int) -> None:
    """Write ``n`` PNG files of each shape to a folder of its name."""
    rng = np.random.default_rng(seed)
    side = SIZE * FINE
    for name in CORNERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            back, ink = rng.integers(0, 110, 3), rng.integers(140, 256, 3)
            image = Image.new("RGB", (side, side), tuple(int(c) for c in back))
            radius, turn = rng.uniform(0.26, 0.42) * side, rng.uniform(0, 2 * math.pi)
            x, y = rng.uniform(radius * 0.9, side - radius * 0.9, 2)
            corners = [(x + radius * px, y + radius * py) for px, py in outline(name, turn)]
            ImageDraw.Draw(image).polygon(corners, fill=tuple(int(c) for c in ink))
            pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64)
            above, below = rng.uniform(-25, 25, 2)
            light = np.linspace(above, below, SIZE)[:, None, None]
            pixels = pixels + light + rng.normal(0, 12, pixels.shape)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{i:04}.png")


class Model(Module):
    flips: list[RandomFlip]
    convs: list[Conv2d]
    norms: list[BatchNorm]
    pool: AdaptiveAvgPool2d
    linear: Linear
    activation: ReLU

    def forward(self, images: Tensor[4]) -> Tensor[2]:
        """[batch, 3, height, width] in 0..1 -> [batch, classes]."""
        x = images * 2.0 - 1.0
        for flip in self.flips:
            x = flip.forward(x)
        for conv, norm in zip(self.convs, self.norms):
            x = self.activation.forward(norm.forward(conv.forward(x)))
        return self.linear.forward(self.pool.forward(x).flatten(1))


class ModelConfig(Config):
    classes: int
    channels: int = 16

    def init(self, device: Device) -> Model:
        c = self.channels
        widths = (3, c, 2 * c, 4 * c)
        return Model(
            flips=[RandomFlipConfig(vertical=vertical).init() for vertical in (False, True)],
            convs=[
                Conv2dConfig([a, b], [3, 3]).with_stride([2, 2]).with_padding([1, 1]).init(device)
                for a, b in pairwise(widths)
            ],
            norms=[BatchNormConfig(b).init(device) for b in widths[1:]],
            pool=AdaptiveAvgPool2dConfig([2, 2]).init(),
            linear=LinearConfig(4 * c * 4, self.classes).init(device),
            activation=ReLU(),
        )


def train(args: argparse.Namespace) -> None:
    folder = args.folder
    if folder is None:
        folder = args.out / "shapes"
        draw_shapes(folder, 32 if args.short else 400, seed=1)
    images = ImageFolder(folder, size=(SIZE, SIZE), skip_bad=True)
    print(f"{folder}: {len(images)} images of {', '.join(images.classes)}; {images.skipped} cannot be read")
    part, test = images.split(0.8, stratify=True, seed=1)
    train_data = DataLoader(cached(part), 64, shuffle=True, seed=1, workers=2)
    test_data = DataLoader(cached(test), 200, shuffle=False, seed=0, workers=2)

    device = Device()
    device.seed(1)
    epochs = 2 if args.short else 14
    model = ModelConfig(len(images.classes)).init(device.autodiff())
    rate = CosineSchedule(5e-3, steps=epochs * len(train_data))
    loss = CrossEntropyLossConfig(smoothing=0.05).init()
    learner = Learner(model, AdamConfig().init(), loss, [Accuracy()], schedule=rate, monitor="accuracy")
    learner.fit(train_data, test_data, epochs, show=progress())
    print(f"test: {learner.evaluate(test_data)['accuracy']:.1%} right")
    draw(args.out / "picture.png", test, learner.predict(test_data), images.classes)


def draw(path: Path, test: ImageFolder, scores: np.ndarray, classes: tuple[str, ...]) -> None:
    """Draw test images with what the model takes them for, first those that it gets wrong."""
    guesses, labels = scores.argmax(1), test.labels
    wrong = np.flatnonzero(guesses != labels)
    right = np.random.default_rng(0).permutation(np.flatnonzero(guesses == labels))
    shown = np.concatenate([wrong[:6], right])[:18]
    pixels = test[shown][0]
    with canvas(path, (9, 3.2), f"{(guesses == labels).mean():.1%} of {len(labels)} test images are right") as page:
        for axes in page.subplots(2, 9).flat:
            axes.set_axis_off()
        for axes, i, image in zip(page.axes, shown, pixels):
            axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
            good = guesses[i] == labels[i]
            text = classes[guesses[i]] if good else f"{classes[guesses[i]]}\n({classes[labels[i]]})"
            axes.set_title(text, loc="center", fontsize=9, fontweight="normal", color="#1f2430" if good else "#dc2626")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn a folder of images, a folder for each class.")
    parser.add_argument("folder", type=Path, nargs="?", help="a folder of your own; shapes are drawn otherwise")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer images and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/image_folder"), help="folder of shapes and picture")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        train(arguments())
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
