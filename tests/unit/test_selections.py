"""Sorted, selected and counted elements on NumPy's backend: what the methods promise, their gradients and their errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.case import f32
from wgpu_nn import Device, tensor
from wgpu_nn.errors import KindError, ShapeError


def test_sort_gives_values_and_where_they_came_from(cpu: Device) -> None:
    x = tensor(f32([[2, np.nan, -1, 2, -0.0], [0, 1, 0, np.inf, -np.inf]]), cpu)
    values, places = x.sort()
    assert places.tolist() == [[2, 4, 0, 3, 1], [4, 0, 2, 1, 3]]
    np.testing.assert_array_equal(values.numpy(), f32([[-1, 0, 2, 2, np.nan], [-np.inf, 0, 0, 1, np.inf]]))
    assert x.sort(descending=True)[1].tolist() == [[1, 0, 3, 4, 2], [3, 1, 0, 2, 4]]
    assert x.sort(0)[1].tolist() == [[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]]


def test_topk_is_the_beginning_of_a_sort(cpu: Device) -> None:
    x = tensor(f32([[3, 1, 3, 2], [0, 5, -5, 5]]), cpu)
    values, places = x.topk(2)
    assert values.tolist() == [[3, 3], [5, 5]] and places.tolist() == [[0, 2], [1, 3]]
    assert x.topk(1, largest=False)[0].tolist() == [[1], [-5]]
    assert x.topk(2, dim=0)[1].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    with pytest.raises(ShapeError, match="topk: expected k from 0 to 4"):
        x.topk(5)


def test_gradients_go_where_sorted_and_selected_elements_came_from(cpu: Device) -> None:
    device = cpu.autodiff()
    x = tensor(f32([3, 1, 2, 0]), device).require_grad()
    weights = tensor(f32([1, 10, 100, 1000]), device)
    assert (x.sort()[0] * weights).sum().backward()[x].tolist() == [1000, 10, 100, 1]
    assert (x.topk(2)[0] * weights.narrow(0, 0, 2)).sum().backward()[x].tolist() == [1, 0, 10, 0]
    picked = x.masked_select(x > 0.5)
    assert (picked * weights.narrow(0, 0, 3)).sum().backward()[x].tolist() == [1, 10, 100, 0]


@pytest.mark.parametrize(
    "row", [[0.0, 2, 3], [2, 0, 3, 4], [2, 3, 0, 4, 0, 5], [0, 0, 1], [1, 2, 3], [2, 3, 0]], ids=str
)
def test_the_gradient_of_a_running_product_is_exact_with_zeros(row: list[float], exact: Device) -> None:
    x = tensor(np.array(row, np.float64), exact.autodiff()).require_grad()
    weights = np.arange(1.0, len(row) + 1)
    found = (x.cumprod(0) * tensor(weights, exact.autodiff())).sum().backward()[x].numpy()
    want = [
        sum(weights[j] * np.prod([row[k] for k in range(j + 1) if k != i]) for j in range(i, len(row)))
        for i in range(len(row))
    ]
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_a_running_extreme_gives_its_gradient_to_the_last_of_equals_and_to_nan(exact: Device) -> None:
    x = tensor([1.0, 3, 2, 3, 1, np.nan, 9], exact.autodiff()).require_grad()
    out = x.cummax(0)
    np.testing.assert_array_equal(out.numpy(), [1, 3, 3, 3, 3, np.nan, np.nan])
    assert out.backward(tensor(np.arange(7.0) + 1, exact))[x].tolist() == [1, 5, 0, 9, 0, 13, 0]


def test_nonzero_gives_indices_in_row_major_order(cpu: Device) -> None:
    x = f32([[0, 1, np.nan], [0, 0, 0], [-1, -0.0, 0]])
    assert tensor(x, cpu).nonzero().tolist() == [[0, 1], [0, 2], [2, 0]]
    assert tensor(x > 0, cpu).nonzero().tolist() == [[0, 1]]
    assert tensor(x[1], cpu).nonzero().shape == (0, 1)
    assert tensor(x[:0], cpu).nonzero().shape == (0, 2)
    assert tensor(2.0, cpu).nonzero().shape == (1, 0)


def test_masked_select_broadcasts(cpu: Device) -> None:
    x = tensor(np.arange(6).reshape(2, 3), cpu)
    assert x.masked_select(x > 2).tolist() == [3, 4, 5]
    assert x.masked_select(tensor([True, False, True], cpu)).tolist() == [0, 2, 3, 5]
    assert tensor([7], cpu).masked_select(x < 2).tolist() == [7, 7]
    with pytest.raises(KindError, match="masked_select: expected a Bool mask, got Int"):
        x.masked_select(x)


def test_bincount_counts_each_number(cpu: Device) -> None:
    x = tensor([[3, 1], [1, 0]], cpu)
    assert x.bincount().tolist() == [1, 2, 0, 1]
    assert x.bincount(6).tolist() == [1, 2, 0, 1, 0, 0]
    assert (x - 1).bincount(length=2).tolist() == [2, 0]
    assert x.narrow(0, 0, 0).bincount(2).tolist() == [0, 0]
    with pytest.raises(ShapeError, match="bincount: expected elements of 0 or more, got -1; give a length"):
        (x - 1).bincount()
    with pytest.raises(KindError, match=r"bincount: expected an Int tensor, got Float; convert it with .int\(\)"):
        x.float().bincount()


def test_a_histogram_has_its_upper_end_in_the_last_bin(cpu: Device) -> None:
    x = tensor(f32([0, 0.25, 0.3, 1, 1.01, -0.01, np.nan, np.inf, -np.inf]), cpu)
    assert x.histogram(4, 0, 1).tolist() == [1, 2, 0, 1]
    with pytest.raises(ShapeError, match="histogram: expected bins of 1 or more and low < high"):
        x.histogram(4, 1, 1)
    with pytest.raises(KindError, match="histogram: expected a Float tensor, got Int"):
        x.int().histogram(4, 0, 1)
