"""A site without a device: plans ops as the Wgpu backend does, and keeps the kernels instead of launching them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from tests.cases import CASES, VIEWS, Arg, Case
from wgpu_nn.backends.recipe import execute
from wgpu_nn.dtype import F32, DType, Float, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels import Grid, Target, Template, View, Words, whole
from wgpu_nn.kernels.peak import run_peak
from wgpu_nn.kernels.plan import Candidate, Slot, Task
from wgpu_nn.ops import DEFAULT_DTYPES, infer
from wgpu_nn.shape import Shape, size

TARGETS = {
    "software": Target(software=True, invocations=256, storage=16384),
    "gpu": Target(software=False, invocations=256, storage=16384),
}
LARGE = Target(software=False, invocations=256, storage=32768)  # whose workgroup memory has room for larger tiles


class Plans:
    """What an op would launch on an adapter of a kind: kernels, their parameters, and the same with constant sizes."""

    def __init__(self, target: Target, tuned: bool = True) -> None:
        self.target, self.tuned = target, tuned
        self.launches: list[tuple[Kernel, Words, Grid]] = []
        self.constant: list[Kernel] = []

    def empty(self, shape: Shape, dtype: DType) -> View:
        return whole(shape, dtype, Slot("temp", 4 * size(shape)))

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        kernel = template(key, None)
        assert len(views) == len(kernel.access), kernel.name
        self.launches.append((kernel, words, grid))
        self.constant.append(template(key, words))

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        return 0

    def run(self, op: str, operands: Sequence[Any], attrs: dict[str, Any]) -> View:
        """Plan one op."""
        given = [x.spec if isinstance(x, View) else x for x in operands]
        return execute(self, op, operands, attrs, infer(op, given, attrs, DEFAULT_DTYPES))

    def case(self, case: Case) -> None:
        """Plan a row of the case table, the views of its operands included."""
        operands: list[Any] = []
        for arg in case.args:
            if isinstance(arg, Arg):
                shape, steps = VIEWS[arg.view](arg.shape)
                handle = self.empty(shape, DEFAULT_DTYPES[arg.kind])
                for op, attrs in steps:
                    handle = self.run(op, [handle], attrs)
                operands.append(handle)
            else:
                operands.append(arg)
        attrs = {k: DEFAULT_DTYPES[v] if isinstance(v, Kind) else v for k, v in case.attrs.items()}
        self.run(case.op, operands, attrs)


def plan_all() -> list[Plans]:
    """Plan the whole case table, and what only long operands reach, for all kinds of adapters, and for both
    ways to choose a variant."""
    out: list[Plans] = []
    software, gpu = TARGETS["software"], TARGETS["gpu"]
    for target, tuned in ((software, True), (gpu, True), (gpu, False), (LARGE, True)):
        plans = Plans(target, tuned)
        for case in CASES:
            plans.case(case)
        long = plans.empty((3, 100_000), DEFAULT_DTYPES[Float])
        for op in ("sum", "argmax"):
            plans.run(op, [long], {"axes": (1,), "keepdim": False})
        plans.run("softmax", [long], {"axis": 1})
        wide, filters = (plans.empty(shape, F32) for shape in ((4, 64, 32, 32), (64, 64, 3, 3)))
        window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        plans.run("conv2d", [wide, filters], window)
        plans.run("conv2d_weight_grad", [wide, wide], {**window, "shape": filters.shape})
        large, strided = plans.empty((32, 128, 28, 28), F32), {**window, "stride": (2, 2), "shape": (32, 128, 56, 56)}
        plans.run("conv2d_input_grad", [large, plans.empty((128, 128, 3, 3), F32)], strided)
        run_peak(plans, plans.empty((2,), F32), 5, plans.empty((70,), F32))
        out.append(plans)
    return out
