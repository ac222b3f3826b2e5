"""Data sets of data sets, samplers, collates and streams: which items come, in which order, how often, and from where."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpu_nn import Device
from wgpu_nn.data import (
    ArrayDataset,
    DataLoader,
    PadCollate,
    StreamLoader,
    WeightedSampler,
    cached,
    filtered_stream,
    in_memory,
    labels_of,
    mapped,
    mapped_stream,
    permuted,
    prefetched,
    sampled,
    shuffled_stream,
    split,
    stacked,
    subset,
    windowed,
)
from wgpu_nn.errors import DataError
from wgpu_nn.train.feed import feed


def counting(n: int) -> ArrayDataset:
    return ArrayDataset(np.arange(n), np.arange(n) % 3)


class Counted:
    """A data set that counts how often each item is read."""

    def __init__(self, n: int = 10) -> None:
        self.reads = np.zeros(n, int)

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: Any, /) -> tuple[np.ndarray, ...]:
        np.add.at(self.reads, index, 1)
        return np.asarray(index, np.float32) * np.float32(1), np.asarray(index)


def first(data: Any) -> list[Any]:
    return data[np.arange(len(data))][0].tolist()


# --- splits ------------------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 4), min_size=6, max_size=60), st.floats(0.1, 0.9), st.integers(0, 99))
@settings(deadline=None)
def test_stratified_parts_have_their_share_of_each_class(labels: list[int], fraction: float, seed: int):
    counts = np.bincount(labels, minlength=5)
    n = len(labels)
    if not 1 <= round(n * fraction) < n or min(counts[counts > 0]) < 2:
        return
    data = ArrayDataset(np.arange(n), np.array(labels))
    parts = split(data, fraction, seed, stratify=True)
    assert [len(part) for part in parts] == [round(n * fraction), n - round(n * fraction)]
    assert sorted(i for part in parts for i in first(part)) == list(range(n))
    for part in parts:
        share = np.bincount(labels_of(part), minlength=5)
        assert (abs(share - counts * len(part) / n) < 1 + 1e-9).all()


def test_a_stratified_split_looks_labels_up_reads_them_or_takes_those_given():
    read = Counted(40)
    for data, stratify in (
        (subset(counting(40), np.arange(39)), True),
        (mapped(counting(40), lambda b: (b[0], b[1] * 2)), True),
        (read, np.arange(40) % 2),
    ):
        a, b = split(data, [20, 10], 0, stratify=stratify)
        assert len(a) == 20 and len(b) == 10 and not set(first(a)) & set(first(b))
    assert first(split(counting(40), 0.5, 0, True)[0]) != first(split(counting(40), 0.5, 1, True)[0])


@pytest.mark.parametrize(
    ("stratify", "said"),
    [
        (np.arange(9), r"one class for each of 10 items, got int64 \[9\]"),
        (np.ones(10), "got float64"),
        (np.array([0] * 9 + [1]), "at least 2 items of each class, got 1 of class 1"),
    ],
)
def test_labels_that_cannot_stratify_are_refused(stratify: Any, said: str):
    with pytest.raises(DataError, match=said):
        split(counting(10), 0.5, 0, stratify=stratify)


# --- wrappers ----------------------------------------------------------------------------------------------------------
def test_a_permuted_data_set_keeps_its_order():
    data = permuted(counting(20), 3)
    assert (
        sorted(first(data))
        == list(range(20))
        != first(data)
        == first(permuted(counting(20), 3))
        != first(permuted(counting(20), 4))
    )


def test_sampling_follows_weights_with_and_without_replacement():
    weights = [0.0, 1, 2, 0, 7]
    drawn = first(sampled(counting(5), 20_000, 0, weights, replace=True))
    shares = np.bincount(drawn, minlength=5) / 20_000
    assert shares[0] == shares[3] == 0
    np.testing.assert_allclose(shares[[1, 2, 4]], [0.1, 0.2, 0.7], atol=0.013)  # 4 standard deviations
    assert sorted(first(sampled(counting(5), 3, 1, weights))) == [1, 2, 4]
    assert sorted(first(sampled(counting(9), 9, 5))) == list(range(9))
    # The first draw without replacement follows the weights, as one with replacement does.
    firsts = np.bincount([first(sampled(counting(5), 1, seed, weights))[0] for seed in range(2000)], minlength=5) / 2000
    np.testing.assert_allclose(firsts, [0, 0.1, 0.2, 0, 0.7], atol=0.042)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 6},
        {"n": 0},
        {"weights": [1, 1]},
        {"weights": [0.0] * 5},
        {"weights": [1, 1, -1, 1, 1]},
        {"weights": [1, 1, float("nan"), 1, 1]},
        {"n": 2, "weights": [0, 0, 0, 0, 1]},
    ],
)
def test_draws_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(DataError, match=r"expected"):
        sampled(counting(5), **{"n": 3, "seed": 0, **wrong})


def test_a_function_of_single_items_is_mapped_over_any_data_set():
    data = mapped(Sentences(), lambda item: (len(item["words"]), item["name"]), each=True)
    assert data[2] == (3, "s2") and [a.tolist() for a in data[np.array([4, 0])]] == [[5, 1], ["s4", "s0"]]
    assert in_memory(mapped(counting(3), lambda item: item, each=True)) and not in_memory(data)
    (lengths, _) = next(DataLoader(data, 3, shuffle=False, seed=0).epoch(0))
    assert lengths.tolist() == [1, 2, 3]


def test_windows_are_runs_of_items():
    data = windowed(counting(10), 4, stride=3)
    assert len(data) == 3 and in_memory(data)
    assert data[2][0].tolist() == [6, 7, 8, 9] and data[-1][0].tolist() == [6, 7, 8, 9]
    assert data[np.array([1, 0])][0].tolist() == [[3, 4, 5, 6], [0, 1, 2, 3]]
    x, _ = windowed(ArrayDataset(np.zeros((5, 2, 3)), np.arange(5)), 5)[np.arange(1)]
    assert x.shape == (1, 5, 2, 3)
    with pytest.raises(IndexError, match=r"expected an index in 0 .. 2, got 3"):
        data[3]
    for wrong in ((11, 1), (0, 1), (2, 0)):
        with pytest.raises(DataError, match="windowed: expected"):
            windowed(counting(10), *wrong)


# --- caches ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("disk", [False, True])
def test_a_cached_item_is_read_once(tmp_path: Path, disk: bool):
    source = Counted()
    data = cached(source, tmp_path / "cache" if disk else None)
    for _ in range(3):
        assert data[np.array([4, 1, 4])][0].tolist() == [4, 1, 4] and data[-1][1] == 9
    loader = DataLoader(data, 3, shuffle=True, seed=0, workers=3)
    assert sorted(np.concatenate([x for x, _ in loader.epoch(1)])) == list(range(10))
    list(loader.epoch(2))
    assert source.reads.tolist() == [1] * 10


def test_a_cache_on_disk_serves_later_runs_and_other_processes(tmp_path: Path):
    first(cached(Counted(), tmp_path / "c", "a"))
    later = Counted()
    assert first(pickle.loads(pickle.dumps(cached(later, tmp_path / "c", "a")))) == list(range(10))
    assert later.reads.sum() == 0
    damaged = next((tmp_path / "c").rglob("3.npz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert (
        first(cached(later, tmp_path / "c", "a")) == list(range(10)) and later.reads.tolist() == [0] * 3 + [1] + [0] * 6
    )


def test_a_cache_of_something_else_is_refused(tmp_path: Path):
    cached(Counted(), tmp_path / "c", "64 x 64")
    with pytest.raises(DataError, match=r"expected a cache of .*'32 x 32'.*name another folder"):
        cached(Counted(), tmp_path / "c", "32 x 32")
    with pytest.raises(DataError, match="'items': 9"):
        cached(Counted(9), tmp_path / "c", "64 x 64")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("")
    with pytest.raises(DataError, match="with other files"):
        cached(Counted(), tmp_path / "d")
    with pytest.raises(DataError, match="expected a folder to write to"):
        cached(Counted(), tmp_path / "d" / "mine")


# --- samplers ----------------------------------------------------------------------------------------------------------
def test_a_balanced_sampler_draws_classes_equally_and_anew_each_epoch():
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    sampler = WeightedSampler.balanced(labels, seed=1, n=3000)
    loader = DataLoader(ArrayDataset(labels), 100, shuffle=False, seed=0, sampler=sampler)
    assert len(loader) == 30 and loader.shuffle
    epochs = [np.concatenate([y for (y,) in loader.epoch(e)]) for e in range(2)]
    np.testing.assert_allclose(np.bincount(epochs[0]) / 3000, 1 / 3, atol=0.04)
    assert not np.array_equal(loader.order(0), loader.order(1)) and np.array_equal(loader.order(1), loader.order(1))
    assert [y.tolist() for (y,) in loader.epoch(1, 28)] == [epochs[1][2800:2900].tolist(), epochs[1][2900:].tolist()]


def test_a_sampler_of_another_length_is_refused():
    class Short:
        def __len__(self) -> int:
            return 5

        def order(self, epoch: int) -> np.ndarray:
            return np.arange(4)

    with pytest.raises(DataError, match="expected 5 indices of the sampler for epoch 3"):
        DataLoader(counting(9), 2, shuffle=False, seed=0, sampler=Short()).epoch(3)


def test_what_is_augmented_does_not_stay_on_a_device():
    made = DataLoader(counting(9), 2, shuffle=False, seed=0, augment=lambda item, generator: item)
    assert not made.repeatable and feed(made, Device("numpy")).reason
    assert not feed(DataLoader(counting(9), 2, shuffle=False, seed=0), Device("numpy")).reason


# --- batches -----------------------------------------------------------------------------------------------------------
def test_the_last_batch_is_filled_and_every_batch_has_a_mask():
    loader = DataLoader(counting(7), 3, shuffle=False, seed=0, pad_last=True)
    batches = [[a.tolist() for a in batch] for batch in loader.epoch(0)]
    assert len(loader) == 3 and batches[0] == [[0, 1, 2], [0, 1, 2], [True, True, True]]
    assert batches[2] == [[6, 6, 6], [0, 0, 0], [True, False, False]]
    stream = StreamLoader([{"x": i} for i in range(4)], 3, pad_last=True)
    assert [{k: v.tolist() for k, v in batch.items()} for batch in stream.epoch(0)][1] == {
        "x": [3, 3, 3],
        "mask": [True, False, False],
    }
    with pytest.raises(DataError, match="drop_last or pad_last, got both"):
        DataLoader(counting(7), 3, shuffle=False, seed=0, pad_last=True, drop_last=True)


class Sentences:
    """Items by single index only: dicts with sequences of different lengths, and a nested pair."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: Any, /) -> dict[str, Any]:
        i = int(index)
        return {"words": list(range(i + 1)), "pair": (i, [i, i]), "name": f"s{i}"}


def test_dicts_are_collated_and_their_sequences_padded():
    loader = DataLoader(Sentences(), 3, shuffle=False, seed=0, collate=PadCollate(("words",), value=-1, multiple_of=4))
    a, b = loader.epoch(0)
    assert a["words"].tolist() == [[0, -1, -1, -1], [0, 1, -1, -1], [0, 1, 2, -1]] and b["words"].shape == (2, 8)
    assert a["words_lengths"].tolist() == [1, 2, 3] and b["words_lengths"].dtype == np.int32
    assert (
        a["pair"][0].tolist() == [0, 1, 2]
        and a["pair"][1][0].tolist() == [0, 1, 2]
        and b["name"].tolist() == ["s3", "s4"]
    )
    with pytest.raises(
        DataError, match=r"items \[0, 1, 2\]: DataError: stacked: expected the length .* item\['words'\]"
    ):
        list(DataLoader(Sentences(), 3, shuffle=False, seed=0, collate=stacked).epoch(0))


def test_sequences_in_tuples_are_padded_to_one_length():
    items = [(np.ones((n, 2), np.float32), n) for n in (0, 3, 1)]
    x, y, lengths = PadCollate(length=4)(items)
    assert x.shape == (3, 4, 2) and x.sum((1, 2)).tolist() == [0, 6, 2] and lengths.tolist() == y.tolist() == [0, 3, 1]
    with pytest.raises(DataError, match="at most 2 elements in field 0, got 3"):
        PadCollate(length=2)(items)
    with pytest.raises(DataError, match="expected a sequence as field 1"):
        PadCollate((1,))(items)
    wrongs: list[dict[str, Any]] = [{"fields": ()}, {"multiple_of": 0}, {"length": 0}]
    for wrong in wrongs:
        with pytest.raises(DataError, match="PadCollate: expected at least one field"):
            PadCollate(**wrong)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "at least one item"),
        ([(1,), (1, 2)], "the length of the first for item, 1, got 2 at place 1"),
        ([{"a": 1}, {"b": 1}], "the keys"),
        ([np.ones(2), np.ones(3)], r"the shape of the first for item, \(2,\), got \(3,\) at place 1"),
        ([(1,), ("a",)], r"the kind of the first for item\[0\]"),
        ([(object(),)], "expected arrays, numbers, texts, tuples or dicts, got object"),
    ],
)
def test_items_that_are_not_alike_are_refused_by_place(items: list[Any], said: str):
    with pytest.raises(DataError, match=said):
        stacked(items)


# --- streams -----------------------------------------------------------------------------------------------------------
def test_a_shuffled_stream_has_all_items_in_an_order_of_its_epoch():
    def order(buffer: int, seed: int, epoch: int) -> list[int]:
        loader = StreamLoader(shuffled_stream(mapped_stream(range(100), lambda i: (i,)), buffer, seed), 7, workers=2)
        return [int(x) for (batch,) in loader.epoch(epoch) for x in batch]

    orders = [order(30, 0, 0), order(30, 0, 1), order(30, 1, 0), order(100, 0, 0), order(1000, 0, 0)]
    assert all(sorted(o) == list(range(100)) for o in orders) and len({tuple(o) for o in orders}) == 5
    assert order(30, 0, 1) == orders[1]
    moved = np.abs(np.array(orders[3]) - np.arange(100)).mean()
    assert 25 < moved < 42  # (n^2 - 1) / 3n = 33 for a whole shuffle; its deviation is about 2.1
    assert order(2, 0, 0) != list(range(100))


def test_streams_are_filtered_mapped_and_read_ahead():
    stream = prefetched(filtered_stream(mapped_stream(range(20), lambda i: (i * i,)), lambda item: item[0] % 2 == 0), 3)
    assert [x for (x,) in stream] == [i * i for i in range(0, 20, 2)]
    assert [len(x) for (x,) in StreamLoader(stream, 4, drop_last=True, workers=2).epoch(0)] == [4, 4]
    for _ in stream:
        break
    assert not [t for t in threading.enumerate() if t.name == "wgpu_nn-loader"]


def test_items_that_a_worker_passes_over_are_not_made():
    made: list[int] = []

    def note(i: int) -> tuple[int]:
        made.append(i)
        return (i,)

    assert len(list(StreamLoader(mapped_stream(range(20), note), 4, workers=3).epoch(0, start_batch=2))) == 3
    assert sorted(made) == list(range(8, 20))


def test_a_stream_that_fails_names_batch_and_item():
    class Torn:
        def __iter__(self) -> Iterator[tuple[int]]:
            yield from ((i,) for i in range(5))
            raise OSError("disk on fire")

    for workers in (0, 1, 2):
        seen: list[int] = []
        with pytest.raises(DataError, match="batch 1 of epoch 0 failed at item 5: OSError: disk on fire"):
            for (x,) in StreamLoader(Torn(), 3, workers=workers).epoch(0):
                seen += x.tolist()
        assert seen == [0, 1, 2]


def test_what_cannot_be_read_again_is_no_stream():
    with pytest.raises(DataError, match="can be iterated over again each epoch, got count"):
        StreamLoader(itertools.count(), 2)
    for wrong in (lambda: shuffled_stream([1], 1, 0), lambda: prefetched([1], 0), lambda: StreamLoader([1], 0)):
        with pytest.raises(DataError, match="expected"):
            wrong()
