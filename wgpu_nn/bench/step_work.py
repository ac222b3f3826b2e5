"""The work of ``bench step``: numbers that every engine starts from; NumPy alone, as peers' processes load it too."""

from __future__ import annotations

import numpy as np

IMAGE, HIDDEN, CLASSES = 28, 512, 10
DROPOUT = 0.5
RATE = 1e-4  # of Adam, with the usual betas and epsilon
STEPS = 6  # whose losses, without dropout, all engines must agree on
TRAIN, INFER = "train", "infer"


def drawn(batch: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters by the Model's names, images [batch, 28, 28] and labels [batch].

    Linear weights are [out, in], as peers have them.
    """
    r = np.random.default_rng(0)
    images = r.random((batch, IMAGE, IMAGE), dtype=np.float32)
    labels = r.integers(0, CLASSES, batch)
    shapes = {
        "conv1": ((8, 1, 3, 3), 0.3),
        "conv2": ((16, 8, 3, 3), 0.1),
        "linear1": ((HIDDEN, 16 * 8 * 8), 0.03),
        "linear2": ((CLASSES, HIDDEN), 0.04),
    }
    params: dict[str, np.ndarray] = {}
    for name, (shape, scale) in shapes.items():
        params[f"{name}.weight"] = (r.standard_normal(shape) * scale).astype(np.float32)
        params[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return params, images, labels
