"""The training loop on the CPU: it learns, stops, resumes bit for bit, and refuses what does not fit."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from wgpu_nn import Config, Device, Module, Tensor, tensor, train
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist, mapped
from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.nn import CrossEntropyLossConfig, Dropout, DropoutConfig, Linear, LinearConfig
from wgpu_nn.optim import AdamConfig, SgdConfig
from wgpu_nn.record import latest_checkpoint, load_checkpoint, save_checkpoint
from wgpu_nn.train import Result, Trainer, evaluate, read_log

DIGITS = Path(__file__).parents[2] / "examples" / "mnist" / "mnist10k.npz"
BATCHES = 5  # of 32, 32, 32, 32 and 22 digits
Item = tuple[np.ndarray, ...]


class Small(Module):
    dropout: Dropout
    linear: Linear

    def forward(self, images: Tensor[3]) -> Tensor[2]:
        return self.linear.forward(self.dropout.forward(images.flatten(1)))


class SmallConfig(Config):
    classes: int = 10
    lr: float = 0.01

    def init(self, device: Device) -> Small:
        return Small(dropout=DropoutConfig(0.2).init(), linear=LinearConfig(28 * 28, self.classes).init(device))


@pytest.fixture(scope="module")
def digits() -> tuple[Item, Item]:
    (x, y), (x_test, y_test) = load_mnist(DIGITS)
    return (x[:150], y[:150]), (x_test[:70], y_test[:70])


@pytest.fixture(params=[False, None], ids=["streamed", "kept"])
def make(request: pytest.FixtureRequest, digits: tuple[Item, Item], tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a trainer in the same state each time, whose data are uploaded batch by batch, or stay where it trains."""

    def made(
        run: str = "run",
        config: SmallConfig | None = None,
        optimizer: Any = None,
        loss: Any = None,
        read: Callable[[Item], Item] | None = None,
        limit: int = 150,
        test_device: Device | None = None,
    ) -> Trainer:
        device, settings = Device("numpy"), config or SmallConfig()
        device.seed(7)
        (x, y), test = digits
        tests = ArrayDataset(*test) if read else mapped(ArrayDataset(*test), scaled)
        return Trainer(
            settings.init(device.autodiff()),
            optimizer or AdamConfig(lr=settings.lr).init(),
            loss or CrossEntropyLossConfig().init(),
            DataLoader(mapped(ArrayDataset(x[:limit], y[:limit]), scaled), 32, shuffle=True, seed=3),
            DataLoader(tests, 20, shuffle=False, seed=0, transform=read, prefetch=0),
            tmp_path / run,
            settings,
            test_device,
            keep_on_device=request.param,
        )

    return made


def scaled(batch: Item) -> Item:
    return (batch[0] / 255).astype(np.float32), batch[1]


def weights(trainer: Trainer) -> dict[str, bytes]:
    both = {**trainer.model.state(), **trainer.optimizer.state()}
    return {name: value.numpy().tobytes() for name, value in both.items()}


def history(result: Result) -> list[dict[str, Any]]:
    return untimed([asdict(record) for record in result.history])


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_s")} for record in records]


def lines(trainer: Trainer) -> list[dict[str, Any]]:
    return untimed(log(trainer))


def log(trainer: Trainer) -> list[dict[str, Any]]:
    return read_log(trainer.run / "metrics.jsonl")


def at_step(trainer: Trainer, number: int, action: Callable[[], object], scale: float = 1.0) -> None:
    """Let ``action`` happen at the end of a step, before which the weights are multiplied by ``scale``."""
    step, count = trainer.step, 0

    def counted(given: tuple[Tensor, ...]) -> None:
        nonlocal count
        count += 1
        if count == number and scale != 1.0:
            rescale(trainer, scale)
        step(given)
        if count == number:
            action()

    trainer.step = counted


def rescale(trainer: Trainer, scale: float) -> None:
    weight = cast(Small, trainer.model).linear.weight
    weight.value = weight.value.inner() * scale


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and the tests may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- learning --------------------------------------------------------------------------------------------------------
def test_the_loss_falls_and_the_accuracy_rises(make: Callable[..., Trainer]):
    result = make().fit(4)
    first, *_, last = result.history
    assert last.train_loss < 0.5 * first.train_loss
    assert last.train_accuracy > first.train_accuracy + 0.2
    assert last.test_accuracy > 0.6 and not result.interrupted
    assert result.step == last.step == 4 * BATCHES
    assert result.best == max(result.history, key=lambda record: record.test_accuracy)


def test_the_metrics_of_an_epoch_are_means_over_its_items(make: Callable[..., Trainer], digits: tuple[Item, Item]):
    trainer = make(optimizer=SgdConfig(lr=0.0).init())
    record = trainer.fit(1).history[0]
    x, y = digits[1]
    model = cast(Small, trainer.model).valid()
    logits = model.forward(tensor((x / 255).astype(np.float32), Device("numpy"))).numpy()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    assert record.test_loss == pytest.approx(losses.mean(), rel=1e-5)
    assert record.test_accuracy == (logits.argmax(1) == y).mean()
    steps = [line for line in log(trainer) if line["kind"] == "step"]
    sizes = [32] * (BATCHES - 1) + [22]
    assert record.train_loss == pytest.approx(np.average([line["loss"] for line in steps], weights=sizes), rel=1e-12)


def test_evaluation_on_another_device_leaves_the_model_where_it_is(make: Callable[..., Trainer]):
    trainer = make(test_device=Device("numpy:f64"))
    apart = trainer.fit(1).history[0]
    here = evaluate(train.testing_step(trainer.model, trainer.loss), trainer.test, trainer.device.inner())
    assert apart.test_loss == pytest.approx(here.loss, rel=1e-5) and apart.test_loss != here.loss
    assert apart.test_accuracy == here.accuracy
    assert trainer.model.device == Device("numpy").autodiff()


def test_a_model_that_records_no_gradients_is_refused(make: Callable[..., Trainer]):
    made = make()
    with pytest.raises(TrainingError, match="autodiff"):
        Trainer(made.model.valid(), made.optimizer, made.loss, made.train, made.test, made.run, made.config)


# --- Ctrl-C and resuming ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [1, 3, BATCHES, BATCHES + 2, 3 * BATCHES])
def test_a_run_stopped_at_any_step_resumes_bit_for_bit(make: Callable[..., Trainer], step: int):
    whole = make("whole")
    expected = whole.fit(3)
    stopped = make()
    at_step(stopped, step, press)
    result = stopped.fit(3)
    assert result.interrupted and result.step == step
    assert result.checkpoint is not None and result.checkpoint.name == f"checkpoint-{step}"
    resumed = make()
    Device("numpy").seed(999)
    again = resumed.fit(3, resume=True)
    assert not again.interrupted
    assert weights(resumed) == weights(whole)
    assert history(again) == history(expected)
    assert lines(resumed) == lines(whole)
    assert len({(t.run / "model.safetensors").read_bytes() for t in (whole, resumed)}) == 1


def test_a_run_stopped_while_it_is_tested_tests_again(make: Callable[..., Trainer]):
    whole = make("whole")
    whole.fit(2)
    pressed: list[int] = []

    def pressing(batch: Item) -> Item:
        if not pressed:
            pressed.append(1)
            press()
        return scaled(batch)

    stopped = make(read=pressing)
    result = stopped.fit(2)
    assert result.interrupted and result.step == BATCHES and result.history == []
    resumed = make()
    resumed.fit(2, resume=True)
    assert weights(resumed) == weights(whole)
    assert lines(resumed) == lines(whole)


def test_lines_written_after_the_last_checkpoint_are_written_once(make: Callable[..., Trainer]):
    whole = make("whole")
    whole.fit(2)
    killed = make()
    at_step(killed, BATCHES + 3, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.fit(2)
    with open(killed.run / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "step", "epoch": 2, "step": 10}\n{"kind": "epoch", "epoch": 2, "step": 10}\n{"kind": "st')
    resumed = make()
    resumed.fit(2, resume=True)
    assert lines(resumed) == lines(whole)
    assert weights(resumed) == weights(whole)


def test_a_second_ctrl_c_raises_at_once(make: Callable[..., Trainer]):
    trainer = make()
    at_step(trainer, 2, lambda: (press(), press()))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(1)
    assert latest_checkpoint(trainer.run) is None


@pytest.mark.parametrize("stop", [False, True])
def test_the_signal_handler_of_before_comes_back(make: Callable[..., Trainer], stop: bool):
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        trainer = make()
        if stop:
            at_step(trainer, 2, press)
        assert trainer.fit(1).interrupted is stop and heard == []
        press()
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_start(make: Callable[..., Trainer]):
    killed = make()
    at_step(killed, 2, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.fit(1)
    other = make(config=SmallConfig(lr=0.5))
    with pytest.raises(RecordError, match=r"lr is 0\.01 there and 0\.5 here"):
        other.fit(1, resume=True)
    resumed = make()
    resumed.fit(1, resume=True)
    whole = make("whole")
    whole.fit(1)
    assert weights(resumed) == weights(whole)


def test_a_run_goes_on_for_more_epochs_and_a_complete_one_is_left_as_it_is(make: Callable[..., Trainer]):
    make().fit(1)
    longer = make()
    longer.fit(2, resume=True)
    whole = make("whole")
    expected = whole.fit(2)
    assert weights(longer) == weights(whole)
    again = make().fit(2, resume=True)
    assert history(again) == history(expected) and again.step == 2 * BATCHES


def test_a_folder_with_a_run_is_refused_unless_told_to_overwrite(make: Callable[..., Trainer]):
    first = make()
    first.fit(1)
    (first.run / "notes.txt").write_text("mine")
    kept = {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()}
    with pytest.raises(RecordError, match="overwrite"):
        make(config=SmallConfig(lr=0.5)).fit(1)
    assert {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()} == kept
    make(config=SmallConfig(lr=0.5)).fit(2, overwrite=True)
    assert (first.run / "notes.txt").read_text() == "mine"
    assert json.loads((first.run / "config.json").read_text())["lr"] == 0.5
    assert [line["epoch"] for line in log(first) if line["kind"] == "epoch"] == [1, 2]


# --- what goes wrong -------------------------------------------------------------------------------------------------
def test_a_loss_that_is_nan_stops_the_run_names_the_step_and_keeps_the_last_checkpoint(make: Callable[..., Trainer]):
    good = make("good")
    good.fit(1)
    trainer = make()
    at_step(trainer, BATCHES + 3, lambda: None, scale=math.nan)
    with pytest.raises(
        TrainingError, match=rf"nan at step {BATCHES + 3} \(epoch 2, batch 3 of {BATCHES}\).*checkpoint-5;"
    ):
        trainer.fit(2)
    assert [path.name for path in trainer.run.glob("checkpoint-*")] == [f"checkpoint-{BATCHES}"]
    steps = [line["step"] for line in log(trainer) if line["kind"] == "step"]
    assert steps == list(range(1, BATCHES + 3))
    resumed = make()
    resumed.fit(1, resume=True)
    assert weights(resumed) == weights(good)


def test_ctrl_c_after_a_loss_that_is_nan_saves_nothing(make: Callable[..., Trainer]):
    trainer = make()
    at_step(trainer, 3, press, scale=math.nan)
    with pytest.raises(TrainingError, match="step 3"):
        trainer.fit(1)
    assert latest_checkpoint(trainer.run) is None
    assert not (trainer.run / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved_though_every_loss_was(make: Callable[..., Trainer]):
    trainer = make()

    at_step(trainer, 3, lambda: (rescale(trainer, math.inf), press()))
    with pytest.raises(TrainingError, match=r"linear\.weight after step 3"):
        trainer.fit(1)
    assert latest_checkpoint(trainer.run) is None


def test_a_test_loss_that_is_not_finite_stops_the_run(make: Callable[..., Trainer]):
    trainer = make(read=lambda batch: (scaled(batch)[0] * np.float32(math.nan), batch[1]))
    with pytest.raises(TrainingError, match=f"test set is nan at step {BATCHES}"):
        trainer.fit(1)


def refused(trainer: Trainer, match: str) -> None:
    before = weights(trainer)
    with pytest.raises(RecordError, match=match):
        trainer.fit(3, resume=True)
    assert weights(trainer) == before


def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(make: Callable[..., Trainer]):
    make().fit(1)
    refused(make(config=SmallConfig(lr=0.5)), r"config\.lr is 0\.01 there and 0\.5 here")
    refused(make(config=SmallConfig(classes=11)), r"config\.classes is 10 there and 11 here")
    refused(make(optimizer=SgdConfig(momentum=0.9).init()), "optimizer is 'Adam' there and 'Sgd' here")
    refused(make(limit=100), r"data\.items is 150 there and 100 here")


def test_a_truncated_or_foreign_checkpoint_is_a_record_error_and_changes_nothing(make: Callable[..., Trainer]):
    made = make()
    made.fit(1)
    checkpoint = latest_checkpoint(made.run)
    assert checkpoint is not None
    state, tensors = checkpoint / "state.json", checkpoint / "model.safetensors"
    record, data = json.loads(state.read_text()), tensors.read_bytes()
    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(make(), "damaged")
    tensors.write_bytes(data)
    for key in ("position", "rng", "optimizer_steps"):
        broken = json.loads(json.dumps(record))
        del broken["state"][key]
        state.write_text(json.dumps(broken))
        refused(make(), f"without '{key}'")
    broken = json.loads(json.dumps(record))
    broken["state"]["position"]["surprise"] = 1
    state.write_text(json.dumps(broken))
    refused(make(), "surprise")
    state.write_text(json.dumps(record))
    saved = load_checkpoint(checkpoint)
    saved.tensors["model"]["linear.bias"] += 1
    del saved.tensors["optimizer"]["linear.bias/m"]
    save_checkpoint(made.run, saved.step, saved.tensors, saved.state, keep=1)
    refused(make(), "linear.bias")
    latest = latest_checkpoint(made.run)
    assert latest is not None
    (latest / "model.safetensors").write_bytes(
        data[:100]
    )  # of another size than its record says: not a whole checkpoint
    assert latest_checkpoint(made.run) is None
    refused(make(), "checkpoints are gone")
    assert (made.run / "model.safetensors").exists()


def test_a_run_folder_that_cannot_be_made_is_a_record_error(make: Callable[..., Trainer], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="folder to write to"):
        make("file/run").fit(1)
