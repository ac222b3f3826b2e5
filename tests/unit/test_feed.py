"""Where batches come from: what stays on the device is what the loader would have uploaded, bit for bit, or says why not."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trial import Trial
from wgpu_nn import Config, Device, Tensor
from wgpu_nn.data import ArrayDataset, DataLoader, Dataset, in_memory, mapped, split, subset
from wgpu_nn.errors import DataError, OutOfMemoryError, TrainingError
from wgpu_nn.nn import CrossEntropyLossConfig, LinearConfig
from wgpu_nn.optim import SgdConfig
from wgpu_nn.train import Learner, Lines, read_log
from wgpu_nn.train import feed as feeds
from wgpu_nn.train.feed import Feed, feed

Item = tuple[np.ndarray, ...]
CPU = Device("numpy")


def doubled(items: Item) -> Item:
    return (items[0] * 2).astype(np.float32), items[1]


def counting(n: int) -> ArrayDataset:
    return ArrayDataset(np.arange(3 * n, dtype=np.uint8).reshape(n, 3), np.arange(n))


def loader(dataset: Dataset, **given: Any) -> DataLoader:
    return DataLoader(dataset, **{"batch_size": 4, "shuffle": True, "seed": 3, **given})


def batches(source: Feed, epoch: int, start: int = 0) -> list[tuple[list[Any], list[int], int]]:
    found: list[tuple[list[Any], list[int], int]] = []
    for given_, items in source.epoch(epoch, start):
        x, y = cast(tuple[Tensor, Tensor], source.batch(given_))
        found.append((x.tolist(), y.tolist(), items))
    return found


class Lazy:
    """A data set that reads its items from elsewhere."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: Any, /) -> Item:
        return counting(10)[index]


# --- data sets -------------------------------------------------------------------------------------------------------
def test_a_mapped_data_set_gives_items_and_stacks_through_its_function():
    data = mapped(counting(5), doubled)
    x, y = data[2]
    assert x.tolist() == [12, 14, 16] and x.dtype == np.float32 and y == 2 and y.shape == ()
    x, y = data[np.array([4, 0])]
    assert x.tolist() == [[24, 26, 28], [0, 2, 4]] and y.tolist() == [4, 0]
    assert len(data) == 5
    assert subset(data, [3])[0][0].tolist() == [18, 20, 22]


def test_a_data_set_is_in_memory_if_its_source_is():
    data = mapped(counting(10), doubled)
    assert in_memory(counting(1)) and in_memory(data) and in_memory(subset(data, [1]))
    assert all(in_memory(part) for part in split(data, 0.5, 0))
    assert not in_memory(Lazy()) and not in_memory(mapped(subset(Lazy(), [0]), doubled))


def test_the_whole_of_a_loader_is_its_data_set_in_order():
    x, y = loader(mapped(counting(10), doubled)).whole()
    assert y.tolist() == list(range(10)) and x.dtype == np.float32
    assert np.array_equal(x, 2.0 * np.arange(30).reshape(10, 3))


@pytest.mark.parametrize(
    "odd",
    [
        lambda b: (b[0].astype(f"f{4 if 0 in b[1] else 8}"), b[1]),
        lambda b: (b[0][:1], b[1]),
        lambda b: (b[0], b[1][:2]),
    ],
)
def test_batches_that_differ_in_kind_make_no_whole(odd: Any):
    with pytest.raises(DataError, match="make them alike"):
        loader(counting(10), transform=odd).whole()


def test_a_failure_while_the_whole_is_read_names_its_items():
    with pytest.raises(DataError, match=r"the whole data set failed, items \[4, 5, 6, 7\]: ZeroDivisionError"):
        loader(mapped(counting(10), lambda b: 1 // 0 if 5 in b[1] else b)).whole()  # pyright: ignore


# --- the same batches ------------------------------------------------------------------------------------------------
@given(st.integers(1, 25), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 2), st.data())
@settings(deadline=None, max_examples=60)
def test_kept_batches_are_those_of_the_loader(
    n: int, size: int, shuffle: bool, drop_last: bool, epoch: int, data: st.DataObject
):
    made = loader(
        mapped(counting(n), doubled), batch_size=size, shuffle=shuffle, drop_last=drop_last and n >= size, prefetch=0
    )
    start = data.draw(st.integers(0, len(made)))
    kept, streamed = feed(made, CPU), feed(made, CPU, keep=False)
    assert kept.nbytes == 16 * n and streamed.nbytes == 0 and kept.reason == streamed.reason == ""
    expected = [(x.tolist(), y.tolist(), len(y)) for x, y in made.epoch(epoch, start)]
    assert batches(kept, epoch, start) == batches(streamed, epoch, start) == expected


def test_a_feed_gives_every_epoch_its_own_order():
    kept = feed(loader(counting(10)), CPU)
    first, second = batches(kept, 0), batches(kept, 1)
    assert first != second and batches(kept, 0) == first


def test_what_is_kept_in_double_precision_is_counted_so():
    assert feed(loader(counting(10)), Device("numpy:f64")).nbytes == 320


# --- what does not stay ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("made", "room", "reason"),
    [
        (loader(Lazy()), 1000, "not all in memory"),
        (loader(counting(10), transform=doubled), 1000, "transform may make something else of them"),
        (loader(counting(10)), 159, "take 160 bytes, and 159 are left"),
        (loader(counting(10)), -5, "take 160 bytes, and -5 are left"),
    ],
)
def test_data_that_do_not_stay_say_why(made: DataLoader, room: int, reason: str):
    streamed = feed(made, CPU, room=room)
    assert streamed.nbytes == 0 and reason in streamed.reason
    asked_for = feed(made, CPU, keep=True, room=room)
    assert asked_for.nbytes == 160 and asked_for.reason == ""
    assert batches(asked_for, 1) == batches(streamed, 1)


def test_a_device_out_of_memory_gets_its_batches_one_by_one(monkeypatch: pytest.MonkeyPatch):
    def full(*arrays: np.ndarray, device: Device) -> None:
        raise OutOfMemoryError("allocate: no")

    monkeypatch.setattr(feeds, "DeviceDataset", full)
    assert "no memory left" in feed(loader(counting(10)), CPU).reason
    with pytest.raises(
        TrainingError, match="keep_on_device: expected data that fit, but the device has no memory left"
    ):
        feed(loader(counting(10)), CPU, keep=True)


# --- in the loop -----------------------------------------------------------------------------------------------------
class Recipe(Config):
    lr: float = 0.1


def trial(run: Path, train: DataLoader, valid: DataLoader, **more: Any) -> Trial:
    CPU.seed(1)
    model = LinearConfig(3, 40).init(CPU.autodiff())
    learner = Learner(model, SgdConfig(lr=0.1).init(), CrossEntropyLossConfig().init(), **more)
    return Trial(learner, train, valid, run, Recipe())


def test_a_run_notes_which_data_are_uploaded_and_why(tmp_path: Path):
    good, bad = loader(mapped(counting(10), doubled)), loader(counting(10), transform=doubled)
    for train, valid, keep, names in (
        (bad, bad, None, "training and validation data do not"),
        (good, bad, None, "validation data do not"),
        (bad, good, None, "training data do not"),
        (good, good, None, None),
        (bad, bad, False, None),
        (bad, bad, True, None),
    ):
        out = io.StringIO()
        trial(tmp_path, train, valid, keep_on_device=keep).fit(1, overwrite=True, show=Lines(out))
        first = out.getvalue().splitlines()[0]
        assert (first.startswith(names) and "transform" in first) if names else first.startswith("epoch ")


def test_training_data_go_before_validation_data_where_there_is_room_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wgpu_nn.train.session.KEPT_BYTES", 200)
    made = trial(tmp_path, loader(mapped(counting(10), doubled)), loader(mapped(counting(3), doubled)))
    made.fit(1)
    session = made.session
    assert session.valid_feed is not None
    assert session.train_feed.nbytes == 160 and "take 48 bytes, and 40 are left" in session.valid_feed.reason


@pytest.mark.parametrize("keep", [None, False])
@pytest.mark.parametrize("step", [2, 3, 6])
def test_a_bad_item_is_found_at_its_step_however_late_its_loss_is_read(tmp_path: Path, step: int, keep: bool | None):
    x = np.ones((23, 3), np.float32)
    made = loader(ArrayDataset(x, np.arange(23)))
    x[made.order(0)[4 * step - 2]] = math.nan
    bad = trial(tmp_path, made, loader(mapped(counting(10), doubled)), keep_on_device=keep)
    with pytest.raises(TrainingError, match=rf"nan at step {step} \(epoch 1, batch {step} of 6\)"):
        bad.fit(1)
    assert [line["step"] for line in read_log(tmp_path / "metrics.jsonl")] == list(range(1, step))
