"""The training loop on the GPU, and the MNIST example as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.trial import Trial
from wgpu_nn import Device, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.data import ArrayDataset, DataLoader, load_mnist, mapped
from wgpu_nn.gpu import Gpu
from wgpu_nn.metrics import Accuracy
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.train import Learner, window
from wgpu_nn.train.step import Clipping, Training, supervised

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "mnist"
CONFIG = ModelConfig(10, 128)
Item = tuple[np.ndarray, ...]


def scaled(batch: Item) -> Item:
    return ((batch[0] / 255 - 0.1307) / 0.3081).astype(np.float32), batch[1]


@pytest.fixture(scope="module")
def digits() -> tuple[Item, Item]:
    return load_mnist(EXAMPLE / "mnist10k.npz")


@pytest.fixture
def make(digits: tuple[Item, Item], gpu_device: Device, tmp_path: Path) -> Callable[..., Trial]:
    def made(
        n: int,
        run: str = "run",
        valid_device: Device | None = None,
        device: Device = gpu_device,
        keep: bool | None = None,
    ) -> Trial:
        (x, y), (x_test, y_test) = digits
        device.seed(5)
        model = CONFIG.init(device.autodiff())
        optimizer, loss = AdamConfig(lr=3e-3).init(), CrossEntropyLossConfig().init()
        learner = Learner(model, optimizer, loss, [Accuracy()], valid_device=valid_device, keep_on_device=keep)
        train = DataLoader(mapped(ArrayDataset(x[:n], y[:n]), scaled), 32, shuffle=True, seed=3)
        valid = DataLoader(mapped(ArrayDataset(x_test[:90], y_test[:90]), scaled), 50, shuffle=False, seed=0)
        return Trial(learner, train, valid, tmp_path / run, CONFIG)

    return made


def test_the_loss_falls_and_the_accuracy_rises_on_real_digits(make: Callable[..., Trial]):
    first, *_, last = make(320).fit(4).history
    assert last.train["loss"] < 0.6 * first.train["loss"]
    assert last.train["accuracy"] > first.train["accuracy"] + 0.15
    assert last.valid["accuracy"] > 0.5


@pytest.mark.parametrize("keep", [False, None], ids=["streamed", "kept"])
def test_in_steady_state_a_step_allocates_nothing_and_compiles_nothing(
    make: Callable[..., Trial], gpu_device: Device, keep: bool | None
):
    # Its own device: what other tests have compiled and allocated would hide what this one does.
    trial = make(256 + 9, device=Device.of(Wgpu(Gpu(gpu_device.gpu.adapter))), keep=keep)
    gpu = trial.learner.device.gpu
    made: list[tuple[int, int]] = []
    trial.after = lambda _, number: made.append((gpu.pool.stats().created, gpu.counts.pipelines))
    trial.fit(3)
    steps = len(trial.train)
    assert steps == 9
    # From the third step to the last before the smaller batch is uploaded, a step ahead; and in the third epoch, when
    # batches of every size were captured.
    assert set(made[2 : steps - 2]) == {made[2]}
    assert set(made[2 * steps :]) == {made[2 * steps]}
    gpu.destroy()


def test_the_loop_reads_the_device_rarely(make: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(window, "READ_SECONDS", 1e9)
    monkeypatch.setattr(window, "FIRST_STEPS", window.READ_STEPS)
    trial = make(256)
    counts = trial.learner.device.gpu.counts
    reads: list[int] = []
    trial.before = lambda _, number: reads.append(counts.reads)
    trial.fit(1)
    assert reads[0] == reads[1] - 2 == reads[-1] - 2  # after the first step: loss and accuracy


def test_a_step_is_a_function_of_tensors_that_waits_for_nothing(gpu_device: Device, digits: tuple[Item, Item]):
    device = gpu_device.autodiff()
    model, optimizer = CONFIG.init(device), AdamConfig().init()
    training = Training(model, optimizer, supervised(CrossEntropyLossConfig().init()), Clipping())
    (x, y), _ = digits
    images, targets = scaled((x[:8], y[:8]))
    before = gpu_device.gpu.counts.copy()
    out = training.update((tensor(images, device), tensor(targets, device)))
    assert gpu_device.gpu.counts.since(before).reads == 0
    assert out.outputs is not None and out.targets is not None
    assert out.loss.device == out.outputs.device == out.targets.device == gpu_device
    assert out.loss.shape == () and 1.5 < out.loss.item() < 4.0
    assert optimizer.steps == 1


@pytest.mark.parametrize("step", [3, 5])
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_bit_for_bit(make: Callable[..., Trial], step: int):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        whole = make(128 + 9, "whole")
        whole.fit(2)
        stopped = make(128 + 9)
        stopped.after = lambda _, number: number == step and signal.raise_signal(signal.SIGINT)
        assert stopped.fit(2).interrupted
        resumed = make(128 + 9)
        resumed.learner.device.seed(99)
        resumed.fit(2, resume=True)
        assert resumed.weights() == whole.weights()
    finally:
        signal.signal(signal.SIGINT, before)


def test_metrics_on_the_cpu_agree_with_those_on_the_gpu_that_trains(make: Callable[..., Trial]):
    trial = make(64, valid_device=Device("numpy"))
    apart = trial.fit(1).history[0].valid
    assert trial.valid is not None
    here = Learner(trial.model, trial.optimizer, CrossEntropyLossConfig().init(), [Accuracy()]).evaluate(trial.valid)
    assert apart["loss"] == pytest.approx(here["loss"], rel=1e-4)
    assert abs(apart["accuracy"] - here["accuracy"]) <= 1 / 90  # a tie may fall either way
    assert trial.model.device == trial.learner.device


# --- the example -----------------------------------------------------------------------------------------------------
class Ran(NamedTuple):
    code: int
    out: str
    err: str


# The checkout's package, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def script(name: str, *args: object) -> Ran:
    command = [sys.executable, EXAMPLE / name, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one tiny epoch on the best adapter."""
    out = tmp_path_factory.mktemp("train") / "deep" / "run"
    done = script("train.py", "--epochs", 1, "--limit", 160, "--out", out)
    assert done.code == 0, done.err
    assert "device: " in done.out and "conv2: Conv2d(8 -> 16" in done.out and "valid loss" in done.out
    return out


@pytest.fixture
def picture(tmp_path: Path, digits: tuple[Item, Item]) -> Path:
    Image.fromarray(digits[1][0][0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_the_example_writes_files_that_other_programs_read(trained: Path):
    names = {path.name for path in trained.iterdir()}
    files = {"config.json", "figure.png", "metrics.jsonl", "model.safetensors", "run.json", "samples.npz"}
    assert names == {"checkpoint-3", *files}
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays: dict[str, Any] = safetensors.load_file(trained / "model.safetensors")
    assert {name: list(a.shape) for name, a in arrays.items()}["linear1.weight"] == [1024, 512]
    assert sum(a.size for a in arrays.values()) == 531_178
    assert json.loads((trained / "config.json").read_text())["model"]["hidden_size"] == 512
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step"] * 3 + ["epoch"]
    with Image.open(trained / "figure.png") as image:
        image.load()
        assert image.size[0] > 1000 and image.getextrema()[0] != (255, 255)


def test_the_example_classifies_image_files(trained: Path, picture: Path, tmp_path: Path):
    grey = Image.open(picture)
    Image.eval(grey, lambda value: 255 - value).resize((56, 56), Image.Resampling.NEAREST).save(tmp_path / "ink.png")
    plain = script("infer.py", picture, "--model", trained)
    ink = script("infer.py", tmp_path / "ink.png", "--model", trained, "--resize", "--invert", "--device", "numpy")
    assert plain.code == ink.code == 0, plain.err + ink.err
    assert plain.out.startswith(f"{picture}: ") and plain.out.rstrip().endswith("%")
    assert plain.out.split(": ")[1].split()[0] == ink.out.split(": ")[1].split()[0]


def test_an_image_of_the_wrong_size_is_one_line_and_the_others_are_classified(
    trained: Path, picture: Path, tmp_path: Path
):
    Image.new("L", (10, 12)).save(tmp_path / "small.png")
    done = script("infer.py", tmp_path / "small.png", picture, "--model", trained, "--device", "numpy")
    assert done.code == 1
    assert done.err.count("\n") == 1 and "28 x 28 pixels, got 10 x 12" in done.err
    assert done.out.count("\n") == 1 and str(picture) in done.out


def test_a_config_of_another_model_is_one_line(trained: Path, picture: Path, tmp_path: Path):
    config = json.loads((trained / "config.json").read_text())
    config["model"]["hidden_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    done = script("infer.py", picture, "--model", tmp_path, "--device", "numpy")
    assert done.code == 1 and done.out == ""
    assert done.err.count("\n") == 1 and "linear1.weight" in done.err and "[1024, 64]" in done.err


def test_a_run_of_another_config_is_not_overwritten_and_a_finished_one_is_shown_again(trained: Path):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and path.suffix != ".png"}
    other = script("train.py", "--epochs", 1, "--limit", 100, "--out", trained, "--device", "numpy")
    assert other.code == 1 and other.err.count("\n") == 1 and "overwrite" in other.err
    resumed = script("train.py", "--epochs", 1, "--lr", 0.5, "--out", trained, "--device", "numpy", "--resume")
    assert resumed.code == 1 and "config.optimizer.lr is 0.001 there and 0.5 here" in resumed.err
    again = script("train.py", "--epochs", 1, "--limit", 160, "--out", trained, "--device", "numpy")
    assert again.code == 0 and "holds this very run" in again.out
    assert {path: path.read_bytes() for path in before} == before


def test_bad_flags_are_one_line(tmp_path: Path):
    for flags, message in (
        (("--device", "wgpu:no such adapter"), "matches none"),
        (("--data", tmp_path / "none"), "does not exist"),
        (("--batch-size", 0), "batch_size"),
    ):
        done = script("train.py", "--out", tmp_path / "run", *flags)
        assert done.code == 1 and message in done.err and done.out.count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_a_real_ctrl_c_saves_and_resume_comes_to_the_same_model(tmp_path: Path):
    flags = ["--epochs", "2", "--limit", "1000", "--device", "numpy"]
    command = [sys.executable, "-u", str(EXAMPLE / "train.py"), *flags, "--out", str(tmp_path / "stopped")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        seen = ""
        while "batch " not in seen:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += line
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "" and "stopped and saved at step" in out and "--resume" in out
    step = int(out.split("at step ")[1].split(";")[0])
    assert 1 <= step < 32
    resumed = script("train.py", *flags, "--out", tmp_path / "stopped", "--resume")
    whole = script("train.py", *flags, "--out", tmp_path / "whole")
    assert resumed.code == whole.code == 0, resumed.err + whole.err
    files = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("stopped", "whole")]
    assert files[0] == files[1]
