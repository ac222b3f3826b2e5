"""tinygrad's engine of ``bench step``: its WEBGPU backend (Dawn, through dawn-python), with the JIT."""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# No extra of ours brings tinygrad.
from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.bench.engine import Engine, Facts, Label
from wgpu_nn.bench.step_work import DROPOUT, RATE, STEPS, TRAIN, drawn
from wgpu_nn.bench.timing import Round, time_round


class Tinygrad:
    """Training under TinyJit, whose third call is the first that replays."""

    def __init__(self, label: Label, batch: int) -> None:
        self.label, self._batch = label, batch
        self._timed: Callable[[], Any] | None = None

    def _training(self, dropout: float) -> Callable[[], Any]:
        from tinygrad import Context, Tensor, TinyJit
        from tinygrad.nn.optim import Adam

        drawn_params, images, labels = drawn(self._batch)
        params = {k: Tensor(v).realize() for k, v in drawn_params.items()}
        x, y = Tensor(images[:, None]).realize(), Tensor(labels.astype(np.int32)).realize()
        adam = Adam(list(params.values()), lr=RATE, eps=1e-8)

        def dropped(h: Any) -> Any:
            return h.dropout(dropout) if dropout else h

        @TinyJit
        def step(x: Any, y: Any) -> Any:
            with Context(TRAINING=1):
                h = dropped(x.conv2d(params["conv1.weight"], params["conv1.bias"]))
                h = dropped(h.conv2d(params["conv2.weight"], params["conv2.bias"])).relu()
                h = h.avg_pool2d((3, 3)).flatten(1)  # 24 x 24 to 8 x 8
                h = dropped(h.linear(params["linear1.weight"].T, params["linear1.bias"])).relu()
                loss = h.linear(params["linear2.weight"].T, params["linear2.bias"]).sparse_categorical_crossentropy(y)
                adam.zero_grad()
                loss.backward()
                return loss.realize(*adam.schedule_step())

        return lambda: step(x, y)

    @property
    def _step(self) -> Callable[[], Any]:
        if self._timed is None:
            self._timed = self._training(DROPOUT)
        return self._timed

    def _wait(self) -> None:
        from tinygrad import Device

        Device[Device.DEFAULT].synchronize()

    def outcome(self) -> list[float]:
        step = self._training(0.0)
        return [float(step().item()) for _ in range(STEPS)]

    def facts(self) -> Facts:
        from tinygrad.helpers import GlobalCounters

        for _ in range(4):
            self._step()
        self._wait()
        before = GlobalCounters.kernel_count
        self._step()
        self._wait()
        return Facts(launches=GlobalCounters.kernel_count - before)

    def round(self, steps: int) -> Round:
        return time_round(self._step, self._wait, steps)


def choose_webgpu() -> None:
    """Let tinygrad run on WEBGPU: it reads its device from the environment, of this process alone, when it is loaded."""
    os.environ["DEV"] = "WEBGPU"
    if "WEBGPU_PATH" not in os.environ and sys.platform != "win32":  # there tinygrad looks into pydawn by itself
        import pydawn

        suffix = "dylib" if sys.platform == "darwin" else "so"
        library = f"libwebgpu_dawn_{platform.machine()}.{suffix}"
        os.environ["WEBGPU_PATH"] = str(Path(pydawn.__path__[0]) / "lib" / library)


def about() -> str:
    """Return what tinygrad's engines are."""
    version = importlib.metadata.version
    return f"tinygrad {version('tinygrad')} WEBGPU, dawn-python {version('dawn-python')}"


def engines(batch: int) -> tuple[list[Engine], str]:
    """Return the one row."""
    choose_webgpu()
    return [Tinygrad(Label("tinygrad", "tinygrad WEBGPU", TRAIN, ("tiny-", "grad")), batch)], about()
