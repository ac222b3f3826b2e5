"""The README's model: its code runs as it stands, and learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import tensor

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("name", ["wgpu", "numpy"])
def test_the_readmes_model_learns(name: str) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("Device()", f'Device("{name}")'), names)
    device = names["device"].autodiff()
    rng = np.random.default_rng(0)
    x = tensor(rng.random((8, 28, 28), dtype=np.float32), device)
    y = tensor(rng.integers(0, 10, 8), device)
    losses = [names["step"](x, y).item() for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_its_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{command}:" in makefile for command in ("train", "test"))
