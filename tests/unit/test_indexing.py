"""Indexing and setting: what NumPy gives for the same key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wgpu_nn import Device, Int, tensor
from wgpu_nn.errors import IndexRangeError, KindError, ShapeError

CPU = Device("numpy")
SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=5).map(tuple)


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...], arrays: bool) -> tuple[Any, ...]:
    """Return a key that fits ``shape``: integers, slices with steps of both signs, None, an ellipsis, an index array."""
    parts: list[Any] = []
    used_array = False
    for n in shape:
        choice = draw(st.sampled_from(["slice", "slice", "int", "array", "stop"]))
        if choice == "stop":
            break
        if choice == "int" and n:
            parts.append(draw(st.integers(-n, n - 1)))
        elif choice == "array" and arrays and not used_array and n:
            used_array = True
            size = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple))
            flat = draw(st.lists(st.integers(-n, n - 1), min_size=int(np.prod(size)), max_size=int(np.prod(size))))
            parts.append(np.array(flat, np.int64).reshape(size))
        else:
            bound = st.none() | st.integers(-n - 2, n + 2)
            parts.append(slice(draw(bound), draw(bound), draw(st.sampled_from([None, 1, 2, 3, -1, -2]))))
    consumed = len(parts)
    if consumed < len(shape) and draw(st.booleans()):
        place = draw(st.integers(0, consumed))
        # What follows an ellipsis indexes the last axes: only slices fit any size.
        parts[place:] = [Ellipsis, *(p for p in parts[place:] if isinstance(p, slice))]
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_key_of_slices_integers_and_new_axes_gives_what_numpy_gives(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    key = data.draw(keys(shape, arrays=False))
    assume(len(shape) + sum(p is None for p in key) <= 8)
    x = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(tensor(x, CPU)[key].numpy(), x[key], strict=True)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_key_with_an_index_array_gives_what_numpy_gives(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    key = data.draw(keys(shape, arrays=True))
    x = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    want = x[key]
    assume(want.ndim <= 8 and len(shape) + sum(p is None for p in key) <= 8)
    np.testing.assert_array_equal(tensor(x, CPU)[key].numpy(), want, strict=True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_setting_gives_what_numpy_gives(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    key = tuple(p for p in data.draw(keys(shape, arrays=False)) if p is not None)
    x = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    region = x[key].shape
    lead = data.draw(st.integers(0, len(region)))
    given_shape = tuple(1 if data.draw(st.booleans()) else n for n in region[lead:])
    value = -1 - np.arange(int(np.prod(given_shape)), dtype=np.float32).reshape(given_shape)
    before = tensor(x, CPU)
    got = before.set(key, tensor(value, CPU)).numpy()
    want = x.copy()
    want[key] = value
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(before.numpy(), x, err_msg="the tensor itself must not change")
    want[key] = 7
    np.testing.assert_array_equal(before.set(key, 7.0).numpy(), want)


def test_one_key_may_be_any_part() -> None:
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    t = tensor(x, CPU)
    for key in (0, -1, slice(1, None), None, ..., [2, 0], np.array([[0, 1], [2, 2]]), np.int64(1), (np.int32(2), -1)):
        np.testing.assert_array_equal(t[key].numpy(), x[key], strict=True)
    np.testing.assert_array_equal(t[tensor([2, 0], CPU)].numpy(), x[[2, 0]])
    np.testing.assert_array_equal(t[[]].numpy(), x[[]])


def test_iteration_and_length_walk_the_first_axis() -> None:
    x = tensor([[1.0, 2], [3, 4], [5, 6]], CPU)
    assert len(x) == 3 and [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    a, b, c = x
    assert c[1].item() == 6 and a.shape == b.shape == (2,)


def test_a_key_that_does_not_fit_is_refused() -> None:
    x = tensor(np.zeros((3, 4)), CPU)
    with pytest.raises(IndexRangeError, match="index: expected -3 to 2 on axis 0, got 3"):
        x[3]
    with pytest.raises(IndexRangeError, match="axis 1, got -5"):
        x[0, -5]
    with pytest.raises(ShapeError, match=r"index: expected at most 2 indices for shape \[3, 4\], got 3"):
        x[0, 0, 0]
    with pytest.raises(ShapeError, match="at most one ellipsis"):
        x[..., 0, ...]
    with pytest.raises(ShapeError, match="step other than 0"):
        x[::0]
    with pytest.raises(KindError, match="truth value"):
        x[True]
    with pytest.raises(KindError, match="expected an Int tensor, got Bool"):
        x[x > 0.0]
    with pytest.raises(KindError, match="expected an Int tensor, got Float"):
        x[[0.5, 1.0]]
    with pytest.raises(ShapeError, match="at most one index tensor"):
        x[[0, 1], [0, 1]]
    with pytest.raises(IndexRangeError, match="expected indices from -3 to 2, got 5"):
        x[[0, 5]]
    with pytest.raises(ShapeError, match="set: expected integers and slices"):
        x.set([0, 1], 1.0)
    with pytest.raises(ShapeError):
        x.set((0, slice(None)), tensor([1.0, 2], CPU))
    with pytest.raises(KindError):
        x.set(0, tensor([1, 2, 3, 4], CPU))


def test_setting_keeps_the_kind() -> None:
    x = tensor([1, 2, 3], CPU)
    assert x.kind is Int and x.set(0, 9).tolist() == [9, 2, 3]
    assert tensor([True, False], CPU).set(1, True).tolist() == [True, True]
