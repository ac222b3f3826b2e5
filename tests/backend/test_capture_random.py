"""Random programs, run three ways: NumPy, eager on the GPU, and captured; hypothesis draws and shrinks them.

CAPTURE_EXAMPLES=2000 draws more of them. What they found stands below as tests with names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wgpu_nn import Bool, Device, Float, Int, Tensor, arange, cat, full, ones, rand, randn, tensor
from wgpu_nn.train.capture import capture

EXAMPLES = int(os.environ.get("CAPTURE_EXAMPLES", "40"))
SIZES = st.sampled_from((0, 1, 1, 2, 3, 4, 5, 7))
# Bounded, smooth ones: what a reordered rounding would blow up tells nothing of fusion.
SMOOTH = ("neg", "abs", "relu", "tanh", "sigmoid", "sin", "atan", "erf")
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -0.375, 3.0)
Draw = Callable[[Any], Any]


class Builder:
    """Writes down a random program as closures over a growing list of tensors; draws by shapes alone."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.specs: list[tuple[tuple[int, ...], Any]] = []
        self.steps: list[Callable[[list[Tensor], Device], Tensor]] = []
        self.text: list[str] = []
        self.inputs: list[np.ndarray] = []

    def give(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(len(self.inputs))
        self.inputs.append(rng.uniform(-1.5, 1.5, shape).astype(np.float32))
        self.specs.append((shape, Float))

    def pick(self, *kinds: Any) -> int:
        return self.draw(st.sampled_from([n for n, (_, k) in enumerate(self.specs) if k in kinds]))

    def add(self, text: str, shape: Sequence[int], kind: Any, step: Callable[[list[Tensor], Device], Tensor]) -> None:
        self.specs.append((tuple(shape), kind))
        self.steps.append(step)
        self.text.append(f"v{len(self.specs) - 1} = {text}  # {list(shape)}")

    def partner(self, shape: tuple[int, ...], kind: Any) -> int | None:
        """Return a value that broadcasts with ``shape``."""
        fits: list[int] = []
        for n, (other, k) in enumerate(self.specs):
            pairs = zip(reversed(shape), reversed(other), strict=False)
            if k is kind and len(other) <= 4 and all(a == b or 1 in (a, b) for a, b in pairs):
                fits.append(n)
        return self.draw(st.sampled_from(fits)) if fits else None

    # --- the kinds of steps ----------------------------------------------------------------------------------------
    def unary(self) -> None:
        n, op = self.pick(Float), self.draw(st.sampled_from(SMOOTH))
        self.add(f"v{n}.{op}()", self.specs[n][0], Float, lambda v, d: v[n].run(op, v[n]))

    def number(self) -> None:
        n, op = self.pick(Float), self.draw(st.sampled_from(("add", "sub", "mul", "maximum", "minimum")))
        x, swap = self.draw(st.sampled_from(NUMBERS)), self.draw(st.booleans())
        self.add(
            f"{op}(v{n}, {x}) swap={swap}",
            self.specs[n][0],
            Float,
            lambda v, d: v[n].run(op, x, v[n]) if swap else v[n].run(op, v[n], x),
        )

    def binary(self) -> None:
        a = self.pick(Float)
        b = self.partner(self.specs[a][0], Float)
        assert b is not None
        op = self.draw(st.sampled_from(("add", "sub", "mul", "maximum", "minimum", "lt", "ge", "eq")))
        shape = np.broadcast_shapes(self.specs[a][0], self.specs[b][0])
        kind = Bool if op in ("lt", "ge", "eq") else Float
        if int(np.prod(shape)) <= 4000:
            self.add(f"{op}(v{a}, v{b})", shape, kind, lambda v, d: v[a].run(op, v[a], v[b]))

    def divide(self) -> None:
        a = self.pick(Float)
        b = self.partner(self.specs[a][0], Float)
        shape = np.broadcast_shapes(self.specs[a][0], self.specs[b][0])  # pyright: ignore[reportArgumentType,reportCallIssue,reportOptionalSubscript]
        self.add(f"v{a} / (v{b}.abs() + 0.5)", shape, Float, lambda v, d: v[a] / (v[b].abs() + 0.5))  # pyright: ignore[reportArgumentType,reportCallIssue]

    def where(self) -> None:
        masks = [n for n, (_, k) in enumerate(self.specs) if k is Bool]
        if not masks:
            return
        m = self.draw(st.sampled_from(masks))
        a = self.partner(self.specs[m][0], Float)
        if a is not None:
            shape = np.broadcast_shapes(self.specs[m][0], self.specs[a][0])
            self.add(f"v{m}.where(v{a}, 0.25)", shape, Float, lambda v, d: v[m].where(v[a], 0.25))

    def cast(self) -> None:
        n, kind = self.pick(Float, Bool, Int), self.draw(st.sampled_from((Float, Bool)))
        self.add(f"v{n}.cast({kind})", self.specs[n][0], kind, lambda v, d: v[n].cast(d.dtype(kind)))

    def source(self) -> None:
        shape = tuple(self.draw(st.lists(SIZES, max_size=3)))
        which = self.draw(st.sampled_from(("rand", "randn", "full", "arange")))
        count = int(np.prod(shape, dtype=int))
        make = {
            "rand": lambda v, d: rand(shape, d),
            "randn": lambda v, d: randn(shape, d),
            "full": lambda v, d: full(shape, 0.75, d),
            "arange": lambda v, d: (arange(count, device=d).float() * 0.125).reshape(shape),
        }[which]
        self.add(f"{which}({list(shape)})", shape, Float, make)

    def view(self) -> None:
        n = self.pick(Float, Bool)
        shape, kind = self.specs[n]
        how = self.draw(st.sampled_from(("permute", "slice", "flip", "expand", "flat", "lead", "split")))
        if how == "permute":
            axes = tuple(self.draw(st.permutations(range(len(shape)))))
            self.add(f"v{n}.permute{axes}", [shape[a] for a in axes], kind, lambda v, d: v[n].permute(axes))
        elif how == "slice" and shape:
            ranges = []
            for size in shape:
                start = self.draw(st.integers(0, max(size - 1, 0)))
                ranges.append((start, 1, self.draw(st.integers(0, size - start))))
            self.add(f"v{n}.slice({ranges})", [c for _, _, c in ranges], kind, lambda v, d: v[n].slice(ranges))
        elif how == "flip" and shape:
            at = self.draw(st.integers(0, len(shape) - 1))
            self.add(f"v{n}.flip({at})", shape, kind, lambda v, d: v[n].flip(at))
        elif how == "expand" and len(shape) < 4:
            wide = (self.draw(SIZES), *(self.draw(SIZES) if size == 1 else size for size in shape))
            if int(np.prod(wide)) <= 4000:
                self.add(f"v{n}.expand{wide}", wide, kind, lambda v, d: v[n].expand(wide))
        elif how == "flat":
            count = int(np.prod(shape, dtype=int))
            self.add(f"v{n}.reshape({count})", (count,), kind, lambda v, d: v[n].reshape((count,)))
        elif how == "lead" and len(shape) < 4:
            self.add(f"v{n}.unsqueeze(0)", (1, *shape), kind, lambda v, d: v[n].unsqueeze(0))
        elif how == "split" and shape and shape[0] % 2 == 0 and len(shape) < 4:
            two = (2, shape[0] // 2, *shape[1:])  # pyright: ignore[reportGeneralTypeIssues]
            self.add(f"v{n}.reshape{two}", two, kind, lambda v, d: v[n].reshape(two))

    def reduce(self) -> None:
        op = self.draw(st.sampled_from(("sum", "mean", "max", "min", "prod", "any", "all")))
        kinds = (Bool,) if op in ("any", "all") else (Float,)
        fits = [n for n, (s, k) in enumerate(self.specs) if k in kinds and (0 not in s or op in ("sum", "any", "all"))]
        if not fits:
            return
        n = self.draw(st.sampled_from(fits))
        shape, kind = self.specs[n]
        axes = tuple(a for a in range(len(shape)) if self.draw(st.booleans()))
        keep = self.draw(st.booleans())
        out = [1 if a in axes else s for a, s in enumerate(shape) if keep or a not in axes]
        call = {"axes": axes, "keepdim": keep}
        self.add(f"v{n}.{op}({axes}, {keep})", out, kind, lambda v, d: v[n].run(op, v[n], **call))

    def matmul(self) -> None:
        pairs = [
            (a, b)
            for a, (s, k) in enumerate(self.specs)
            for b, (t, l) in enumerate(self.specs)
            if k is l is Float and len(s) == len(t) == 2 and s[1] == t[0]
        ]
        if pairs:
            a, b = self.draw(st.sampled_from(pairs))
            shape = (self.specs[a][0][0], self.specs[b][0][1])
            self.add(f"(v{a} @ v{b}) * 0.25", shape, Float, lambda v, d: (v[a] @ v[b]) * 0.25)

    def join(self) -> None:
        n = self.pick(Float)
        if self.specs[n][0]:
            shape = (2 * self.specs[n][0][0], *self.specs[n][0][1:])
            self.add(f"cat(v{n}, v{n})", shape, Float, lambda v, d: cat([v[n], v[n]]))


STEPS = ("unary", "number", "number", "binary", "binary", "binary", "divide", "where", "cast", "source", "view", "view",
         "view", "reduce", "reduce", "matmul", "join")  # fmt: skip


@st.composite
def programs(draw: Draw) -> Builder:
    """A program of up to 14 steps over one to three inputs."""
    built = Builder(draw)
    for _ in range(draw(st.integers(1, 3))):
        built.give(tuple(draw(st.lists(SIZES, max_size=3))))
    for _ in range(draw(st.integers(1, 14))):
        getattr(built, draw(st.sampled_from(STEPS)))()
    return built


def as_function(built: Builder, device: Device, outs: Sequence[int], grads: bool) -> Callable[..., list[Tensor]]:
    """Return the program on ``device``: some of its values, and perhaps the gradients of all of them."""

    def run(*given: Tensor) -> list[Tensor]:
        values = [x.require_grad() for x in given] if grads else list(given)
        leaves = values[:]
        where = device.autodiff() if grads else device
        for step in built.steps:
            values.append(step(values, where))
        found = [values[n] for n in outs]
        if not grads:
            return found
        loss = sum(((v * 0.5).tanh().sum() for v in found if v.kind is Float), start=(leaves[0] * 0.125).sum())
        all_grads = loss.backward()
        return [v.inner() for v in found] + [g for g in map(all_grads.get, leaves) if g is not None]

    return run


def check(built: Builder, device: Device, cpu: Device, outs: Sequence[int], grads: bool) -> None:
    results: dict[str, list[np.ndarray]] = {}
    for name, where in (("numpy", cpu), ("eager", device), ("plain", device), ("fused", device)):
        where.seed(7)
        given = [tensor(x, where.autodiff() if grads else where) for x in built.inputs]
        f = as_function(built, where, outs, grads)
        if name in ("plain", "fused"):
            f = capture(state=[device], fuse=name == "fused")(f)
            f(*given)  # the second call replays
            where.seed(7)
        results[name] = [t.numpy() for t in f(*given)]
    for n, (exact, eager, plain, fused) in enumerate(zip(*results.values(), strict=True)):
        np.testing.assert_array_equal(plain, eager, err_msg=f"result {n}, captured without fusion")
        zero = plain == 0  # the signs of zeros are bits too
        if plain.dtype == np.float32:
            np.testing.assert_array_equal(np.signbit(plain[zero]), np.signbit(eager[zero]), err_msg=f"result {n}")
        assert fused.dtype == eager.dtype == exact.dtype and fused.shape == eager.shape == exact.shape
        if fused.dtype == np.bool_:  # a rounding may decide otherwise, but fusion should not
            assert np.count_nonzero(fused != eager) <= max(1, fused.size // 10), f"result {n}, fused"
            continue
        # A dozen ops of one rounding each (6e-8) on numbers up to some 100, and sin's absolute 5e-4 (WGSL) to NumPy.
        scale = 1 + np.max(np.abs(eager), initial=0, where=np.isfinite(eager))
        np.testing.assert_allclose(fused, eager, 1e-5, 3e-6 * scale, err_msg=f"result {n}, fused")
        np.testing.assert_allclose(eager, exact, 1e-3, 5e-3 * scale, err_msg=f"result {n}, eager against NumPy")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="CAPTURE_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@pytest.mark.parametrize("variant", ["software", "gpu"])
@given(built=programs(), data=st.data(), grads=st.booleans())
def test_random_programs_agree(
    variant: str, built: Builder, data: st.DataObject, grads: bool, gpu_variants: dict[str, Device], cpu: Device
) -> None:
    last = len(built.specs) - 1
    outs = sorted({last, *data.draw(st.lists(st.integers(0, last), max_size=3))})
    try:
        check(built, gpu_variants[variant], cpu, outs, grads)
    except BaseException as error:
        inputs = "\n".join(f"v{n}: {list(x.shape)}" for n, x in enumerate(built.inputs))
        raise AssertionError(
            f"{inputs}\n" + "\n".join(built.text) + f"\nreturn {outs} grads={grads}\n{error}"
        ) from error


# --- differences that were found, each as small as it gets -------------------------------------------------------------
@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-50, 3.4028235e38, 1e39, float("inf"), float("nan"), 1 / 3, 2.0])
def test_numbers_at_the_edges_compute_as_in_eager_mode(value: float, fuse: bool, gpu_device: Device) -> None:
    # Compilers take x * 0 for 0, and leave x / 0 undefined, where they see the 0.
    x = tensor(np.array([0.0, -0.0, 1.0, -2.0, np.inf, np.nan, 3.0], np.float32), gpu_device)

    def f(x: Tensor) -> list[Tensor]:
        filled = ones((7,), gpu_device) * value
        return [
            x * value,
            x + value,
            value - x,
            x / value,
            x**value,
            x.maximum(value),
            x / filled,
            filled * x,
            x > value,
        ]

    with np.errstate(all="ignore"):
        for got, want in zip(capture(fuse=fuse)(f)(x), f(x), strict=True):
            np.testing.assert_array_equal(got.numpy(), want.numpy())
            if got.dtype.name == "f32":
                numbers = ~np.isnan(want.numpy())
                np.testing.assert_array_equal(np.signbit(got.numpy()[numbers]), np.signbit(want.numpy()[numbers]))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_cheap_values_of_one_element_are_the_same_for_all(shape: tuple[int, ...], gpu_device: Device) -> None:
    one = tensor(np.full(shape, 3.7, np.float32), gpu_device)
    x = tensor(np.arange(5, dtype=np.float32), gpu_device)

    def f(x: Tensor, s: Tensor) -> list[Tensor]:
        noise = rand(shape, gpu_device) * 2.0
        return [x + noise, (s > 1.0).where(x, 0.0), x * s.int().float() + (-s)]

    found: list[list[np.ndarray]] = []
    for g in (f, capture(state=[gpu_device], fuse=True)(f)):
        gpu_device.seed(1)
        found.append([t.numpy() for t in g(x, one)])
    for got, want in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(got, want, 1e-6)


def test_a_tensor_that_is_seen_in_many_ways_is_bound_within_the_limits(gpu_device: Device) -> None:
    f = lambda x: functools.reduce(Tensor.__add__, (x[i : i + 3] for i in range(40)))
    x = tensor(np.arange(64, dtype=np.float32), gpu_device)
    run = capture(fuse=True)(f)
    np.testing.assert_allclose(run(x).numpy(), f(x).numpy(), 1e-6)
    most = gpu_device.root.target.bindings  # pyright: ignore[reportAttributeAccessIssue]
    assert max(len(d.slots) for d in run.steps[0].plan.dispatches) <= most


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_a_region_at_the_start_of_a_tensor_leaves_the_rest_alone(count: int, gpu_device: Device, cpu: Device) -> None:
    # Maps store four elements at once, beyond the end of a tensor as well; beyond the end of a region they must not.
    def f(x: Tensor) -> list[Tensor]:
        return [x.set(slice(0, count), 9.0), x.reshape(1, 7).set((0, slice(0, count)), 9.0)]

    x = np.arange(7, dtype=np.float32)
    want = [t.numpy() for t in f(tensor(x, cpu))]
    for run in (f, capture(fuse=False)(f), capture(fuse=True)(f)):
        for got, w in zip(run(tensor(x, gpu_device)), want, strict=True):
            np.testing.assert_array_equal(got.numpy(), w)
