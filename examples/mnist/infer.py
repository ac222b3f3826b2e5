"""Classifies image files with the model that train.py has saved.

python examples/mnist/infer.py digit.png photo.jpg --resize --invert
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from train import Recipe

from wgpu_nn import Device, tensor
from wgpu_nn.data import read_digit
from wgpu_nn.errors import DataError, WgpuNNError
from wgpu_nn.record import load_module


def infer(args: argparse.Namespace) -> int:
    device = Device(args.device)
    recipe = Recipe.load(args.model / "config.json")
    model = recipe.model.init(device)
    load_module(model, args.model / "model.safetensors")

    images: dict[str, np.ndarray] = {}
    for path in args.images:
        try:
            images[path] = read_digit(path, resize=args.resize, invert=args.invert)
        except DataError as error:
            print(f"infer: {error}", file=sys.stderr)
    if images:
        batch = recipe.standardise(np.stack(list(images.values())))
        probabilities = model.forward(tensor(batch, device)).softmax(1).numpy()
        for path, row in zip(images, probabilities, strict=True):
            print(f"{path}: {row.argmax()}  {row.max():.1%}")
    return 0 if len(images) == len(set(args.images)) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Say which digit is on each image.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="28 x 28 pixels, the digit white on black")
    parser.add_argument("--resize", action="store_true", help="take images of any size")
    parser.add_argument("--invert", action="store_true", help="the digit is dark on light, as ink on paper")
    parser.add_argument("--model", type=Path, default=Path("runs/mnist"), metavar="FOLDER", help="run (runs/mnist)")
    parser.add_argument("--device", default="wgpu", metavar="NAME", help="wgpu, wgpu:<index or name>, numpy")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(infer(arguments()))
    except WgpuNNError as error:
        sys.exit(f"infer: {error}")
