"""Data sets and the loader: order, resumption, threads, and what goes wrong."""

import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpu_nn.data import (
    ArrayDataset,
    DataLoader,
    Dataset,
    split,
    subset,
)
from wgpu_nn.data.sampling import shuffled
from wgpu_nn.errors import DataError

DIGITS = Path(__file__).parents[2] / "examples" / "mnist" / "mnist10k.npz"


def counting(n: int) -> ArrayDataset:
    return ArrayDataset(np.arange(n), np.arange(n) * 10)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wgpu_nn-loader"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert readers() == []


# Data sets


def test_an_index_gives_an_item_and_an_array_of_indices_a_stack():
    data = ArrayDataset(np.arange(6).reshape(3, 2), np.array([7, 8, 9]))
    x, y = data[1]
    assert x.tolist() == [2, 3] and y.shape == () and y == 8
    x, y = data[np.array([2, 0])]
    assert x.tolist() == [[4, 5], [0, 1]] and y.tolist() == [9, 7]


def test_an_array_dataset_is_a_dataset():
    assert isinstance(counting(1), Dataset)


@pytest.mark.parametrize("arrays", [(), (np.ones(3), np.ones(2)), (np.ones(()),), (np.ones(3), np.ones(()))])
def test_arrays_out_of_step_are_refused(arrays: Any):
    with pytest.raises(DataError, match="expected arrays of one first axis"):
        ArrayDataset(*arrays)


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="expected at least one item"):
        ArrayDataset(np.zeros((0, 28, 28)), np.zeros(0))


def test_a_subset_keeps_the_order_asked_for():
    chosen = subset(subset(counting(10), [9, 3, 3, 1]), [3, 0])
    assert chosen[np.array([0, 1])][0].tolist() == [1, 9]
    assert len(chosen) == 2 and chosen[1][1] == 90


@pytest.mark.parametrize("indices", [[], [10], [-1], [0.5], [True, False], [[1]]])
def test_indices_outside_of_the_dataset_are_refused(indices: Any):
    with pytest.raises(DataError, match="subset: expected"):
        subset(counting(10), indices)


@given(st.integers(2, 50), st.floats(0.05, 0.95), st.integers(0, 2**70))
def test_a_split_shares_out_every_item_once(n: int, fraction: float, seed: int):
    if 1 <= round(n * fraction) < n:
        a, b = split(counting(n), fraction, seed)
        assert len(a) == round(n * fraction)
        assert sorted([*a[np.arange(len(a))][0], *b[np.arange(len(b))][0]]) == list(range(n))


def test_a_split_by_counts_agrees_with_one_by_fraction():
    by_fraction, by_count = split(counting(10), 0.9, 3), split(counting(10), [9, 1], 3)
    assert [p[np.arange(len(p))][0].tolist() for p in by_fraction] == [
        p[np.arange(len(p))][0].tolist() for p in by_count
    ]


@pytest.mark.parametrize("parts", [0.0, 1.0, 1, -0.5, float("nan"), 0.01, [11], [5, 6], [5, 0], []])
def test_a_split_with_an_empty_part_or_too_many_items_is_refused(parts: Any):
    with pytest.raises(DataError, match="split: expected"):
        split(counting(10), parts, 0)


def test_the_shuffle_is_pinned_to_its_numbers():
    assert shuffled(8, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert shuffled(8, 0, 1).tolist() == [7, 6, 2, 3, 1, 0, 4, 5]


def test_seed_and_epoch_are_not_confused():
    orders = [shuffled(50, 0), shuffled(50, 0, 0), shuffled(50, 0, 1), shuffled(50, 1, 0), shuffled(50, 2**32, 0)]
    assert len({order.tobytes() for order in orders}) == len(orders)


# Loader


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [3, 3, 3, 1]), (True, [3, 3, 3])])
def test_batches_cover_the_epoch(prefetch: int, drop_last: bool, sizes: list[int]):
    loader = DataLoader(counting(10), 3, shuffle=False, seed=0, drop_last=drop_last, prefetch=prefetch)
    batches = list(loader.epoch(0))
    assert [len(x) for x, _ in batches] == sizes and len(loader) == len(sizes)
    assert np.concatenate([x for x, _ in batches]).tolist() == list(range(sum(sizes)))
    assert all((y == 10 * x).all() for x, y in batches)


def test_a_batch_is_a_function_of_seed_and_epoch():
    def epoch(seed: int, e: int) -> list[int]:
        return np.concatenate([x for x, _ in DataLoader(counting(20), 3, shuffle=True, seed=seed).epoch(e)]).tolist()

    assert sorted(epoch(0, 0)) == list(range(20))
    assert epoch(0, 0) == epoch(0, 0)
    assert len({tuple(epoch(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 3), st.data())
@settings(deadline=None)
def test_an_epoch_resumes_at_any_batch(n: int, batch_size: int, prefetch: int, data: st.DataObject):
    loader = DataLoader(counting(n), batch_size, shuffle=True, seed=5, prefetch=prefetch)
    start = data.draw(st.integers(0, len(loader)))
    whole = [x.tolist() for x, _ in loader.epoch(2)]
    assert [x.tolist() for x, _ in loader.epoch(2, start)] == whole[start:]


def test_the_transform_sees_each_batch():
    loader = DataLoader(counting(4), 2, shuffle=False, seed=0, transform=lambda batch: (batch[0] + 1,))
    assert [[a.tolist() for a in batch] for batch in loader.epoch(0)] == [[[1, 2]], [[3, 4]]]


class Broken:
    """A data set that fails at item 5."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: Any, /) -> tuple[np.ndarray, ...]:
        if 5 in np.atleast_1d(index):
            raise KeyError("disk on fire")
        return (np.asarray(index),)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_failure_comes_after_the_good_batches_and_names_its_items(prefetch: int):
    seen: list[list[int]] = []
    with pytest.raises(DataError, match=r"batch 2 of epoch 7 failed, items \[4, 5\]: KeyError") as caught:
        for (x,) in DataLoader(Broken(), 2, shuffle=False, seed=0, prefetch=prefetch).epoch(7):
            seen.append(x.tolist())
    assert seen == [[0, 1], [2, 3]]
    assert isinstance(caught.value.__cause__, KeyError)
    assert "disk on fire" in "".join(traceback.format_exception(caught.value))
    assert any(frame.name == "__getitem__" for frame in traceback.extract_tb(caught.value.__cause__.__traceback__))


def test_a_long_batch_is_named_in_short():
    with pytest.raises(DataError, match=r"items \[0, 1, .*, 15, ... 40 in all\]"):
        list(DataLoader(counting(40), 40, shuffle=False, seed=0, transform=lambda b: b[0] / None).epoch(0))  # pyright: ignore


@pytest.mark.parametrize("answer", [np.ones(2), (), (np.ones(3),), (np.ones(2), np.float32(1)), [np.ones(2)], None])
def test_a_dataset_that_ignores_index_arrays_is_refused(answer: Any):
    class Odd(Broken):
        def __getitem__(self, index: Any, /) -> tuple[np.ndarray, ...]:
            return answer

    with pytest.raises(DataError, match="expected a tuple or dict of arrays of first axis 2"):
        list(DataLoader(Odd(), 2, shuffle=False, seed=0).epoch(0))


def test_leaving_the_loop_ends_the_thread():
    for _ in DataLoader(counting(100), 1, shuffle=True, seed=0).epoch(0):
        assert len(readers()) == 1
        break
    assert readers() == []


def test_closing_the_iterator_ends_the_thread():
    batches = DataLoader(counting(100), 1, shuffle=True, seed=0).epoch(0)
    next(batches)
    batches.close()
    assert readers() == []
    assert next(batches, None) is None


def test_an_exception_in_the_loop_ends_the_thread():
    batches = DataLoader(counting(100), 1, shuffle=True, seed=0).epoch(0)
    with pytest.raises(ZeroDivisionError):
        for _ in batches:
            _ = 1 / 0
    batches.close()
    assert readers() == []


def test_an_iterator_that_is_never_started_starts_no_thread():
    batches = DataLoader(counting(3), 1, shuffle=True, seed=0).epoch(0)
    assert readers() == []
    del batches


def test_two_epochs_can_be_read_at_once():
    loader = DataLoader(counting(10), 2, shuffle=True, seed=0)
    for (a, _), (b, _) in zip(loader.epoch(1), loader.epoch(1), strict=True):
        assert a.tolist() == b.tolist()


def test_no_more_than_prefetch_batches_are_read_ahead():
    read: list[int] = []

    def note(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        read.append(int(batch[0][0]))
        return batch

    batches = DataLoader(counting(50), 1, shuffle=False, seed=0, prefetch=2, transform=note).epoch(0)
    next(batches)
    deadline = time.monotonic() + 5
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read == [0, 1, 2, 3]  # one taken, two on the shelf, one in the hand
    batches.close()


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"prefetch": -1}, {"seed": -1}, {"batch_size": 11, "drop_last": True}],
)
def test_a_loader_that_cannot_work_is_refused(wrong: dict[str, Any]):
    with pytest.raises(DataError, match="DataLoader: expected"):
        DataLoader(counting(10), **{"batch_size": 2, "shuffle": True, "seed": 0, **wrong})


def test_an_empty_dataset_of_any_class_is_refused_by_the_loader():
    class Empty(Broken):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DataError, match="empty data set"):
        DataLoader(Empty(), 2, shuffle=False, seed=0)


@pytest.mark.parametrize("position", [(0, -1), (0, 6), (-1, 0)])
def test_a_position_outside_of_the_epoch_is_refused_at_once(position: tuple[int, int]):
    with pytest.raises(DataError, match=r"expected epoch >= 0 and start_batch in 0 .. 5"):
        DataLoader(counting(10), 2, shuffle=False, seed=0).epoch(*position)
