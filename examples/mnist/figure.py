"""Draws a training run: loss and accuracy by epoch, test digits with what the model takes them for, and its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.errors import missing_extra
from wgpu_nn.report import canvas
from wgpu_nn.train import EpochRecord

try:
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise SystemExit(f"train: {missing_extra('figure', 'matplotlib', 'train')}") from error

TRAIN, TEST, WRONG, INK, GREY = "#8a8f98", "#2563eb", "#dc2626", "#1f2430", "#6b7280"
COLUMNS, RIGHT_ROWS, WRONG_ROWS = 14, 3, 2


def draw(
    path: Path, history: Sequence[EpochRecord], images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Write a PNG. ``images`` [n, 28, 28], ``labels`` [n] and ``probabilities`` [n, 10] are of test digits."""
    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != labels)
    # The mistakes that the model was surest of come first.
    wrong = wrong[np.argsort(-probabilities[wrong, guesses[wrong]])]
    last = history[-1]
    with canvas(path, size=(11, 9.4), dpi=150) as page:
        page.get_layout_engine().set(w_pad=0.045, h_pad=0.05, wspace=0, hspace=0.02)
        parts = page.subfigures(3, 1, height_ratios=[4.4, RIGHT_ROWS + 0.6, WRONG_ROWS + 0.6])
        _title(parts[0], f"{last.valid['accuracy']:.1%} of the test digits are right after epoch {last.epoch}", size=17)
        left, right = parts[0].subplots(1, 2)
        _curves(left, "Loss", history, "loss", "upper right")
        _curves(right, "Accuracy", history, "accuracy", "lower right")
        right.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
        _title(parts[1], "Test digits, and what the model reads")
        _grid(parts[1], RIGHT_ROWS, np.arange(len(images)), images, labels, guesses)
        shown = min(len(wrong), COLUMNS * WRONG_ROWS)
        many = f"{shown} of {len(wrong)}" if shown < len(wrong) else f"All {len(wrong)}" if shown else "No"
        _title(parts[2], f"{many} mistakes among {len(images):,} digits, the right answer in brackets")
        _grid(parts[2], WRONG_ROWS, wrong, images, labels, guesses)


def _title(page: Any, text: str, size: int = 13) -> None:
    page.suptitle(text, x=0.014, ha="left", fontsize=size, fontweight="bold")


def _curves(axes: Any, title: str, history: Sequence[EpochRecord], what: str, corner: str) -> None:
    epochs = [record.epoch for record in history]
    for name, colour in (("train", TRAIN), ("test", TEST)):
        values = [(record.train if name == "train" else record.valid)[what] for record in history]
        axes.plot(epochs, values, marker="o", color=colour, label=name)
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.75, max(*epochs, 2) + 0.25)
    axes.legend(loc=corner)


def _grid(
    page: Any, rows: int, chosen: np.ndarray, images: np.ndarray, labels: np.ndarray, guesses: np.ndarray
) -> None:
    """Draw the first of ``chosen``, each with its guess below; wrong ones in red, with the right answer."""
    for place, axes in enumerate(page.subplots(rows, COLUMNS).flat):
        axes.set_axis_off()
        if place < len(chosen):
            i = chosen[place]
            right = guesses[i] == labels[i]
            axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=255)
            text, colour, weight = (f"{guesses[i]}", INK, "normal")
            if not right:
                text, colour, weight = (f"{guesses[i]} ({labels[i]})", WRONG, "bold")
            axes.set_title(text, loc="center", y=-0.36, fontsize=11, color=colour, fontweight=weight)
