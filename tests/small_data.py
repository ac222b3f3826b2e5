"""Small data for runs of the command, written as files: a table of three classes, one of numbers, images of two classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

SPECIES = ("rose", "lily", "tulip")


def write_flowers(path: Path, rows: int = 60) -> Path:
    """Write a CSV file of two features on different scales, and three classes by name that a line tells apart."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "height", "species"])
        for i in range(rows):
            writer.writerow(
                [f"{4 * (i % 3) + rng.normal():.4f}", f"{100 * (i % 3) + rng.normal():.4f}", SPECIES[i % 3]]
            )
    return path


def write_line(path: Path, rows: int = 60) -> Path:
    """Write a CSV file of a number that depends on two others: y = 3 a - b."""
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "y"])
        for a, b in rng.normal(size=(rows, 2)):
            writer.writerow([a, b, 3 * a - b])
    return path


def write_images(folder: Path, each: int = 6) -> Path:
    """Write grey PNG images of 9 x 11 in folders of two classes: dark ones and light ones."""
    from PIL import Image

    rng = np.random.default_rng(2)
    for low, name in ((0, "dark"), (150, "light")):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(low, low + 100, (9, 11), np.uint8)).save(folder / name / f"{i}.png")
    return folder
