"""The functions of shaders/lib by themselves, in the smallest kernel there is, trusted and checked, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.case import f32, i32
from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import threefry
from wgpu_nn.bench.accuracy import FUNCTIONS, Function, arguments_of, errors, title
from wgpu_nn.gpu import Gpu
from wgpu_nn.kernels.expressions import EXPRESSIONS

pytestmark = pytest.mark.usefixtures("trust")
NAMES = {np.dtype(np.float32): "f32", np.dtype(np.int32): "i32", np.dtype(np.uint32): "u32"}


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def mapped(gpu: Gpu, expression: str, *operands: np.ndarray, kind: type[np.generic] = np.float32) -> np.ndarray:
    """Return an expression in x, y and i of every element."""
    n = operands[0].size
    reads = " ".join(f"let {name} = {name}s[i];" for name, _ in zip("xy", operands))
    text = f"""fn compute(i: u32) {{ {reads} out[i] = {expression}; }}
    fn hidden(word: u32) -> u32 {{ return select(word, ~word, arrayLength(&xs) == 0u); }}"""
    buffers: dict[str, Any] = {f"{name}s": x for name, x in zip("xy", operands)} | {"out": Out((n,), kind)}
    return run(gpu, "map", buffers, -(-n // 64), constants={"WORKGROUP": 64}, sizes={"steps": n}, text=text)


def written(op: str) -> str:
    text = EXPRESSIONS[op]
    return text if isinstance(text, str) else next(iter(text.values()))


@pytest.mark.parametrize("f", FUNCTIONS, ids=title)
def test_a_function_is_within_its_bound_by_itself(f: Function, gpu: Gpu) -> None:
    xs = arguments_of(f, 12)
    with np.errstate(all="ignore"):
        off = errors(mapped(gpu, written(f.op), *xs), f.exact(*(x.astype(np.float64) for x in xs)))
    worst = int(np.argmax(off))
    assert off[worst] <= f.bound, tuple(x[worst] for x in xs)


# Zeros, ones, ties, the largest, infinities and NaN of both signs, each with each.
AWKWARD = f32([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 2.5, -2.5, 3.0, -3.0, 7.0, np.inf, -np.inf, np.nan, -np.nan,
               1e-30, 3e38, -3e38, 5.75, 16777217.0])  # fmt: skip
AWKWARD = np.append(AWKWARD, np.array([0x7F800001], np.uint32).view(np.float32))  # NaN by its last bit alone
LEFT, RIGHT = (x.ravel() for x in np.meshgrid(AWKWARD, AWKWARD))
PAIRS: dict[str, Callable[..., Any]] = {
    "pow_full(x, y)": np.power,
    "atan2_of(x, y)": np.arctan2,
    "max_nan(x, y)": np.maximum,
    "min_nan(x, y)": np.minimum,
    "log_add_exp(x, y)": np.logaddexp,
    "relu_nan(x)": lambda x, y: np.maximum(x, 0),
    "sign_nan(x)": lambda x, y: np.sign(x),
    "select(0.0, 1.0, equal_f(x, y))": np.equal,
    "select(0.0, 1.0, less_f(x, y))": np.less,
    "select(0.0, 1.0, less_equal_f(x, y))": np.less_equal,
    "select(0.0, 1.0, is_nan(x))": lambda x, y: np.isnan(x),
    "select(0.0, 1.0, is_inf(x))": lambda x, y: np.isinf(x),
}


@pytest.mark.parametrize("expression", PAIRS)
def test_ends_and_what_is_not_a_number_are_numpys(expression: str, gpu: Gpu) -> None:
    with np.errstate(all="ignore"):
        want = PAIRS[expression](LEFT.astype(np.float64), RIGHT.astype(np.float64)).astype(np.float32)
    # As the functions' own bounds: 2^-23 times their units; what is less than a normal number may be 0.
    got = mapped(gpu, expression, LEFT, RIGHT)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2.0**-125)


# Quotients of these are exact in f32 wherever they are near a whole number.
DIVIDENDS, DIVISORS = (
    x.ravel() for x in np.meshgrid(f32([0, 1, -1, 7, -7, 7.5, -7.5, 0.25, -0.25, 12, np.inf, -np.inf, np.nan]),
                                   f32([1, -1, 2, -2, 0.5, 2.5, -2.5, 3, 7, -7, 0, np.inf, -np.inf, np.nan]))
)  # fmt: skip
DIVIDED: dict[str, Callable[..., Any]] = {
    "fmod_f(x, y)": np.fmod, "remainder_f(x, y)": np.remainder, "floor_div_f(x, y)": np.floor_divide,
}  # fmt: skip


@pytest.mark.parametrize("expression", DIVIDED)
def test_what_is_left_of_a_division_has_the_sign_that_python_gives_it(expression: str, gpu: Gpu) -> None:
    with np.errstate(all="ignore"):
        want = DIVIDED[expression](DIVIDENDS, DIVISORS)
    np.testing.assert_allclose(mapped(gpu, expression, DIVIDENDS, DIVISORS), want, rtol=1e-6)


def test_whole_numbers_are_divided_toward_minus_infinity_and_by_0_into_0(gpu: Gpu) -> None:
    x, y = (
        a.ravel() for a in np.meshgrid(i32([0, 1, -1, 5, -5, 6, -6, 7, -7, 2**31 - 1]), i32([1, -1, 2, -3, 3, 7, 0]))
    )
    with np.errstate(all="ignore"):
        want = [np.where(y == 0, 0, f(x, np.where(y == 0, 1, y))) for f in (np.floor_divide, np.remainder)]
    np.testing.assert_array_equal(mapped(gpu, "floor_div_i(x, y)", x, y, kind=np.int32), want[0])
    np.testing.assert_array_equal(mapped(gpu, "remainder_i(x, y)", x, y, kind=np.int32), want[1])


def test_numbers_become_whole_ones_or_the_last_that_there_is(gpu: Gpu) -> None:
    x = f32(
        [0.0, 0.9, -0.9, 1.0, -1.5, 2147483520.0, 2147483648.0, -2147483648.0, -2147483904.0, np.inf, -np.inf, np.nan]
    )
    want = [0, 0, 0, 1, -1, 2147483520, 2**31 - 1, -(2**31), -(2**31), 2**31 - 1, -(2**31), 0]
    assert mapped(gpu, "to_int(x)", x, kind=np.int32).tolist() == want


def test_numbers_are_rounded_to_halves(gpu: Gpu) -> None:
    x = f32([0.0, -0.0, 1.0, 1.0004, -3.14159, 65504.0, 0.1, 1e-3, 6.1e-5])
    np.testing.assert_array_equal(mapped(gpu, "rounded_half(x)", x), x.astype(np.float16).astype(np.float32))


def test_words_have_the_order_of_numbers_and_nan_comes_last(gpu: Gpu) -> None:
    x = f32([-np.inf, -3e38, -1.0, -1e-30, 0.0, 1e-30, 1.0, 2.0, 3e38, np.inf, np.nan])
    keys = mapped(gpu, "order_of_f(x)", x, kind=np.uint32)
    assert (np.diff(keys.astype(np.int64)) > 0).all() and keys[-1] == 0xFFFFFFFF
    twins = mapped(gpu, "order_of_f(x)", f32([0.0, -0.0, np.nan, -np.nan, 1.0, -1.0]), kind=np.uint32)
    assert twins.tolist() == [0x80000000] * 2 + [0xFFFFFFFF] * 2 + [0xBF800000, 0x407FFFFF]
    whole = mapped(gpu, "order_of_i(x)", i32([-(2**31), -1, 0, 1, 2**31 - 1]), kind=np.uint32)
    assert whole.tolist() == [0, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (12345, 7), (0xDEADBEEF, 0xCAFEF00D), (587198, 3)])
def test_random_numbers_are_those_of_numpy(seed: int, stream: int, gpu: Gpu) -> None:
    x = np.zeros(301, np.float32)  # the last seed draws the smallest number, of which a logarithm is taken, as its 33rd
    drawn = mapped(gpu, f"uniform_at({seed}u, {stream}u, i)", x)
    np.testing.assert_array_equal(drawn, threefry.uniform(seed, stream, (301,)))
    # An adapter's own sine is bound to 2^-11 (WGSL, section 15.7.4), and its logarithm to 2^-21 near 1.
    normal = mapped(gpu, f"normal_at({seed}u, {stream}u, i)", x)
    np.testing.assert_allclose(normal, threefry.normal(seed, stream, (301,)), rtol=1e-3, atol=2e-3)


def test_weights_of_attention_are_exponentials_of_what_is_left(gpu: Gpu) -> None:
    x = f32([0.0, -0.5, -1.0, -80.0, -86.5, -87.2, -200.0, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        want = np.where(x < -87, 0, np.exp(x))
    np.testing.assert_allclose(mapped(gpu, "exp_weights(vec4f(0.0, x, 0.0, 0.0)).y", x), want, rtol=1e-5)
    shift = mapped(gpu, "finite_shift(vec4f(0.0, 0.0, x, 0.0)).z", x)
    np.testing.assert_array_equal(shift, np.where(np.isneginf(x), 0, x))
