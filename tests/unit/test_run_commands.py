"""train, resume, eval and predict on small files, through NumPy: what they write, what they print, what they refuse."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.small_data import SPECIES, write_flowers, write_images, write_line
from wgpu_nn.cli.main import main
from wgpu_nn.errors import RecordError
from wgpu_nn.runs import Facts, SavedRun
from wgpu_nn.runs.facts import statistics
from wgpu_nn.runs.parts import OwnPart

FAST = ("--device", "numpy", "--optimizer.lr", "0.02", "--batch-size", "16")
OWN = """
from wgpu_nn import Config, Module
from wgpu_nn.nn import Linear, LinearConfig


class Net(Module):
    linear: Linear

    def forward(self, x):
        return self.linear.forward(x)


class NetConfig(Config):
    inputs: int

    def init(self, device):
        return Net(linear=LinearConfig(self.inputs, 3).init(device))
"""


def flowers(tmp_path: Path, *words: str, status: int = 0) -> Path:
    """Train on flowers, and return the run's folder."""
    table = tmp_path / "flowers.csv"
    if not table.exists():
        write_flowers(table)
    run = tmp_path / "run"
    words = ("--data", "csv", "--data.path", str(table), "--data.target", "species", "--run", str(run), *FAST, *words)
    assert main(["train", *words]) == status
    return run


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return what a command that succeeds prints."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_table_is_trained_evaluated_and_predicted_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = flowers(tmp_path, "--epochs", "6", "--data.valid", "0.2", "--data.stratify")
    values = json.loads(printed(capsys, "eval", run, "--json"))
    assert values["items"] == 12 and values["accuracy"] == 1.0 and values["data"] == "valid"
    (tmp_path / "new.csv").write_text("height,length\n100.5,4.1\n0.2,0.1\n")  # no target, and another order
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "predict", run, tmp_path / "new.csv"))))
    assert [row["class"] for row in rows] == [SPECIES[1], SPECIES[0]] and [row["row"] for row in rows] == ["0", "1"]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows)


def test_statistics_come_from_the_training_rows_and_stay_with_the_run(tmp_path: Path) -> None:
    run = flowers(tmp_path, "--epochs", "0", "--data.valid", "0.5")
    saved = SavedRun.open(run)
    data = saved.config.data.read(numbers=False)
    rows = np.stack([data.train[i][0] for i in range(30)])
    np.testing.assert_allclose(saved.facts.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(saved.facts.deviation, rows.std(0), rtol=1e-6)
    assert saved.facts.classes == tuple(sorted(SPECIES)) and saved.facts.features == ("length", "height")


def test_other_data_are_treated_by_the_runs_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = flowers(tmp_path, "--epochs", "6")
    lines = (tmp_path / "flowers.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *(x for x in lines if x.endswith("tulip"))]) + "\n")
    # Standardised by themselves, tulips alone would look like the middle class.
    values = json.loads(printed(capsys, "eval", run, "--data", tmp_path / "one.csv", "--json"))
    assert values["items"] == 20 and values["accuracy"] == 1.0


def test_numbers_are_predicted_with_mse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run = write_line(tmp_path / "line.csv"), tmp_path / "run"
    words = ("--data", "csv", "--data.path", str(table), "--data.target", "y", "--loss", "mse", "--epochs", "30")
    assert main(["train", *words, "--run", str(run), *FAST]) == 0
    assert json.loads(printed(capsys, "eval", run, "--json"))["r2"] > 0.9
    assert main(["predict", str(run), str(table), "--out", str(tmp_path / "p.npz")]) == 0
    with np.load(tmp_path / "p.npz") as found, table.open() as file:
        y = [float(row["y"]) for row in csv.DictReader(file)]
        assert np.corrcoef(found["values"][:, 0], y)[0, 1] > 0.95 and list(found["row"][:2]) == [0, 1]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_columns_of_lists_are_features_in_training_and_prediction(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"v": (4 * (i % 3) + rng.normal(size=2)).tolist(), "h": 1.0 * i, "species": SPECIES[i % 3]} for i in range(60)
    ]
    table, run = tmp_path / f"t.{kind}", tmp_path / "run"
    if kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), table)
    words = ("--data.path", str(table), "--data.target", "species", "--data.features", "v", "--data.valid", "0")
    assert main(["train", "--data", kind, *words, "--epochs", "8", "--run", str(run), *FAST]) == 0
    found = list(csv.DictReader(io.StringIO(printed(capsys, "predict", run, table))))
    right = [row["class"] == item["species"] for row, item in zip(found, rows, strict=True)]
    assert np.mean(right) > 0.9 and SavedRun.open(run).facts.inputs == (2,)
    assert main(["eval", str(run)]) == 2 and "take --split train or --data" in capsys.readouterr().err


def test_images_in_folders_are_trained_on_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = write_images(tmp_path / "images"), tmp_path / "run"
    words = ("--data", "images", "--data.path", str(folder), "--epochs", "2", "--model.hidden-size", "8")
    more = ("--data.valid", "0.25", "--augment", "flip", "--device", "numpy")
    assert main(["train", *words, *more, "--run", str(run)]) == 0
    out = tmp_path / "found.jsonl"
    assert main(["predict", str(run), str(folder), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 12 and rows[0]["input"].endswith("0.png") and rows[0]["row"] is None
    assert all(row["probabilities"].keys() == {"dark", "light"} for row in rows)
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)
    assert SavedRun.open(run).facts.inputs == (9, 11)


@pytest.mark.parametrize("clipping", [[], ["--clip-norm", "1.0"]])
def test_training_in_halves_learns_too(clipping: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = flowers(tmp_path, "--epochs", "6", "--precision", "f16", *clipping)
    assert json.loads(printed(capsys, "eval", run, "--json"))["accuracy"] > 0.8


def test_arrays_are_read_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", rows=rng.normal(size=(40, 3)) + 4 * y[:, None], kinds=y)
    run = tmp_path / "run"
    names = ("--data.inputs", "rows", "--data.targets", "kinds")
    words = ("--data", "arrays", "--data.path", str(tmp_path / "a.npz"), *names, "--epochs", "5", "--run", str(run))
    assert main(["train", *words, *FAST]) == 0
    assert json.loads(printed(capsys, "eval", run, "--split", "train", "--json"))["accuracy"] > 0.9
    np.save(tmp_path / "wrong.npy", np.zeros((2, 4)))
    assert main(["predict", str(run), str(tmp_path / "wrong.npy")]) == 1
    assert "expected inputs of [3], as in training, got [4]" in capsys.readouterr().err


def test_a_model_of_ones_own_is_found_beside_where_training_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    own = ("--model", "own_net:NetConfig", "--epochs", "4", "--model.fields")
    run = flowers(tmp_path, *own, '{"inputs": 2}')
    model = SavedRun.open(run).config.model
    assert isinstance(model, OwnPart) and model.folder == str(tmp_path.resolve())
    monkeypatch.chdir(tmp_path.parent)
    assert "accuracy" in printed(capsys, "eval", run)
    flowers(tmp_path, "--overwrite", *own, '{"inputs": "2"}', status=2)
    assert "field inputs: expected a valid integer" in capsys.readouterr().err


def test_a_run_of_more_epochs_equals_one_that_never_stopped(tmp_path: Path) -> None:
    short = flowers(tmp_path, "--epochs", "2").rename(tmp_path / "short")
    whole = flowers(tmp_path, "--epochs", "4")
    assert main(["resume", str(short), "--epochs", "4"]) == 0
    assert weights(short) == weights(whole)
    assert json.loads((short / "config.json").read_text())["epochs"] == 4


def test_resume_takes_a_moved_folder_of_data_and_refuses_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = flowers(tmp_path, "--epochs", "1")
    moved = shutil.move(tmp_path / "flowers.csv", tmp_path / "moved.csv")
    assert main(["resume", str(run), "--epochs", "2", "--data.path", str(moved)]) == 0
    before = weights(run)
    write_flowers(tmp_path / "more.csv", rows=63)
    assert main(["resume", str(run), "--epochs", "3", "--data.path", str(tmp_path / "more.csv")]) == 1
    assert "mean, deviation differ" in capsys.readouterr().err and weights(run) == before


def test_a_folder_with_a_run_is_left_alone_unless_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = flowers(tmp_path, "--epochs", "1")
    before = weights(run)
    flowers(tmp_path, "--epochs", "2", status=2)
    assert f"wgpu-nn resume {run}" in capsys.readouterr().err and weights(run) == before
    flowers(tmp_path, "--epochs", "2", "--overwrite")
    assert weights(run) != before


def test_best_last_and_a_step_are_different_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = flowers(tmp_path, "--epochs", "3", "--keep", "3")
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*"))
    found = {
        which: json.loads(printed(capsys, "eval", run, "--json", "--checkpoint", which)) for which in ("last", steps[0])
    }
    assert found["last"]["checkpoint"] == f"checkpoint-{steps[-1]}"
    assert found[steps[0]]["checkpoint"] == f"checkpoint-{steps[0]}" and found[steps[0]]["loss"] > found["last"]["loss"]
    assert main(["eval", str(run), "--checkpoint", "1"]) == 1
    assert "expected a checkpoint (1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--data.target", "nothing"], 1, "expected columns"),
        (["--data.path", "nowhere.csv"], 1, "nowhere.csv"),
        (["--data.target", "length", "--data.features", "height"], 1, "of 54 items as target, got float32 [54]"),
        (["--loss", "mse"], 1, "expected numbers in the target 'species', got texts"),
        (["--model", "cnn"], 2, "model: expected grey images for a cnn, got items of [2]"),
        (["--augment", "flip"], 2, "augment: expected images"),
        (["--schedule", "cosine", "--schedule.warmup", "999"], 2, "schedule.warmup: expected less than the"),
        (["--device", "abacus"], 1, "device: expected wgpu"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_written(
    words: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = flowers(tmp_path, *words, status=status)
    assert message in capsys.readouterr().err and not run.exists()


@pytest.mark.parametrize(
    ("x", "y", "more", "message"),
    [
        (np.nan, 0, (), "finite numbers as inputs, got NaN or infinity in item "),
        (1.0, np.inf, ("--loss", "mse"), "finite numbers as targets of 36 items, got NaN or infinity among them"),
        (1.0, -1, (), "expected classes from 0 on, got -1"),
    ],
)
def test_arrays_with_bad_numbers_are_refused_before_anything_is_written(
    x: float, y: float, more: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, targets = np.ones((40, 3)), np.zeros(40, type(y))
    inputs[::2, 1], targets[::2] = x, y
    np.savez(tmp_path / "a.npz", x=inputs, y=targets)
    words = ("--data", "arrays", "--data.path", str(tmp_path / "a.npz"), "--run", str(tmp_path / "run"))
    assert main(["train", *words, *more, *FAST]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["eval", "predict", "resume"])
def test_a_folder_that_is_no_run_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["x.csv"] if command == "predict" else []
    assert main([command, str(tmp_path), *more]) == 1
    assert "expected config.json of wgpu-nn train" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [{"inputs": [10**9]}, {"outputs": 10**12}, {"inputs": [2**16, 2**16]}])
@pytest.mark.parametrize("which", ["last", "best"])
def test_sizes_that_the_saved_model_cannot_have_are_refused_at_once(
    which: Literal["last", "best"], damage: dict[str, Any], tmp_path: Path
) -> None:
    run = flowers(tmp_path, "--epochs", "1")
    facts = run / "data.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | damage))
    with pytest.raises(RecordError, match=r"numbers or more, got .* are config\.json and data\.json whole\?"):
        SavedRun.open(run).learner(which)


def test_predictions_go_to_files_of_known_formats_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path), "x.csv", "--out", str(tmp_path / "p.xlsx")]) == 2
    assert "--out: expected a file that ends in .csv, .jsonl, .npz" in capsys.readouterr().err


def test_statistics_in_parts_are_those_of_the_whole(rng: np.random.Generator) -> None:
    for shape in ((2500, 3), (1100, 2, 3, 5), (1030, 4, 3)):
        x = rng.normal(size=shape) * 3 + 1e4
        mean, deviation = statistics(lambda i, x=x: x[i], len(x))
        axes = tuple(a for a in range(x.ndim) if x.ndim == 3 or a != 1)
        np.testing.assert_allclose(mean, np.atleast_1d(x.mean(axes)), rtol=1e-12)
        np.testing.assert_allclose(deviation, np.atleast_1d(x.std(axes)), rtol=1e-9)


def test_facts_leave_inputs_alone_that_are_not_standardised_but_for_bytes() -> None:
    facts: Any = Facts((2,), 2)
    np.testing.assert_array_equal(facts.prepared(np.array([[0, 255]], np.uint8)), [[0.0, 1.0]])
    np.testing.assert_array_equal(facts.prepared(np.array([[3.0, 4.0]])), [[3.0, 4.0]])
