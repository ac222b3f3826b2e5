"""PyTorch's engines of ``bench step``: eager and as a CUDA graph where CUDA is, eager on the CPU; TF32 off."""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# No extra of ours brings torch.
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wgpu_nn.bench.engine import Engine, Facts, Label
from wgpu_nn.bench.step_work import DROPOUT, RATE, STEPS, TRAIN, drawn
from wgpu_nn.bench.timing import Round, time_round

PROFILED = 10


class Torch:
    """Training on one device; ``graph`` replays the step as a CUDA graph, with Adam in one kernel a group."""

    def __init__(self, label: Label, device: str, batch: int, graph: bool = False) -> None:
        self.label, self._device, self._batch, self._graph = label, device, batch, graph
        self._timed: Callable[[], Tensor] | None = None

    def _training(self, dropout: float) -> Callable[[], Tensor]:
        drawn_params, images, labels = drawn(self._batch)
        params = {k: torch.tensor(v, device=self._device, requires_grad=True) for k, v in drawn_params.items()}
        x = torch.tensor(images, device=self._device).unsqueeze(1)
        y = torch.tensor(labels, device=self._device)
        adam = torch.optim.Adam(params.values(), lr=RATE, fused=self._graph or None, capturable=self._graph)

        def layer(f: Callable[[Tensor, Tensor, Tensor], Tensor], h: Tensor, name: str) -> Tensor:
            return f(h, params[f"{name}.weight"], params[f"{name}.bias"])

        def step() -> Tensor:
            h = F.dropout(layer(F.conv2d, x, "conv1"), dropout)
            h = F.relu(F.dropout(layer(F.conv2d, h, "conv2"), dropout))
            h = F.adaptive_avg_pool2d(h, 8).flatten(1)
            h = F.relu(F.dropout(layer(F.linear, h, "linear1"), dropout))
            loss = F.cross_entropy(layer(F.linear, h, "linear2"), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            return loss.detach()

        if not self._graph:
            return step
        # Capture wants the step warm, from a stream of its own; what that did to parameters and moments is undone.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(torch.tensor(drawn_params[name]))
            for state in adam.state.values():
                for t in state.values():
                    t.zero_()

        # NOTE: a graph does not own the memory that it was captured on; ``step`` holds the inputs and the optimizer.
        def replay(held: object = step) -> Tensor:
            graph.replay()
            return loss

        return replay

    @property
    def _step(self) -> Callable[[], Tensor]:
        if self._timed is None:
            self._timed = self._training(DROPOUT)
        return self._timed

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def outcome(self) -> list[float]:
        step = self._training(0.0)
        return [float(step()) for _ in range(STEPS)]

    def facts(self) -> Facts:
        """Kernels, copies and fills on the GPU, and their time, as CUPTI reports them; nothing of a CPU."""
        step = self._step
        for _ in range(3):
            step()
        self._wait()
        if self._device == "cpu":
            return Facts()
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for _ in range(PROFILED):
                step()
            self._wait()
        spans = [e.time_range.elapsed_us() for e in found.events() or () if e.device_type == DeviceType.CUDA]
        if not spans:
            return Facts()
        return Facts(launches=round(len(spans) / PROFILED), device_us=sum(spans) / PROFILED)

    def round(self, steps: int) -> Round:
        return time_round(self._step, self._wait, steps)


def engines(batch: int) -> tuple[list[Engine], str]:
    """Return the rows of this machine, and what they run on."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found: list[Engine] = []
    about = f"torch {torch.__version__}, CPU with {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        found += [
            Torch(Label("torch-cuda", "torch CUDA", TRAIN, ("torch", "cuda")), "cuda", batch),
            Torch(Label("torch-graph", "torch CUDA graph", TRAIN, ("torch", "graph")), "cuda", batch, graph=True),
        ]
        about += f", {torch.cuda.get_device_name()}"
    found.append(Torch(Label("torch-cpu", "torch CPU", TRAIN, ("torch", "cpu")), "cpu", batch))
    return found, about
