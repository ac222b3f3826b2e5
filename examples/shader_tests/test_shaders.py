"""Tests of the WGSL files beside this one. They know NumPy and the fixtures of wgpu_nn.testing, and no tensors."""

import numpy as np
import pytest

from wgpu_nn.errors import SanitizerError
from wgpu_nn.testing import Out, assert_close


def test_double(shader) -> None:
    out = shader("double.wgsl").run({"x": np.arange(5, dtype=np.float32), "out": Out(5)})
    assert_close(out, [0, 2, 4, 6, 8])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (17, 9)])
def test_blur_averages_neighbours(height: int, width: int, shader) -> None:
    pixels = np.random.default_rng(0).random((height, width), dtype=np.float32)
    image = np.array([width, height], np.uint32)
    blurred = shader("blur.wgsl").run({"image": image, "pixels": pixels, "blurred": Out((height, width))})
    padded = np.pad(pixels, 1, mode="edge")
    want = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9
    assert_close(blurred, want, rtol=1e-6)


def test_blur_is_what_it_was(shader, golden) -> None:
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    buffers = {"image": np.array([4, 3], np.uint32), "pixels": pixels, "blurred": Out((3, 4))}
    golden(shader("blur.wgsl").run(buffers, constants={"RADIUS": 2}), "radius_2", rtol=1e-6)


@pytest.mark.parametrize("length", [1, 63, 64, 1000])
def test_totals_of_rows(length: int, shader) -> None:
    rows = np.random.default_rng(0).random((5, length), dtype=np.float32)
    constants = {"WORKGROUP": np.uint32(32), "LENGTH": np.uint32(length)}  # not overrides: appended as const
    total = shader("total.wgsl")
    totals = total.run({"rows": rows, "totals": Out(5)}, groups=5, constants=constants)
    assert_close(totals, rows.sum(axis=1, dtype=np.float64), rtol=1e-5)
    total.find_races({"rows": rows, "totals": Out(5)}, groups=5, constants=constants)


def test_rows_that_are_longer_than_said_are_noticed(shader) -> None:
    constants = {"WORKGROUP": np.uint32(4), "LENGTH": np.uint32(9)}
    with pytest.raises(SanitizerError, match=r"rows\[group.x \* LENGTH \+ i\]: read at index 8, of 8 elements"):
        shader("total.wgsl").run({"rows": np.ones(8, np.float32), "totals": Out(1)}, groups=1, constants=constants)


def test_what_a_body_declares(shader) -> None:
    blur = shader("blur.wgsl")
    assert {name: (b.group, b.binding, b.access) for name, b in blur.bindings.items()} == {
        "image": (0, 0, "read"),
        "pixels": (0, 1, "read"),
        "blurred": (1, 0, "read_write"),
    }
    assert blur.overrides["RADIUS"].default == "1" and blur.workgroup_size(constants={"SIDE": 4}) == (4, 4, 1)


def test_a_body_without_its_constants_does_not_compile(shader) -> None:
    shader("total.wgsl").fails_to_compile("WORKGROUP")
