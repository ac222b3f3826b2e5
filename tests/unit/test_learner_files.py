"""What a run leaves on the disk, what it does when the disk refuses, and what is checked before it begins."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device
from wgpu_nn.data import ArrayDataset, DataLoader, mapped
from wgpu_nn.errors import ConfigError, DataError, RecordError, TrainingError
from wgpu_nn.metrics import Accuracy, ConfusionMatrix
from wgpu_nn.nn import CrossEntropyLossConfig, LinearConfig
from wgpu_nn.optim import SgdConfig
from wgpu_nn.record import load_checkpoint
from wgpu_nn.train import Learner, Result, holds_run, read_log
from wgpu_nn.train.log import Log

CPU = Device("numpy")


def data(n: int = 20, classes: int = 3, width: int = 4, size: int = 5) -> DataLoader:
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, n)
    x = (rng.normal(size=(n, width)) + y[:, None]).astype(np.float32)
    return DataLoader(ArrayDataset(x, y), size, shuffle=True, seed=1)


def learner(lr: float = 0.1, **more: Any) -> Learner:
    CPU.seed(4)
    model = LinearConfig(4, 3).init(CPU.autodiff())
    metrics = [Accuracy(), ConfusionMatrix()]
    return Learner(model, SgdConfig(lr=lr).init(), CrossEntropyLossConfig().init(), metrics, **more)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


# --- what is left ----------------------------------------------------------------------------------------------------
def test_a_run_leaves_its_facts_log_details_samples_model_and_checkpoints(tmp_path: Path):
    result = learner().fit(data(), data(), 3, run=tmp_path)
    best = result.best
    assert best is not None
    assert {"run.json", "metrics.jsonl", "model.safetensors", "samples.npz"} < names(tmp_path)
    facts = state(tmp_path)
    assert facts["state"] == "done" and facts["metrics"] == {"accuracy": "higher", "confusion": "higher"}
    assert facts["items"] == {"train": 20, "valid": 20} and facts["parameters"] == 15 and facts["adapter"] is None
    assert facts["started"] <= facts["ended"] and facts["ended"].endswith("+00:00")
    found = {int(p.stem.removeprefix("epoch-")) for p in (tmp_path / "details").iterdir()}
    assert found == {best.epoch, 3}
    with np.load(tmp_path / "details" / "epoch-3.npz") as details:
        (matrix,) = (
            details[name] for name in details.files if name.startswith("confusion.") and details[name].ndim == 2
        )
    assert matrix.shape == (3, 3)


def test_samples_are_items_that_the_best_model_gets_wrong(tmp_path: Path):
    made = learner()
    best = made.fit(data(), data(), 2, run=tmp_path).best
    assert best is not None and best.epoch == 2  # so its weights are the present ones
    x, y = data().whole()
    scores = made.predict(x)
    wrong = scores.argmax(1) != y
    with np.load(tmp_path / "samples.npz") as samples:
        order = np.lexsort(samples["inputs"].T)
        expected = np.lexsort(x[wrong].T)
        np.testing.assert_array_equal(samples["inputs"][order], x[wrong][expected])
        np.testing.assert_array_equal(samples["predicted"][order], scores[wrong].argmax(1)[expected])
        np.testing.assert_array_equal(samples["target"][order], y[wrong][expected])
        assert ((samples["score"] > 1 / 3) & (samples["score"] <= 1)).all()
    assert not (learner().fit(data(), data(), 1, run=tmp_path / "none", samples=0).interrupted)
    assert not (tmp_path / "none" / "samples.npz").exists()


def test_the_last_checkpoints_stay_and_the_best(tmp_path: Path):
    made = learner(monitor="train.loss")
    # Steps go downhill in two epochs, and uphill from then on.
    result = Learner(
        made.model,
        made.optimizer,
        CrossEntropyLossConfig().init(),
        schedule=lambda epoch: 0.1 if epoch < 2 else -0.3,
        schedule_by="epoch",
    ).fit(data(), data(), 6, run=tmp_path, keep=2)
    assert result.best is not None and result.best.epoch == 2
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{step}" for step in (8, 20, 24)}


def test_checkpoints_within_an_epoch_come_every_so_many_steps(tmp_path: Path):
    learner().fit(data(), epochs=1, run=tmp_path, keep=9, checkpoint_every=2)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}


def test_numbers_that_json_has_not_are_words_in_the_log_and_numbers_when_read(tmp_path: Path):
    log = Log(tmp_path / "m.jsonl")
    line = {"kind": "epoch", "epoch": 1, "step": 2, "train": {"a": math.nan, "b": math.inf}, "lr": -math.inf}
    log.write([line])
    assert json.loads((tmp_path / "m.jsonl").read_text())["train"] == {"a": "nan", "b": "inf"}
    (back,) = read_log(tmp_path / "m.jsonl")
    assert math.isnan(back["train"]["a"]) and back["train"]["b"] == math.inf and back["lr"] == -math.inf
    log.rewind(1, 2)
    assert json.loads((tmp_path / "m.jsonl").read_text())["lr"] == "-inf"


# --- a disk that refuses ---------------------------------------------------------------------------------------------
@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the disk be full when so many files of tensors are written; 0 makes room again."""
    real = os.fsync
    written: list[int] = []

    def fill(after: int) -> None:
        written.clear()

        def fsync(descriptor: int) -> None:
            written.append(1)
            if after and len(written) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, full_disk: Callable[[int], None]
):
    learner().fit(data(), data(), 1, run=tmp_path)
    full_disk(8)
    broken = learner()
    with pytest.raises(RecordError, match=r"is the disk full\?"):
        broken.fit(data(), data(), 9, run=tmp_path, resume=True)
    assert np.isfinite(broken.model.state()["weight"].numpy()).all()
    full_disk(0)
    assert not [name for name in names(tmp_path) if "tmp" in name]
    assert list(tmp_path.glob("checkpoint-*"))
    for path in tmp_path.glob("checkpoint-*"):
        load_checkpoint(path)
    again, whole = learner(), learner()
    again.fit(data(), data(), 9, run=tmp_path, resume=True)
    whole.fit(data(), data(), 9)
    assert again.model.state()["weight"].numpy().tobytes() == whole.model.state()["weight"].numpy().tobytes()


def test_a_checkpoint_that_fails_in_the_background_is_raised_by_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, *args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = learner()
    monkeypatch.setattr("wgpu_nn.record.checkpoint.save_tensors", refuse)
    with pytest.raises(RecordError, match="No space left"):
        made.fit(data(), data(), 3, run=tmp_path)
    assert state(tmp_path)["state"] == "failed" and "No space left" in state(tmp_path)["message"]
    assert not list(tmp_path.glob("*checkpoint*"))


# --- before it begins ------------------------------------------------------------------------------------------------
def refused(tmp_path: Path, error: type[Exception], message: str, act: Callable[[Path], Result]) -> None:
    with pytest.raises(error, match=message):
        act(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keep", [None, False])
def test_labels_out_of_range_are_found_before_the_first_step_or_before_their_own(tmp_path: Path, keep: bool | None):
    bad = data(classes=4)
    assert bad.whole()[1].max() == 3
    made = learner(keep_on_device=keep)
    before = made.model.state()["weight"].numpy()
    if keep is None:
        refused(
            tmp_path,
            DataError,
            "as the model has 3 outputs, got 0 .. 3",
            lambda run: made.fit(bad, run=run),
        )
        refused(tmp_path, DataError, r"labels in 0 .. 2", lambda run: made.fit(data(), bad, run=run))
        assert made.model.state()["weight"].numpy().tobytes() == before.tobytes()
    else:
        with pytest.raises(DataError, match=r"got 0 .. 3 in batch \d of epoch 0"):
            made.fit(bad, run=tmp_path / "run")
    negative = DataLoader(ArrayDataset(np.zeros((4, 4), np.float32), np.array([0, 1, -1, 2])), 4, shuffle=False, seed=0)
    with pytest.raises(DataError, match=r"got -1 .. 2 in .*, as in item 2 of it"):
        learner(keep_on_device=keep).fit(negative)


def test_shapes_that_do_not_fit_are_found_in_either_split(tmp_path: Path):
    refused(
        tmp_path, TrainingError, "first batch of the training data", lambda run: learner().fit(data(width=5), run=run)
    )
    refused(
        tmp_path, TrainingError, "first batch of the validation data",
        lambda run: learner().fit(data(), data(width=5), run=run),
    )  # fmt: skip
    unlabelled = DataLoader(ArrayDataset(np.zeros((4, 4), np.float32)), 2, shuffle=False, seed=0)
    refused(
        tmp_path,
        TrainingError,
        "got 1 arrays",
        lambda run: learner().fit(unlabelled, run=run),
    )


def test_the_check_draws_no_random_numbers():
    CPU.seed(9)
    made = learner()
    stream = CPU.rng.stream
    made.fit(data(), data(), 0)
    assert CPU.rng.stream == stream


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.open

    def closed(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_RDWR and str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(RecordError, match="folder to write to, got Permission denied"):
        learner().fit(data(), run=tmp_path / "run")
    assert not holds_run(tmp_path / "run")


@pytest.mark.parametrize("more", [{"epochs": -1}, {"keep": 0}, {"checkpoint_every": 0}, {"resume": True}])
def test_numbers_that_mean_nothing_are_refused(more: dict[str, Any]):
    with pytest.raises(ConfigError, match="fit: expected"):
        learner().fit(data(), **more)


def test_a_bad_item_in_the_middle_of_a_run_names_it_and_the_run_resumes(tmp_path: Path):
    def reading(items: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        if broken and 13 in items[1]:
            raise OSError("unreadable")
        return items[0], items[1] % 3

    x, _ = data().whole()
    source = mapped(ArrayDataset(x, np.arange(20)), reading)
    broken = [1]
    loader = DataLoader(source, 5, shuffle=False, seed=0)
    with pytest.raises(DataError, match=r"13.*unreadable"):
        learner(keep_on_device=False).fit(loader, run=tmp_path, checkpoint_every=1)
    assert state(tmp_path)["state"] == "failed"
    broken.clear()
    again, whole = learner(keep_on_device=False), learner(keep_on_device=False)
    again.fit(loader, run=tmp_path, resume=True)
    whole.fit(loader)
    assert again.model.state()["weight"].numpy().tobytes() == whole.model.state()["weight"].numpy().tobytes()
