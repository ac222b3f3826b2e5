"""RunConfig and its flags: what a config may say, what is filled in, and how errors name fields."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from wgpu_nn.cli.flags import add_flags, flags_of, given, overridden
from wgpu_nn.cli.main import main
from wgpu_nn.cli.starters import STARTERS
from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics import F1, Metric
from wgpu_nn.runs import RunConfig
from wgpu_nn.runs.measures import METRICS

CSV = {"kind": "csv", "path": "x.csv", "target": "y"}


def config(**fields: Any) -> RunConfig:
    return RunConfig.of("test", {"data": CSV, **fields})


def flagged(*words: str, values: dict[str, Any] | None = None) -> RunConfig:
    """Return the config that flags make of ``values``."""
    parser = argparse.ArgumentParser()
    add_flags(parser, list(flags_of(RunConfig)))
    found = overridden(RunConfig, {"data": CSV} if values is None else values, given(parser.parse_args(words)))
    return RunConfig.of("test", found)


@pytest.mark.parametrize("name", sorted(STARTERS))
def test_a_starter_is_a_valid_config_and_survives_its_own_json(name: str) -> None:
    found = RunConfig.from_json(STARTERS[name])
    assert RunConfig.from_json(found.to_json()) == found
    assert RunConfig.from_json(found.resolved().to_json()) == found.resolved()


def test_names_stand_for_configs_with_their_defaults() -> None:
    short = config(optimizer="sgd", schedule="cosine", metrics=["f1"], model="net:Config")
    long = config(
        optimizer={"kind": "sgd"},
        schedule={"kind": "cosine"},
        metrics=[{"kind": "f1"}],
        model={"kind": "own", "name": "net:Config"},
    )
    assert short == long and config(optimizer={"lr": 0.5}).optimizer.kind == "adam"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": "5"}, r"field epochs: expected a valid integer, got '5'"),
        ({"epoch": 5}, r"field epoch: unknown field \(did you mean epochs\?\)"),
        ({"optimizer": {"kind": "adam", "lrr": 1}}, r"field optimizer\.lrr: unknown field \(did you mean lr\?\)"),
        ({"optimizer": "adamm"}, r"field optimizer: expected one of 'adam', 'adamw', 'sgd', got 'adamm'"),
        ({"data": {"kind": "csv", "path": "x"}}, r"field data\.target: expected a value, got none"),
        ({"model": {"hidden": [3]}}, r"field model: expected a kind, got none"),
        ({"metrics": [{"kind": "f1", "average": "x"}]}, r"field metrics\.0\.average: expected 'micro', 'macro'"),
        ({"metrics": ["f1", "f1"]}, r"field metrics: expected different names"),
        ({"metrics": [{"kind": "top-k", "k": 0}]}, r"TopKAccuracy: expected k of 1 or more"),
        ({"monitor": "f1"}, r"field monitor: expected loss or one of \['accuracy', 'confusion'\], got 'f1'"),
        ({"early_stopping": {"patience": 0}}, r"field early_stopping\.patience: expected greater than 0"),
        ({"data": {"kind": "mnist"}, "loss": "mse"}, r"field loss: expected cross-entropy for mnist"),
    ],
)
def test_an_error_names_the_field_as_people_write_it(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_every_metric_can_be_named_and_keeps_its_own_defaults() -> None:
    regression = {"mae", "mse", "rmse", "mape", "max-error", "r2", "explained-variance", "pearson", "spearman"}
    for name, metric in METRICS.items():
        (found,) = config(metrics=[name], loss="mse" if name in regression else "cross-entropy").measured()
        expected: Metric = metric()
        assert type(found) is metric and found.name == expected.name and repr(found) == repr(expected)


def test_a_metric_takes_its_parameters() -> None:
    made = {"kind": "f1", "average": "weighted", "labels": [0, 2], "name": "some"}
    assert repr(config(metrics=[made]).measured()) == repr([F1(average="weighted", labels=(0, 2), name="some")])


def test_a_resolved_config_says_what_was_left_to_the_data_and_where_files_are(tmp_path: Path) -> None:
    table = config(loss="mse").resolved()
    assert table.model is not None and table.model.kind == "mlp"
    assert [m.name for m in table.measured()] == ["mae", "r2"] and Path(table.data.path or "").is_absolute()
    images = RunConfig.of("test", {"data": {"kind": "images", "path": str(tmp_path)}}).resolved()
    assert images.model is not None and images.model.kind == "cnn" and images.data.path == str(tmp_path.resolve())


def test_what_may_change_on_a_resume_is_no_part_of_a_configs_identity() -> None:
    base = config()
    assert config(epochs=99, device="numpy", data={**CSV, "path": "z.csv"}).identity() == base.identity()
    assert config(batch_size=3).identity() != base.identity()


def test_flags_override_fields_at_any_depth_and_leave_others_alone() -> None:
    values = {"data": CSV, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}, "epochs": 3}
    found = flagged("--optimizer.lr", "3e-4", "--epochs", "5", "--data.features", "a,b", values=values)
    assert found == config(
        optimizer={"kind": "sgd", "lr": 3e-4, "momentum": 0.9}, epochs=5, data={**CSV, "features": ["a", "b"]}
    )


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["--optimizer", "adamw", "--optimizer.betas", "0.8,0.9"], {"optimizer": {"kind": "adamw", "betas": [0.8, 0.9]}}),
        (["--optimizer.lr=1"], {"optimizer": {"kind": "adam", "lr": 1}}),
        (["--metrics", "accuracy,f1"], {"metrics": ["accuracy", "f1"]}),
        (["--metrics", '[{"kind": "top-k", "k": 2}]'], {"metrics": [{"kind": "top-k", "k": 2}]}),
        (["--model", "n:C", "--model.fields", '{"n": 1}'], {"model": {"kind": "own", "name": "n:C", "fields": {"n": 1}}}),
        (["--model.hidden", "8"], {"model": {"kind": "mlp", "hidden": [8]}}),
        (["--schedule", "none", "--clip-norm", "null"], {"schedule": None, "clip_norm": None}),
        (["--data.stratify", "--no-data.standardise"], {"data": {**CSV, "stratify": True, "standardise": False}}),
        (["--data.path", "5"], {"data": {**CSV, "path": "5"}}),
        (["--batch-size", "7", "--early_stopping.patience", "2"], {"batch_size": 7, "early_stopping": {"patience": 2}}),
    ],
)  # fmt: skip
def test_a_flags_text_becomes_what_its_field_takes(words: list[str], fields: dict[str, Any]) -> None:
    assert flagged(*words) == config(**fields)


def test_another_kind_starts_from_its_own_defaults() -> None:
    values = {"data": CSV, "optimizer": {"kind": "sgd", "lr": 0.5, "momentum": 0.9}}
    assert flagged("--optimizer", "adam", values=values) == config(optimizer="adam")


def test_the_last_of_bad_flags_is_named_as_well_as_the_first() -> None:
    with pytest.raises(ConfigError, match=r"(?s)field optimizer\.lr: .*got -1.*field epochs: .*got 'five'"):
        flagged("--epochs", "five", "--optimizer.lr", "-1")


def test_every_field_has_a_flag_and_every_flag_a_help() -> None:
    flags = {flag.name: flag for flag in flags_of(RunConfig)}
    assert {name.replace("_", "-") for name in RunConfig.model_fields} <= flags.keys()
    assert {"optimizer.momentum", "data.target", "schedule.warmup", "early-stopping.patience"} <= flags.keys()
    assert not [name for name, flag in flags.items() if not flag.text]


def test_the_schema_is_json_and_knows_the_short_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert schema["properties"].keys() == RunConfig.model_fields.keys()
    assert "adamw" in schema["properties"]["optimizer"]["anyOf"][0]["enum"]
    assert schema["properties"]["data"]["anyOf"][-1]["discriminator"]["propertyName"] == "kind"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a config or flags, got neither"),
        (["nowhere.json"], "nowhere.json: expected a readable JSON file"),
        (["--data", "csv"], "field data.path: expected a value, got none"),
    ],
)
def test_bad_configs_end_with_status_2_and_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_an_unknown_flag_is_guessed_at(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--optimizer.lrr", "1"])
    assert ended.value.code == 2 and "did you mean --optimizer.lr?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "more"),
    [("--data.skip_bad", ", and --no-data.skip_bad switches it off\n"), ("--no-data.skip-bad", "\n")],
)
def test_a_flag_that_is_on_or_off_says_that_it_takes_no_value(
    flag: str, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "config.json", flag, "true"])
    assert ended.value.code == 2 and f"arguments: true; {flag} takes no value{more}" in capsys.readouterr().err


def test_the_help_says_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "--optimizer.lr X" in text and "130  stopped by Ctrl-C" in text and "learning rate" in text
