"""What a Learner may be told: steps of one's own, accumulation, clipping, rates, early stopping, callbacks, loggers."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Module
from wgpu_nn.data import ArrayDataset, DataLoader, StreamLoader
from wgpu_nn.errors import ConfigError, MissingExtraError, TrainingError
from wgpu_nn.metrics import AUROC, Accuracy
from wgpu_nn.nn import CrossEntropyLossConfig, LinearConfig, MseLossConfig
from wgpu_nn.optim import ConstantSchedule, ExponentialSchedule, PlateauSchedule, SgdConfig
from wgpu_nn.train import (
    Batch,
    Callback,
    CsvLogger,
    EarlyStopping,
    EpochRecord,
    Learner,
    Output,
    Result,
    Session,
    Silent,
    Snapshot,
    TensorBoardLogger,
    read_log,
)

CPU = Device("numpy")
CROSS_ENTROPY, MSE = CrossEntropyLossConfig().init(), MseLossConfig().init()


def drawn(n: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.normal(size=(n, 4)) + y[:, None]).astype(np.float32), y


def loader(n: int = 22, batch: int = 5, **more: Any) -> DataLoader:
    return DataLoader(ArrayDataset(*drawn(n)), batch, **{"shuffle": False, "seed": 1, **more})


def linear(outputs: int = 3) -> Module:
    CPU.seed(4)
    return LinearConfig(4, outputs).init(CPU.autodiff())


def learner(lr: float = 0.1, **more: Any) -> Learner:
    return Learner(linear(), SgdConfig(lr=lr).init(), CROSS_ENTROPY, **{"metrics": [Accuracy()], **more})


def weight(made: Learner) -> np.ndarray:
    return made.model.state()["weight"].numpy()


# --- steps of one's own ----------------------------------------------------------------------------------------------
def test_a_step_of_ones_own_takes_dicts_and_its_values_are_means_over_items(tmp_path: Path):
    x, y = drawn(7)
    items = [{"features": x[i], "weight": np.float32(y[i])} for i in range(7)]

    def step(model: Any, batch: Batch) -> Output:
        assert isinstance(batch, dict)
        size = model.forward(batch["features"]).square().mean()
        return Output(size * 0.5, values={"size": size, "weight": batch["weight"].mean()})

    made = Learner(linear(), SgdConfig(lr=0.0).init(), step=step)
    result = made.fit(StreamLoader(items, 3), run=tmp_path / "run")
    record = result.history[0]
    assert record.train["size"] == pytest.approx(2 * record.train["loss"])
    assert record.train["weight"] == pytest.approx(y.mean())
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert [line["kind"] for line in lines] == ["step"] * 3 + ["epoch"]
    assert lines[0]["weight"] == pytest.approx(y[:3].mean()) and lines[3]["valid"] == {}


def test_a_map_style_data_set_of_dicts_trains_too():
    class Rows:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
            x, y = drawn(6)
            return {"x": x[index], "y": y[index]}

    def step(model: Any, batch: Batch) -> Output:
        assert isinstance(batch, dict)
        outputs = model.forward(batch["x"])
        return Output(CROSS_ENTROPY.forward(outputs, batch["y"]), outputs, batch["y"])

    data = DataLoader(Rows(), 4, shuffle=True, seed=0)
    made = Learner(linear(), SgdConfig(lr=0.1).init(), step=step, metrics=[Accuracy()])
    found = made.fit(data, data, 30)
    assert found.history[-1].valid["accuracy"] > found.history[0].valid["accuracy"]
    assert made.predict(data, lambda model, batch: model.forward(batch["x"])).shape == (6, 3)  # pyright: ignore
    with pytest.raises(TrainingError, match="give forward="):
        made.predict(data)


def test_a_valid_step_stands_for_the_step_in_evaluation():
    def doubled(model: Any, batch: Batch) -> Output:
        assert isinstance(batch, tuple)
        return Output(MSE.forward(model.forward(batch[0]), batch[0][:, :3]) * 0.0 + 2.0)

    record = learner(metrics=[], valid_step=doubled).fit(loader(), loader()).history[0]
    assert record.valid == {"loss": 2.0} and record.train["loss"] != 2.0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda model, batch: model.forward(batch[0]).sum(), "expected an Output, got Tensor"),
        (lambda model, batch: Output(model.forward(batch[0])), r"one element, got \[5, 3\]"),
        (lambda model, batch: Output(*[model.forward(batch[0]).sum()] * 3, {"loss": 1}), "other names than loss"),  # pyright: ignore
    ],
)
def test_a_step_that_returns_something_else_is_refused_before_the_run_begins(tmp_path: Path, step: Any, message: str):
    with pytest.raises(TrainingError, match=message):
        Learner(linear(), SgdConfig(lr=0.1).init(), step=step).fit(loader(), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_need_outputs_and_targets():
    made = Learner(
        linear(), SgdConfig().init(), step=lambda m, b: Output(m.forward(b[0]).sum()), metrics=[Accuracy()]  # pyright: ignore
    )  # fmt: skip
    with pytest.raises(TrainingError, match="outputs and targets"):
        made.fit(loader())


# --- accumulation and clipping ---------------------------------------------------------------------------------------
def test_accumulated_batches_move_the_model_as_one_of_all_their_items_and_leftovers_by_their_mean():
    apart, whole = learner(accumulate=2), learner()
    apart.fit(loader(20, 5))
    whole.fit(loader(20, 10))
    assert apart.optimizer.steps == whole.optimizer.steps == 2
    np.testing.assert_allclose(weight(apart), weight(whole), rtol=1e-6)
    left = learner(accumulate=3)
    left.fit(loader(20, 5), epochs=2)  # of four batches: three, and one that is left
    assert left.optimizer.steps == 4
    three, one = learner(), learner()
    three.fit(DataLoader(ArrayDataset(*(a[:15] for a in drawn(20))), 15, shuffle=False, seed=0))
    one.model.load_state(three.model.state())
    one.fit(DataLoader(ArrayDataset(*(a[15:] for a in drawn(20))), 5, shuffle=False, seed=0))
    again = learner(accumulate=3)
    again.fit(loader(20, 5))
    np.testing.assert_allclose(weight(again), weight(one), rtol=1e-6)


def test_gradients_are_clipped_by_value_and_by_their_norm_together():
    for limits, size in (({"clip_norm": 0.01}, 0.01), ({"clip_value": 0.001}, None)):
        made = learner(lr=1.0, **limits)
        before = made.model.clone().state()
        made.fit(loader(5, 5))
        moved = np.concatenate([(before[k].numpy() - v.numpy()).ravel() for k, v in made.model.state().items()])
        if size is not None:
            assert np.linalg.norm(moved) == pytest.approx(size, rel=1e-3)
        else:
            assert np.abs(moved).max() == pytest.approx(0.001, rel=1e-3)


# --- rates -----------------------------------------------------------------------------------------------------------
def rates_of(tmp_path: Path, **more: Any) -> list[float]:
    made = learner(**more)
    made.fit(loader(20, 5), loader(), 3, run=tmp_path / "run")
    return [line["lr"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "step"]


def test_rates_go_by_steps_of_the_optimizer_or_by_epochs(tmp_path: Path):
    falling = ExponentialSchedule(0.1, 0.5)
    assert rates_of(tmp_path / "a", schedule=falling) == pytest.approx([0.1 * 0.5**n for n in range(12)])
    by_two = rates_of(tmp_path / "b", schedule=falling, accumulate=2)
    assert by_two == pytest.approx([0.1 * 0.5 ** (n // 2) for n in range(12)])
    by_epoch = rates_of(tmp_path / "c", schedule=falling, schedule_by="epoch")
    assert by_epoch == pytest.approx([0.1 * 0.5 ** (n // 4) for n in range(12)])
    assert rates_of(tmp_path / "d") == [0.1] * 12


def test_a_plateau_of_what_is_watched_lowers_the_rate(tmp_path: Path):
    plateau = PlateauSchedule(0.0, patience=0)  # nothing moves, so nothing improves
    assert rates_of(tmp_path / "a", schedule=plateau) == [0.0] * 12
    moving = PlateauSchedule(0.1, patience=0, monitor="train.loss", better="higher", factor=0.5)
    assert rates_of(tmp_path / "b", schedule=moving)[::4] == pytest.approx([0.1, 0.1, 0.05])


# --- callbacks -------------------------------------------------------------------------------------------------------
class Diary(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop_at = stop_at

    def on_begin(self, session: Session) -> None:
        self.seen.append(f"begin {len(session.history)}")

    def on_step(self, session: Session, lines: Sequence[dict[str, Any]]) -> None:
        self.seen += [f"step {line['step']}" for line in lines]
        if self.stop_at is not None and lines[-1]["step"] >= self.stop_at:
            session.stop("enough")

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        self.seen.append(f"epoch {record.epoch}")

    def on_end(self, session: Session, result: Result | None) -> None:
        self.seen.append("failed" if result is None else "end")


def test_callbacks_hear_of_everything_once_and_in_order():
    diary = Diary()
    learner(callbacks=[diary]).fit(loader(10, 5), epochs=2)
    assert diary.seen == ["begin 0", "step 1", "step 2", "epoch 1", "step 3", "step 4", "epoch 2", "end"]


def test_a_callback_that_stops_a_run_leaves_a_checkpoint_to_go_on_from(tmp_path: Path):
    diary = Diary(stop_at=1)
    result = learner(callbacks=[diary]).fit(loader(22, 5), epochs=2, run=tmp_path)
    assert not result.interrupted and result.reason == "enough" and result.checkpoint is not None
    assert result.step < 10 and diary.seen[-1] == "end"
    again = learner()
    again.fit(loader(22, 5), epochs=2, run=tmp_path, resume=True)
    whole = learner()
    whole.fit(loader(22, 5), epochs=2)
    assert weight(again).tobytes() == weight(whole).tobytes()


def test_a_failing_run_tells_its_callbacks():
    diary = Diary()
    broken = learner(callbacks=[diary, Breaking()])
    with pytest.raises(ZeroDivisionError):
        broken.fit(loader())
    assert diary.seen[-1] == "failed"


class Breaking(Callback):
    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        raise ZeroDivisionError


def test_early_stopping_stops_when_nothing_improves_and_a_resumed_run_stays_stopped(tmp_path: Path):
    def made() -> Learner:
        return learner(lr=0.0, callbacks=[EarlyStopping(patience=2)])

    result = made().fit(loader(), loader(), 10, run=tmp_path)
    assert len(result.history) == 3 and "not improved for 2 epochs" in result.reason and not result.interrupted
    assert len(made().fit(loader(), loader(), 10, run=tmp_path, resume=True).history) == 3
    improving = learner(callbacks=[EarlyStopping(patience=2)]).fit(loader(), loader(), 5)
    assert len(improving.history) == 5 and improving.reason == ""
    with pytest.raises(ConfigError, match="expected one of loss, accuracy, got 'f1'"):
        learner(callbacks=[EarlyStopping("f1")]).fit(loader())


def test_a_csv_file_has_a_row_for_each_epoch_after_a_resume_too(tmp_path: Path):
    path = tmp_path / "epochs.csv"
    for epochs in (1, 3):
        made = learner(callbacks=[CsvLogger(path)])
        result = made.fit(loader(), loader(), epochs, run=tmp_path / "run", resume=True)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["valid.accuracy"]) for row in rows] == [r.valid["accuracy"] for r in result.history]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def test_tensorboard_gets_every_number(tmp_path: Path):
    loading: Any = pytest.importorskip("tensorboardX.proto.event_pb2")
    learner(callbacks=[TensorBoardLogger(tmp_path)]).fit(loader(10, 5), loader(), 2)
    (file,) = tmp_path.glob("events*")
    data, tags = file.read_bytes(), []
    while data:  # length, checksum, event, checksum
        size = int.from_bytes(data[:8], "little")
        event = loading.Event.FromString(data[12 : 12 + size])
        tags += [(value.tag, event.step) for value in event.summary.value]
        data = data[16 + size :]
    assert ("step/loss", 1) in tags and ("step/lr", 4) in tags and ("valid/accuracy", 4) in tags
    assert len(tags) == 2 * 4 + 2 * 4


def test_tensorboard_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[tensorboard\]"):
        TensorBoardLogger("nowhere")


# --- keys ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs look for keys before every step, however short steps are."""
    monkeypatch.setattr("wgpu_nn.train.session.LOOK_SECONDS", 0.0)


class Typing(Silent):
    """Shows nothing, and presses a key before a step; ``asked`` counts how often keys were looked for."""

    def __init__(self, keys: Mapping[int, str]) -> None:
        self.keys, self.asked = keys, 0

    def pressed(self) -> str:
        self.asked += 1
        return self.keys.get(self.asked, "")


@pytest.mark.usefixtures("attentive")
def test_q_saves_and_stops_and_s_skips_to_the_end_of_the_epoch(tmp_path: Path):
    stopped = learner().fit(loader(22, 5), epochs=2, run=tmp_path, show=Typing({3: "q"}))
    assert stopped.interrupted and stopped.step == 2 and stopped.checkpoint == tmp_path / "checkpoint-2"
    skipped = learner().fit(loader(22, 5), epochs=2, show=Typing({3: "s"}))
    assert [record.step for record in skipped.history] == [2, 7] and not skipped.interrupted


@pytest.mark.usefixtures("attentive")
def test_p_waits_for_p_or_q():
    typing = Typing({2: "p", 5: "p"})
    assert learner().fit(loader(22, 5), show=typing).step == 5
    typing = Typing({2: "p", 4: "q"})
    assert learner().fit(loader(22, 5), show=typing).step == 1


# --- evaluate, predict, metrics --------------------------------------------------------------------------------------
def test_evaluation_and_prediction_agree_with_the_model(tmp_path: Path):
    made = learner(metrics=[Accuracy(), AUROC(task="multiclass")])
    x, y = drawn(22)
    record = made.fit(loader(), loader(), run=tmp_path).history[0]
    scores = made.predict(x)
    assert scores.shape == (22, 3)
    assert made.predict((x, y)).tobytes() == scores.tobytes() == made.predict(loader()).tobytes()
    assert made.predict(ArrayDataset(x)).tobytes() == scores.tobytes()
    found = made.evaluate((x, y))
    assert found == pytest.approx(record.valid, rel=1e-6)
    assert found["accuracy"] == (scores.argmax(1) == y).mean()
    assert set(record.train) == {"loss", "accuracy"} and set(record.valid) == {"loss", "accuracy", "auroc"}
    assert made.evaluate(loader()) == pytest.approx(found, rel=1e-6)
    both = made.predict(x, lambda model, batch: {"a": (model.forward(batch[0]), batch[0])})  # pyright: ignore
    assert both["a"][0].tobytes() == scores.tobytes() and both["a"][1].tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": [Accuracy(), Accuracy()]}, "different names"),
        ({"accumulate": 0}, "accumulate"),
        ({"clip_norm": -1.0}, "clip_norm above 0"),
        ({"monitor": "recall"}, "expected one of loss, accuracy"),
        ({"precision": "f64"}, "precision"),
        ({"step": lambda model, batch: Output(batch[0])}, "a loss or a step"),
    ],
)
def test_what_does_not_fit_together_is_refused(more: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        learner(**more)


def test_a_loss_may_be_a_function():
    made = Learner(linear(), SgdConfig(lr=0.1).init(), lambda a, b: CROSS_ENTROPY.forward(a, b))
    assert (
        made.fit(loader(), epochs=2).history[1].train["loss"]
        < made.fit(loader(), epochs=1).history[0].train["loss"] * 9
    )


def test_what_is_shown_has_values_rate_and_losses():
    seen: list[Snapshot] = []

    class Keeping(Silent):
        def update(self, now: Snapshot) -> None:
            seen.append(now)

    learner(schedule=ConstantSchedule(0.05)).fit(loader(22, 5), loader(), show=Keeping())
    assert seen and set(seen[-1].values) >= {"loss"} and seen[0].lr == 0.05 and seen[0].batches == 5
    assert seen[0].losses and all(math.isfinite(x) for x in seen[0].losses)
    assert any(now.testing is not None for now in seen)
