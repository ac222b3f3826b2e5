"""Trains the small CNN of wgpu_nn.models on handwritten digits.

python examples/mnist/train.py                   the 10,000 digits beside this file, on the best adapter
python examples/mnist/train.py --resume          goes on where Ctrl-C stopped it
python examples/mnist/train.py --full            all 70,000 digits of MNIST, downloaded once
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import figure
import numpy as np
from pydantic import Field

from wgpu_nn import Config, Device, switches, tensor
from wgpu_nn.data import ArrayDataset, DataLoader, Digits, fetch_mnist, load_mnist, mapped
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.metrics import Accuracy
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig, ExponentialSchedule
from wgpu_nn.train import Learner, holds_run, progress, read_log

DIGITS = Path(__file__).with_name("mnist10k.npz")


class Recipe(Config):
    """What makes up a run: all that is needed to repeat it, and to rebuild its model."""

    model: ModelConfig = ModelConfig(num_classes=10, hidden_size=512)
    optimizer: AdamConfig = AdamConfig(lr=1e-3)
    batch_size: int = Field(default=64, gt=0)
    decay: float = Field(default=1.0, gt=0.0)  # of the learning rate, from each epoch to the next
    seed: int = Field(default=1, ge=0)
    data: str = DIGITS.name  # or "full", or a path
    limit: int | None = Field(default=None, gt=0)
    mean: float = 0.1307  # of MNIST's pixels, black being 0 and white 1
    deviation: float = Field(default=0.3081, gt=0.0)

    def standardise(self, images: np.ndarray) -> np.ndarray:
        """Return pixels in 0..1 as the model wants them: of mean 0 and deviation 1."""
        return ((images - self.mean) / self.deviation).astype(np.float32)


def train(args: argparse.Namespace) -> int:
    switches.capture.on = not args.eager
    device = Device(args.device)
    recipe = chosen(args)
    (x, y), (x_test, y_test) = digits(recipe, args.full)

    def prepared(items: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        images, targets = items
        return recipe.standardise(images / 255), targets

    train_set, test_set = (mapped(ArrayDataset(*part), prepared) for part in ((x, y), (x_test, y_test)))
    device.seed(recipe.seed)  # weights and dropout
    model = recipe.model.init(device.autodiff())
    rate = ExponentialSchedule(recipe.optimizer.lr, recipe.decay)
    loss, metrics = CrossEntropyLossConfig().init(), [Accuracy()]
    optim = recipe.optimizer.init()
    learner = Learner(model, optim, loss, metrics, monitor="accuracy", schedule=rate, schedule_by="epoch")
    train_data = DataLoader(train_set, recipe.batch_size, shuffle=True, seed=recipe.seed)
    test_data = DataLoader(test_set, 250, shuffle=False, seed=0)
    adapter = "CPU, through NumPy" if args.device.startswith(("numpy", "cpu")) else device.gpu.adapter
    print(f"device: {adapter}\ndata: {len(x):,} digits to train, {len(x_test):,} to test\n{model}\n", flush=True)

    done = is_done(args, recipe)
    if done:
        print(f"{args.out} holds this very run; --overwrite trains it again")
    result = learner.fit(
        train_data,
        test_data,
        args.epochs,
        run=args.out,
        config=recipe,
        resume=args.resume or done,
        overwrite=args.overwrite,
        show=progress(),
    )

    if result.best is not None:
        scores = model.valid().forward(tensor(recipe.standardise(x_test[:1000] / 255), device))
        figure.draw(args.out / "figure.png", result.history, x_test[:1000], y_test[:1000], scores.softmax(1).numpy())
        print(f"best: {result.best.valid['accuracy']:.2%} on the test digits, after epoch {result.best.epoch}")
    if result.interrupted:
        instead = " in place of --overwrite" if args.overwrite else ""
        print(f"stopped and saved at step {result.step}; to go on, give the same command with --resume{instead}")
        return 130  # what shells expect after Ctrl-C
    print(f"model, config, metrics and figure are in {args.out}")
    return 0


def chosen(args: argparse.Namespace) -> Recipe:
    """Return the recipe of the run to resume, or the default one, with what the command line says otherwise."""
    saved = args.out / "config.json"
    recipe = Recipe.load(saved) if args.resume and saved.exists() else Recipe()
    if args.lr is not None:
        recipe = recipe.with_optimizer(recipe.optimizer.with_lr(args.lr))
    data = "full" if args.full is not None else args.data
    if data == "full":  # an epoch of 60,000 digits is long enough for the rate to fall after it
        recipe = recipe.with_decay(0.7)
    given = {"batch_size": args.batch_size, "seed": args.seed, "limit": args.limit, "data": data}
    for name, value in given.items():
        if value is not None:
            recipe = getattr(recipe, f"with_{name}")(value)
    return recipe


def digits(recipe: Recipe, cache: str | None) -> Digits:
    """Return the digits that the recipe names: images uint8 [n, 28, 28] and labels, to train and to test."""
    if recipe.data == "full":
        found = fetch_mnist(cache or None)
    else:
        found = load_mnist(DIGITS if recipe.data == DIGITS.name else recipe.data)
    (x, y), (x_test, y_test) = found
    n = recipe.limit
    return (x[:n], y[:n]), (x_test[:n], y_test[:n])


def is_done(args: argparse.Namespace, recipe: Recipe) -> bool:
    """Say whether the folder holds what this command would train."""
    if args.overwrite or not holds_run(args.out) or Recipe.load(args.out / "config.json") != recipe:
        return False
    lines = read_log(args.out / "metrics.jsonl")
    return bool(lines) and lines[-1]["kind"] == "epoch" and lines[-1]["epoch"] == args.epochs


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CNN on handwritten digits.")
    add = parser.add_argument
    add("--epochs", type=int, default=10, metavar="N", help="passes over the training digits (10)")
    add("--batch-size", type=int, metavar="N", help="digits per step (64)")
    add("--lr", type=float, metavar="RATE", help="learning rate of Adam in the first epoch (0.001)")
    add("--seed", type=int, metavar="N", help="of weights, dropout and order (1)")
    add("--limit", type=int, metavar="N", help="use the first N digits only, of each set")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH", help="folder of IDX files or .npz file; Fashion-MNIST's will do")
    source.add_argument(
        "--full", nargs="?", const="", metavar="FOLDER", help="all 70,000 digits, downloaded once (to FOLDER)"
    )
    add("--device", default="wgpu", metavar="NAME", help="wgpu (best adapter), wgpu:<index or name>, numpy")
    add("--eager", action="store_true", help="run op by op, instead of replaying one captured step")
    add("--out", type=Path, default=Path("runs/mnist"), metavar="FOLDER", help="of the run (runs/mnist)")
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("--resume", action="store_true", help="go on with the run in that folder, with its settings")
    keep.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(train(arguments()))
    except WgpuNNError as error:
        sys.exit(f"train: {error}")
