"""Random programs over the whole op table, played three ways: NumPy, eager on the GPU, and captured; gradients too.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/backend/test_fuzz_programs.py` plays 10,000 of them. What they found
stands below as tests with names.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases_conv import window
from tests.fuzz import examples, nightly, peak_kb
from tests.program_args import ARGS, extend
from tests.programs import EXACT, SHAKEN, Drawer, Program
from wgpu_nn import Device, Tensor, zeros
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import Float
from wgpu_nn.errors import ShapeError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.kernels import Target
from wgpu_nn.ops import OPS
from wgpu_nn.tensor import Cell
from wgpu_nn.train.capture import capture

EXACTLY, SHAKILY = Device.of(EXACT), Device.of(SHAKEN)
# WGSL lets sin and cos be wrong by 2^-11 (section 15.7.4); what a program makes of roundings, the shaken run tells.
AGAINST_NUMPY, FUSED = 1e-3, 2e-5


Drawn = tuple[Drawer, list[int], bool]


def drawn(integer: Callable[[int, int], int]) -> Drawn:
    """Return a program, the values that it gives back, and whether gradients are asked of it."""
    d = Drawer(integer)
    d.fresh(d.shape(1, 3))
    for _ in range(d.between(1, 12)):
        extend(d)
    last = len(d.specs) - 1
    outs = sorted({last, *(d.below(last + 1) for _ in range(d.below(4)))})
    return d, outs, d.chance(2) and any(kind is Float for _, kind in d.program.inputs)


@st.composite
def programs(draw: Callable[[Any], Any]) -> Drawn:
    return drawn(lambda low, high: draw(st.integers(low, high)))


def function(program: Program, device: Device, outs: list[int], grads: bool) -> Callable[..., list[Tensor]]:
    """Return the program on ``device``: some of its values, and perhaps the gradients of all inputs."""

    def run(*given: Tensor) -> list[Tensor]:
        leaves = [x.require_grad() if grads and x.kind is Float else x for x in given]
        values = program.play(device.autodiff() if grads else device, leaves)
        found = [values[n] for n in outs]
        if not grads:
            return found
        floats = [x for x in leaves if x.kind is Float]
        loss = (floats[0] * 0.125).sum()
        for v in found:
            if v.kind is Float:
                loss = loss + (v * 0.5).tanh().sum()
        gradients = loss.backward()
        return [v.inner() for v in found] + [g for g in map(gradients.get, floats) if g is not None]

    return run


def played(
    program: Program, device: Device, outs: list[int], grads: bool, fuse: bool | None = None
) -> list[np.ndarray]:
    given = program.place(device.autodiff() if grads else device)
    f = function(program, device, outs, grads)
    if fuse is not None:
        f = capture(fuse=fuse)(f)
        f(*given)  # the second call replays
    with np.errstate(all="ignore"):
        return [t.numpy() for t in f(*given)]


def check(program: Program, device: Device, outs: list[int], grads: bool) -> None:
    """Compare all ways to play a program."""
    exact, shaken = (played(program, d, outs, grads) for d in (EXACTLY, SHAKILY))
    eager, plain, fused = (played(program, device, outs, grads, fuse) for fuse in (None, False, True))
    assert len(exact) == len(eager) == len(plain) == len(fused)
    for n, want in enumerate(exact):
        what = f"result {n}"
        np.testing.assert_array_equal(plain[n], eager[n], err_msg=f"{what}, captured without fusion")
        assert want.shape == eager[n].shape == fused[n].shape, what
        assert eager[n].dtype == fused[n].dtype and want.dtype.kind == eager[n].dtype.kind, what
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(eager[n], want, err_msg=f"{what}, eager against NumPy")
            np.testing.assert_array_equal(fused[n], eager[n], err_msg=f"{what}, fused")
            continue
        if not np.isfinite(want).all() or not np.isfinite(shaken[n]).all():
            continue  # a gradient at a place that has none
        scale, shake = 1 + np.max(np.abs(want), initial=0), np.max(np.abs(want - shaken[n]), initial=0)
        if shake > 1e-2 * scale:
            continue  # a gradient that hangs on a rounding
        np.testing.assert_allclose(fused[n], eager[n], 0, FUSED * scale + 100 * shake, err_msg=f"{what}, fused")
        np.testing.assert_allclose(
            eager[n], want, 0, AGAINST_NUMPY * scale + 100 * shake, err_msg=f"{what}, eager against NumPy"
        )


def cells() -> int:
    """Return how many tensors and cells are alive."""
    gc.collect()
    return sum(isinstance(x, Tensor | Cell) for x in gc.get_objects())


@pytest.fixture(scope="module", params=["software", "gpu"])
def own(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device of its own, so that what it holds is what the programs left."""
    gpu = Gpu(choose()[0])
    target = Target(software=request.param == "software", invocations=256, storage=16384)
    yield Device.of(Wgpu(gpu, target, tuned=True))
    gpu.destroy()


def test_random_programs_agree(own: Device) -> None:
    seen: Counter[str] = Counter()
    peaks: list[int] = []  # of the process, program by program
    before, objects = own.gpu.pool.stats().live_bytes, cells()

    @examples(30, 5000)
    @given(found=programs())
    def play(found: Drawn) -> None:
        d, outs, grads = found
        seen.update(step.op for step in d.program.order if not isinstance(step, int))
        try:
            check(d.program, own, outs, grads)
        except BaseException as error:
            raise AssertionError(f"{d.program}\nreturn {outs} grads={grads}\n{error}") from error
        peaks.append(peak_kb())

    play()
    own.sync()
    assert cells() <= objects and own.gpu.pool.stats().live_bytes <= before, "programs leave nothing behind"
    if nightly():
        print(f"{len(peaks)} programs of {seen.total()} ops; peak memory in KB: {peaks[::250]}")
        assert peaks[-1] <= 1.5 * peaks[len(peaks) // 2], "caches are full by half of the time"
        assert set(OPS) - set(seen) == set(), "ops that no program had"


def test_every_op_can_be_drawn() -> None:
    assert set(ARGS) == set(OPS)


# --- what was found, each as small as it gets --------------------------------------------------------------------------
POOL = {"kernel": (1, 2), "stride": (1, 1), "padding": ((0, 0), (0, 0))}


@pytest.mark.parametrize("where", ["numpy", "gpu"])
def test_max_pooling_of_an_empty_batch_is_empty(where: str, gpu_device: Device, cpu: Device) -> None:
    backend = (cpu if where == "numpy" else gpu_device).backend
    x = backend.run("full", 1.0, shape=(0, 1, 1, 4), dtype=backend.dtypes[Float])
    pooled, places = backend.run("max_pool2d", x, **POOL), backend.run("argmax_pool2d", x, **POOL)
    assert backend.download(pooled).shape == backend.download(places).shape == (0, 1, 1, 3)
    back = backend.run("max_pool2d_grad", pooled, places, shape=(0, 1, 1, 4), **POOL)
    assert backend.download(back).shape == (0, 1, 1, 4)


@pytest.mark.parametrize("op", ["conv2d_input_grad", "conv2d_weight_grad"])
def test_a_window_that_does_not_fit_is_refused_in_an_empty_batch_too(op: str, cpu: Device) -> None:
    of = lambda *shape: cpu.backend.run("full", 0.0, shape=shape, dtype=cpu.dtype(Float))
    x, weight, g = (0, 1, 1, 1), (1, 1, 1, 2), (0, 1, 1, 0)
    given, shape = ((of(*g), of(*weight)), x) if op == "conv2d_input_grad" else ((of(*x), of(*g)), weight)
    with pytest.raises(ShapeError, match="window of 2 does not fit in 1 elements"):
        cpu.backend.run(op, *given, shape=shape, **window(2))


def test_the_gradient_of_a_pooling_gradient_of_an_empty_batch_is_empty(cpu: Device) -> None:
    g = zeros((0, 3, 2, 4), cpu.autodiff()).require_grad()
    places = zeros((0, 3, 2, 4), cpu.autodiff()).int()
    how: dict[str, Any] = {"kernel": (2, 4), "stride": (3, 2), "padding": ((1, 0), (2, 0))}
    back = g.run("max_pool2d_grad", g, places, shape=(0, 3, 4, 8), **how)
    assert back.sum().backward()[g].shape == (0, 3, 2, 4)


def test_a_pooling_gradient_of_other_windows_is_refused(cpu: Device) -> None:
    how: dict[str, Any] = {"kernel": (1, 4), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "include_pad": False}
    with pytest.raises(ShapeError, match="does not fit in 2 elements"):
        zeros((2, 3, 1, 0), cpu).run("avg_pool2d_grad", zeros((2, 3, 1, 0), cpu), shape=(2, 3, 1, 2), **how)
    with pytest.raises(ShapeError, match=r"expected a number for each of the windows \[2, 3, 1, 1\]"):
        zeros((2, 3, 1, 2), cpu).run("avg_pool2d_grad", zeros((2, 3, 1, 2), cpu), shape=(2, 3, 1, 4), **how)


# Three programs differed where nothing was wrong: what they did hung on a rounding that no run had shown.
def test_a_mean_beside_an_equal_variance_is_a_tie_that_hangs_on_roundings() -> None:
    x = np.array([0.5, -0.5, 1.5, 0.5, 0.5])
    mean, variance = SHAKEN.run("moments", x, axes=(0,), keepdim=False, correction=1)
    assert EXACT.run("moments", x, axes=(0,), keepdim=False, correction=1).tolist() == [0.5, 0.5]
    assert mean != variance and abs(mean - variance) < 1e-5


def test_a_sum_that_cancels_may_have_either_sign_unless_it_is_of_whole_numbers() -> None:
    thirds, halves = np.array([1 / 3, 1 / 6, -0.5]), np.array([1.5, -0.5, -1.0])
    exact, shaken = (b.run("sum", thirds, axes=(0,), keepdim=False) for b in (EXACT, SHAKEN))
    assert abs(exact) < 1e-15 and 1e-7 < abs(shaken) < 1e-5 and (exact < 0) != (shaken < 0)
    assert SHAKEN.run("sum", halves, axes=(0,), keepdim=False) == 0


def test_the_gradient_of_a_norm_along_its_own_row_is_made_of_roundings() -> None:
    x = np.array([[1.0, -0.5, 2.0]])  # what is left of it is epsilon's part, 1e-5 of it
    exact, shaken = (b.run("layer_norm_grad", x, x, epsilon=1e-5) for b in (EXACT, SHAKEN))
    assert np.max(np.abs(exact)) < 3e-5 and np.max(np.abs(exact - shaken)) > 3e-7
