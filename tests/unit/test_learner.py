"""The training loop on the CPU: it learns, stops, resumes bit for bit, and refuses what does not fit."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.trial import Trial, history
from wgpu_nn import Config, Device, Module, Tensor, tensor
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist, mapped
from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.metrics import Accuracy
from wgpu_nn.nn import CrossEntropyLossConfig, Dropout, DropoutConfig, Linear, LinearConfig
from wgpu_nn.optim import AdamConfig, SgdConfig
from wgpu_nn.record import latest_checkpoint, load_checkpoint, save_checkpoint
from wgpu_nn.train import Learner

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
def make(request: pytest.FixtureRequest, digits: tuple[Item, Item], tmp_path: Path) -> Callable[..., Trial]:
    """Makes a trial in the same state each time, whose data are uploaded batch by batch, or stay where it trains."""

    def made(
        run: str = "run",
        config: SmallConfig | None = None,
        optimizer: Any = None,
        read: Callable[[Item], Item] | None = None,
        limit: int = 150,
        **more: Any,
    ) -> Trial:
        device, settings = Device("numpy"), config or SmallConfig()
        device.seed(7)
        (x, y), test = digits
        tests = ArrayDataset(*test) if read else mapped(ArrayDataset(*test), scaled)
        learner = Learner(
            settings.init(device.autodiff()),
            optimizer or AdamConfig(lr=settings.lr).init(),
            CrossEntropyLossConfig().init(),
            [Accuracy()],
            **{"monitor": "accuracy", "keep_on_device": request.param, **more},
        )
        train = DataLoader(mapped(ArrayDataset(x[:limit], y[:limit]), scaled), 32, shuffle=True, seed=3)
        valid = DataLoader(tests, 20, shuffle=False, seed=0, transform=read, prefetch=0)
        return Trial(learner, train, valid, tmp_path / run, settings)

    return made


def scaled(batch: Item) -> Item:
    return (batch[0] / 255).astype(np.float32), batch[1]


def rescale(trial: Trial, scale: float) -> None:
    weight = cast(Small, trial.model).linear.weight
    weight.value = weight.value.inner() * scale


def rescale_before(trial: Trial, number: int, scale: float) -> None:
    """Let the weights be multiplied by ``scale`` before a step."""
    trial.before = lambda session, count: rescale(trial, scale) if count == number else None


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and the tests may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- learning --------------------------------------------------------------------------------------------------------
def test_the_loss_falls_and_the_accuracy_rises(make: Callable[..., Trial]):
    result = make().fit(4)
    first, *_, last = result.history
    assert last.train["loss"] < 0.5 * first.train["loss"]
    assert last.train["accuracy"] > first.train["accuracy"] + 0.2
    assert last.valid["accuracy"] > 0.6 and not result.interrupted
    assert result.step == last.step == 4 * BATCHES
    assert result.best == max(result.history, key=lambda record: record.valid["accuracy"])


def test_the_metrics_of_an_epoch_are_means_over_its_items(make: Callable[..., Trial], digits: tuple[Item, Item]):
    trial = make(optimizer=SgdConfig(lr=0.0).init())
    record = trial.fit(1).history[0]
    x, y = digits[1]
    model = cast(Small, trial.model).valid()
    logits = model.forward(tensor((x / 255).astype(np.float32), Device("numpy"))).numpy()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    assert record.valid["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert record.valid["accuracy"] == (logits.argmax(1) == y).mean()
    steps = [line for line in trial.log() if line["kind"] == "step"]
    sizes = [32] * (BATCHES - 1) + [22]
    assert record.train["loss"] == pytest.approx(np.average([line["loss"] for line in steps], weights=sizes), rel=1e-12)


def test_evaluation_on_another_device_leaves_the_model_where_it_is(make: Callable[..., Trial]):
    trial = make(valid_device=Device("numpy:f64"))
    apart = trial.fit(1).history[0].valid
    assert trial.valid is not None
    here = Learner(trial.model, trial.optimizer, CrossEntropyLossConfig().init(), [Accuracy()]).evaluate(trial.valid)
    assert apart["loss"] == pytest.approx(here["loss"], rel=1e-5) and apart["loss"] != here["loss"]
    assert apart["accuracy"] == here["accuracy"]
    assert trial.model.device == Device("numpy").autodiff()


def test_a_model_that_records_no_gradients_is_refused(make: Callable[..., Trial]):
    made = make()
    with pytest.raises(TrainingError, match="autodiff"):
        Learner(made.model.valid(), made.optimizer, CrossEntropyLossConfig().init())


# --- Ctrl-C and resuming ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [1, 3, BATCHES, BATCHES + 2, 3 * BATCHES])
def test_a_run_stopped_at_any_step_resumes_bit_for_bit(make: Callable[..., Trial], step: int):
    whole = make("whole")
    expected = whole.fit(3)
    stopped = make()
    stopped.at_step(step, press)
    result = stopped.fit(3)
    assert result.interrupted and result.step == step
    assert result.checkpoint is not None and result.checkpoint.name == f"checkpoint-{step}"
    resumed = make()
    Device("numpy").seed(999)
    again = resumed.fit(3, resume=True)
    assert not again.interrupted
    assert resumed.weights() == whole.weights()
    assert history(again) == history(expected)
    assert resumed.lines() == whole.lines()
    assert len({(t.run / "model.safetensors").read_bytes() for t in (whole, resumed)}) == 1


def test_a_run_stopped_while_it_is_tested_tests_again(make: Callable[..., Trial]):
    whole = make("whole")
    whole.fit(2)
    read: list[int] = []

    def pressing(batch: Item) -> Item:
        read.append(1)
        if len(read) == 3:  # the first batch is looked at before the run begins
            press()
        return scaled(batch)

    stopped = make(read=pressing)
    result = stopped.fit(2)
    assert result.interrupted and result.step == BATCHES and result.history == []
    resumed = make()
    resumed.fit(2, resume=True)
    assert resumed.weights() == whole.weights()
    assert resumed.lines() == whole.lines()


def test_lines_written_after_the_last_checkpoint_are_written_once(make: Callable[..., Trial]):
    whole = make("whole")
    whole.fit(2)
    killed = make()
    killed.at_step(BATCHES + 3, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.fit(2)
    with open(killed.run / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "step", "epoch": 2, "step": 10}\n{"kind": "epoch", "epoch": 2, "step": 10}\n{"kind": "st')
    resumed = make()
    resumed.fit(2, resume=True)
    assert resumed.lines() == whole.lines()
    assert resumed.weights() == whole.weights()


def test_a_second_ctrl_c_raises_at_once(make: Callable[..., Trial]):
    trial = make()
    trial.at_step(2, lambda: (press(), press()))
    with pytest.raises(KeyboardInterrupt):
        trial.fit(1)
    assert latest_checkpoint(trial.run) is None


@pytest.mark.parametrize("stop", [False, True])
def test_the_signal_handler_of_before_comes_back(make: Callable[..., Trial], stop: bool):
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        trial = make()
        if stop:
            trial.at_step(2, press)
        assert trial.fit(1).interrupted is stop and heard == []
        press()
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_start(make: Callable[..., Trial]):
    killed = make()
    killed.at_step(2, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.fit(1)
    other = make(config=SmallConfig(lr=0.5))
    with pytest.raises(RecordError, match=r"lr is 0\.01 there and 0\.5 here"):
        other.fit(1, resume=True)
    resumed = make()
    resumed.fit(1, resume=True)
    whole = make("whole")
    whole.fit(1)
    assert resumed.weights() == whole.weights()


def test_a_run_goes_on_for_more_epochs_and_a_complete_one_is_left_as_it_is(make: Callable[..., Trial]):
    make().fit(1)
    longer = make()
    longer.fit(2, resume=True)
    whole = make("whole")
    expected = whole.fit(2)
    assert longer.weights() == whole.weights()
    again = make().fit(2, resume=True)
    assert history(again) == history(expected) and again.step == 2 * BATCHES


def test_a_folder_with_a_run_is_refused_unless_told_to_overwrite(make: Callable[..., Trial]):
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
    assert [line["epoch"] for line in first.log() if line["kind"] == "epoch"] == [1, 2]


# --- what goes wrong -------------------------------------------------------------------------------------------------
def test_a_loss_that_is_nan_stops_the_run_names_the_step_and_keeps_the_last_checkpoint(make: Callable[..., Trial]):
    good = make("good")
    good.fit(1)
    trial = make()
    rescale_before(trial, BATCHES + 3, math.nan)
    with pytest.raises(
        TrainingError, match=rf"nan at step {BATCHES + 3} \(epoch 2, batch 3 of {BATCHES}\).*checkpoint-5;"
    ):
        trial.fit(2)
    assert [path.name for path in trial.run.glob("checkpoint-*")] == [f"checkpoint-{BATCHES}"]
    steps = [line["step"] for line in trial.log() if line["kind"] == "step"]
    assert steps == list(range(1, BATCHES + 3))
    resumed = make()
    resumed.fit(1, resume=True)
    assert resumed.weights() == good.weights()


def test_ctrl_c_after_a_loss_that_is_nan_saves_nothing(make: Callable[..., Trial]):
    trial = make()
    trial.at_step(3, press)
    rescale_before(trial, 3, math.nan)
    with pytest.raises(TrainingError, match="step 3"):
        trial.fit(1)
    assert latest_checkpoint(trial.run) is None
    assert not (trial.run / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved_though_every_loss_was(make: Callable[..., Trial]):
    trial = make()

    trial.at_step(3, lambda: (rescale(trial, math.inf), press()))
    with pytest.raises(TrainingError, match=r"linear\.weight after step 3"):
        trial.fit(1)
    assert latest_checkpoint(trial.run) is None


def test_a_test_loss_that_is_not_finite_stops_the_run(make: Callable[..., Trial]):
    trial = make(read=lambda batch: (scaled(batch)[0] * np.float32(math.nan), batch[1]))
    with pytest.raises(TrainingError, match=f"validation data is nan at step {BATCHES}"):
        trial.fit(1)


def refused(trial: Trial, match: str) -> None:
    before = trial.weights()
    with pytest.raises(RecordError, match=match):
        trial.fit(3, resume=True)
    assert trial.weights() == before


def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(make: Callable[..., Trial]):
    make().fit(1)
    refused(make(config=SmallConfig(lr=0.5)), r"config\.lr is 0\.01 there and 0\.5 here")
    refused(make(config=SmallConfig(classes=11)), r"config\.classes is 10 there and 11 here")
    refused(make(optimizer=SgdConfig(momentum=0.9).init()), "optimizer is 'Adam' there and 'Sgd' here")
    refused(make(limit=100), r"data\.items is 150 there and 100 here")


def test_a_truncated_or_foreign_checkpoint_is_a_record_error_and_changes_nothing(make: Callable[..., Trial]):
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


def test_a_run_folder_that_cannot_be_made_is_a_record_error(make: Callable[..., Trial], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="folder to write to"):
        make("file/run").fit(1)
