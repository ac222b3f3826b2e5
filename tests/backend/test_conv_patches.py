"""Convolutions by patches: each shape of patch, by itself and through the planner, against NumPy in double precision."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.cases_conv import counts, window
from tests.null.test_shader_texts import code_of
from tests.plans import TARGETS, Plans
from tests.shader_bench import Out, needs, run
from wgpu_nn import Device, tensor
from wgpu_nn.backends import numpy_windows
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.gpu import PARAMS_WORDS
from wgpu_nn.kernels import Target, conv, conv_patch
from wgpu_nn.kernels.conv_patch import WORKGROUP, WRITER, Patch, PatchKey, Windows, choose_patch, patch_body
from wgpu_nn.shape import size

# x, weight, window and patch: what a patch can be.
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], Patch]] = {
    "whole patches, one channel": ((2, 1, 8, 6), (8, 1, 3, 3), {}, Patch((3, 2), 8)),
    "edges within patches, 4 of 5 outputs": ((3, 5, 7, 11), (5, 5, 3, 2), {}, Patch((4, 4), 4)),
    "one pixel": ((5, 3, 4, 5), (9, 3, 4, 3), {}, Patch((1, 1), 8)),
    "padding on all sides": ((2, 3, 6, 5), (4, 3, 3, 3), {"padding": ((1, 1), (2, 2))}, Patch((2, 3), 4)),
    "padding on two sides, a stride": (
        (2, 3, 12, 9), (17, 3, 3, 3), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}, Patch((2, 5), 8),
    ),
    "padding wider than the window": ((2, 1, 2, 2), (9, 1, 1, 1), {"padding": ((3, 1), (0, 4))}, Patch((3, 3), 4)),
    "strides beyond the window": ((2, 3, 17, 15), (8, 3, 2, 2), {"stride": (4, 3)}, Patch((2, 2), 8)),
    "dilation": (
        (1, 4, 11, 14), (8, 4, 2, 3), {"dilation": (2, 3), "padding": ((1, 1), (3, 3))}, Patch((3, 4), 4),
    ),
    "dilation and stride that share a factor": (
        (1, 2, 13, 15), (3, 2, 3, 2), {"dilation": (2, 3), "stride": (4, 6)}, Patch((2, 2), 4),
    ),
    "groups that a patch does not divide": ((2, 6, 7, 8), (22, 3, 3, 3), {"groups": 2}, Patch((5, 1), 8)),
    "1 x 1": ((3, 11, 5, 7), (12, 11, 1, 1), {}, Patch((1, 16), 8)),
    "5 x 5": ((2, 2, 9, 8), (8, 2, 5, 5), {"padding": ((2, 2), (2, 2))}, Patch((2, 4), 4)),
    "a line": ((2, 3, 1, 19), (8, 3, 1, 4), {"padding": ((0, 0), (1, 2))}, Patch((1, 8), 8)),
}  # fmt: skip
_WEIGHT = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_H * KERNEL_W; }
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 { return (c * KERNEL_H + ky) * KERNEL_W + kx; }"""


class Launches(Plans):
    """A site that also keeps what distinguishes each kernel."""

    def __init__(self, tuned: bool = True) -> None:
        super().__init__(TARGETS["software"], tuned)
        self.keys: list[tuple[Any, tuple[int, ...], Any]] = []

    def launch(self, template: Any, key: Any, words: Any, views: Any, grid: Any) -> None:
        super().launch(template, key, words, views, grid)
        self.keys.append((key, words, grid))


def planned(name: str) -> tuple[PatchKey, dict[str, int], Any]:
    """Return the kernel, the sizes and the workgroups of a row."""
    x_shape, w_shape, more, patch = ROWS[name]
    options = window(2, **more)
    site = Launches()
    found = (x_shape[0], w_shape[0], *counts(x_shape[2:], w_shape[2:], options))
    views = [site.empty(shape, F32) for shape in (x_shape, w_shape, w_shape[:1], found)]
    texts = ("".join(f"const KERNEL_{a} = {k}u;\n" for a, k in zip("HW", w_shape[2:], strict=True)), _WEIGHT)
    conv_patch.run_patches(site, patch, views[0], views[1], views[2:3], views[3], options, texts, None)
    key, words, grid = site.keys[0]
    return key, dict(zip(conv_patch._WORDS, words, strict=True)), grid  # pyright: ignore[reportPrivateUsage]


def given(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ROWS)
def test_a_patch_sums_over_its_windows(name: str, gpu_device: Device, trust: str) -> None:
    x_shape, w_shape, more, _ = ROWS[name]
    options = window(2, **more)
    x, w, bias = given(x_shape, 0), given(w_shape, 1), given(w_shape[:1], 2)
    out_shape = (x_shape[0], w_shape[0], *counts(x_shape[2:], w_shape[2:], options))
    key, sizes, grid = planned(name)
    constants: dict[str, int | bool] = {f"KERNEL_{a}": k for a, k in zip("HW", w_shape[2:], strict=True)}
    text = f"{_WEIGHT}\nfn initial(o: u32) -> f32 {{ return bias[o]; }}"
    buffers: Any = {"source": x, "weight": w, "bias": bias, "out": Out(out_shape)}
    got = run(
        gpu_device.gpu,
        WRITER,
        buffers,
        size(grid),
        constants=constants,
        sizes=sizes,
        text=text,
        written=patch_body(key),
    )
    want = numpy_windows.convolution(x.astype(np.float64), w.astype(np.float64), bias, **options)
    np.testing.assert_allclose(got, want, 1e-5, 2e-5)
    assert grid[0] * WORKGROUP >= sizes["items"] == sizes["patches"] * sizes["group_blocks"] * options["groups"]


@pytest.mark.parametrize("name", ROWS)
def test_a_patch_asks_its_header_for_just_what_it_uses(name: str) -> None:
    key, sizes, _ = planned(name)
    asked, code = needs(WRITER, patch_body(key)), code_of(patch_body(key))
    functions = {"weight_row", "weight_tap", "initial", "finish"}
    assert set(asked) == {*sizes, *functions} and len(asked) == len(set(asked))
    assert all(re.search(rf"\b{name}\b", code) for name in asked) and len(sizes) <= PARAMS_WORDS


# Those that an input gradient or the parameters of eager mode treat in their own way.
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith(("edges", "padding", "dilation", "groups"))])
def test_planned_convolutions_and_input_gradients_agree_with_float64(
    name: str, gpu_device: Device, gpu_variants: dict[str, Device], exact: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_shape, w_shape, more, patch = ROWS[name]
    options = window(2, **more)
    seen: list[Any] = []

    def choose(windows: Windows, tuned: bool) -> Patch:
        seen.append(windows)
        steps = windows.stride if windows.turned else (1, 1)
        return patch._replace(size=tuple(-(-n // s) * s for n, s in zip(patch.size, steps, strict=True)))  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(conv, "choose_patch", choose)
    monkeypatch.setattr(conv, "few", lambda *of: False)
    eager = Device.of(Wgpu(gpu_device.gpu, Target(software=True, invocations=256, storage=16384)))
    x, w, bias = given(x_shape, 0), given(w_shape, 1), given(w_shape[:1], 2)

    def results(device: Device) -> list[np.ndarray]:
        ours = [tensor(v, device) for v in (x, w, bias)]
        out = ours[0].run("conv2d", *ours, **options)
        back = out.run("conv2d_input_grad", out * 0.5 + 0.25, ours[1], shape=x_shape, **options)
        return [out.numpy(), back.numpy()]

    want = results(exact)
    for device in (gpu_variants["software"], eager):
        for got, good in zip(results(device), want, strict=True):
            np.testing.assert_allclose(got, good, 1e-5, 1e-5 * max(1.0, float(np.abs(good).max())))
    # Neither with a stride nor with more padding than that is the input gradient a convolution.
    gathers = options["stride"] != (1, 1) or name == "padding wider than the window"
    assert {w.turned for w in seen} == {False, gathers}


def test_padding_is_zero_beside_what_is_not_finite(
    gpu_variants: dict[str, Device], exact: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What lies outside is read from the image's edge, which must not reach results that see the padding alone.
    monkeypatch.setattr(conv, "choose_patch", lambda *of: Patch((3, 3), 4))
    x = np.full((1, 1, 3, 4), np.inf, np.float32)
    x[0, 0, 2, 3] = np.nan
    w, options = np.ones((4, 1, 2, 2), np.float32), window(2, padding=((3, 3), (3, 3)))

    def result(device: Device) -> np.ndarray:
        ours = [tensor(v, device) for v in (x, w)]
        return ours[0].run("conv2d", *ours, **options).numpy()

    got = result(gpu_variants["software"])
    np.testing.assert_array_equal(got, result(exact))
    assert (got[:, :, :2] == 0).all() and np.isnan(got).any() and np.isinf(got).any()


def test_captured_steps_choose_a_patch_that_fits_and_eager_ones_few_that_serve_all_sizes() -> None:
    def windows(side: int, images: int = 64, kernel: int = 3, group_out: int = 16) -> Windows:
        return Windows((kernel, kernel), (1, 1), (1, 1), images, (side, side), group_out, 1)

    whole = choose_patch(windows(26), tuned=True)
    assert whole is not None and all(26 % n == 0 for n in whole.size) and math.prod(whole.size) > 16
    sizes = [(side, images) for side in (8, 13, 26, 100) for images in (1, 64)]
    assert {choose_patch(windows(*size), tuned=False) for size in sizes} == {Patch((4, 4), 8)}
    assert choose_patch(windows(26, group_out=4), tuned=False) == Patch((4, 4), 4)
    assert choose_patch(windows(1, images=4096), tuned=True) is None, (
        "an image of one pixel has no neighbours to share with"
    )
    assert choose_patch(windows(26, kernel=33), tuned=True) is None, "a text is not unrolled without bounds"
    alone = choose_patch(windows(26, images=1), tuned=True)
    assert alone is not None and math.prod(alone.size) < math.prod(whole.size), "one image is work for all cores"


def test_patches_of_input_gradients_are_made_of_whole_strides() -> None:
    def sizes(stride: int) -> list[tuple[int, int] | None]:
        windows = Windows((3, 3), (stride, stride), (1, 1), 64, (57, 57), 16, 1, turned=True)
        return [patch and patch.size for patch in (choose_patch(windows, tuned) for tuned in (False, True))]

    assert [sizes(n)[0] for n in (1, 2, 3, 5)] == [(4, 4), (4, 4), (3, 3), (5, 5)]
    for stride in (2, 3, 5):
        assert all(size and size[0] % stride == size[1] % stride == 0 for size in sizes(stride))
    assert sizes(6) == [None, None], "a patch would be too large to unroll"
