"""Writes folders as training runs leave them, with curves that look like those of one; for tests of what reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = {"model": {"classes": 10, "channels": 8}, "optimizer": {"lr": 1e-3}, "batch_size": 64, "seed": 7}
FACTS = {
    "wgpu_nn": "0.1.0",
    "python": "3.12.1",
    "platform": "Linux-6.1-x86_64",
    "device": "Device(wgpu)",
    "adapter": {"name": "llvmpipe", "kind": "CPU", "api": "Vulkan", "driver": "Mesa 25.0"},
    "argv": ["train.py", "--epochs", "6"],
    "seed": 7,
    "model": "Model {\n  conv: Conv2d {1 -> 8, kernel=[3, 3]}\n  linear: Linear {1352 -> 10}\n  params: 13,610\n}",
    "parameters": 13610,
    "optimizer": "Adam(lr=0.001)",
    "monitor": {"name": "accuracy", "better": "higher"},
    "metrics": {"accuracy": "higher", "f1": "higher"},
    "items": {"train": 1280, "valid": 1000},
    "epochs": 6,
    "started": "2026-03-01T09:00:00+00:00",
    "ended": "2026-03-01T09:01:40+00:00",
    "state": "done",
    "message": "",
}


def lines(epochs: int = 6, steps: int = 20, pace: float = 1.0, best: int = 4) -> list[dict[str, Any]]:
    """Return lines of a metrics.jsonl: the loss falls, and the validation data are done best in epoch ``best``."""
    rng = np.random.default_rng(epochs * steps)
    found: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * steps + 1, epoch * steps + 1):
            at = pace * step / steps
            loss = 2.3 * math.exp(-at) * float(rng.uniform(0.8, 1.2)) + 0.05
            lr = 1e-3 * (1 + math.cos(math.pi * step / (epochs * steps))) / 2
            found.append({"kind": "step", "epoch": epoch, "step": step, "loss": loss, "lr": lr})
        fit, off = 2.3 * math.exp(-pace * (epoch - 0.5)), 0.03 * (epoch - best) ** 2
        found.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": epoch * steps,
                "train": {"loss": fit + 0.05, "accuracy": 1 - fit / 3, "f1": 0.99 - fit / 3},
                "valid": {"loss": fit + 0.1 + off, "accuracy": 0.9 - off / 2 - fit / 9, "f1": 0.89 - off / 2 - fit / 9},
                "lr": found[-1]["lr"],
                "seconds": 1.25,
                "items_per_s": 1024.0 + epoch,
                "launches_per_step": 19,
                "gpu_bytes": 64 * 2**20,
            }
        )
    return found


def write_run(
    folder: Path,
    log: list[dict[str, Any]] | None = None,
    config: Mapping[str, Any] = CONFIG,
    torn: str = "",
    **facts: Any,
) -> Path:
    """Write config.json, run.json and metrics.jsonl, the last line of which may be ``torn``; return the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({**FACTS, **facts}))
    text = "".join(json.dumps(line) + "\n" for line in (lines() if log is None else log))
    (folder / "metrics.jsonl").write_bytes((text + torn).encode())
    return folder


def write_details(folder: Path, epoch: int, classes: int = 10) -> dict[str, np.ndarray]:
    """Write and return what metrics gave beside their values: a confusion matrix, values of classes, reliability."""
    rng = np.random.default_rng(epoch)
    matrix = rng.poisson(np.where(np.eye(classes, dtype=bool), 90.0, 0.9))
    matrix[4 % classes, 9 % classes] += 13
    found = {
        "confusion.matrix": matrix,
        "f1.per_class": rng.uniform(0.7, 1.0, classes),
        "f1.support": matrix.sum(1).astype(np.float64),
        "calibration-error.confidence": np.array([np.nan, 0.25, 0.42, 0.61, 0.78, 0.97]),
        "calibration-error.accuracy": np.array([np.nan, 0.35, 0.40, 0.55, 0.70, 0.93]),
        "calibration-error.items": np.array([0, 3, 20, 55, 180, 742]),
    }
    (folder / "details").mkdir(exist_ok=True)
    np.savez(folder / "details" / f"epoch-{epoch}.npz", **found)  # pyright: ignore[reportArgumentType]
    return found


def write_samples(folder: Path, inputs: np.ndarray) -> None:
    """Write samples.npz: items of class 4 that were taken for a 9."""
    n = len(inputs)
    np.savez(
        folder / "samples.npz",
        inputs=inputs,
        target=np.full(n, 4),
        predicted=np.full(n, 9),
        score=np.linspace(0.5, 0.99, n).astype(np.float32),
    )
