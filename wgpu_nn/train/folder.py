"""The folder of a run: which files it has, who may begin one there, and what is written at its start and end."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import RecordError
from wgpu_nn.nn import Config, Module
from wgpu_nn.record import latest_checkpoint, write_atomic
from wgpu_nn.tensor import Device
from wgpu_nn.train.checkpoint import Parts, check_identity
from wgpu_nn.train.log import plain

CONFIG, METRICS, MODEL, RUN = "config.json", "metrics.jsonl", "model.safetensors", "run.json"
SAMPLES, DETAILS = "samples.npz", "details"
FACTS = "data.json"  # what wgpu_nn.runs keeps of the data

State = Literal["running", "done", "stopped", "failed"]


def holds_run(folder: Path) -> bool:
    """Say whether a training run was begun in ``folder``."""
    names = (CONFIG, METRICS, MODEL, RUN)
    return any((folder / name).exists() for name in names) or latest_checkpoint(folder) is not None


def remove_run(folder: Path) -> None:
    """Remove a training run from ``folder``, and leave whatever else is there."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for path in [
        *(folder / name for name in (CONFIG, METRICS, MODEL, RUN, SAMPLES, FACTS)),
        *_details(folder).values(),
    ]:
        path.unlink(missing_ok=True)


def found_in(folder: Path, parts: Parts, resume: bool, overwrite: bool) -> Path | None:
    """Return the checkpoint to go on from, or None for a start; raise RecordError where neither is allowed.

    Nothing is changed. A run that was stopped before its first checkpoint starts again under ``resume``; a folder that
    holds a run is refused otherwise, unless it may be overwritten.
    """
    found = latest_checkpoint(folder) if resume else None
    if found is not None:
        return found
    if resume and holds_run(folder) and not (folder / MODEL).exists():
        if (folder / CONFIG).exists():
            check_identity(f"resume: {folder / CONFIG}", _json(folder / CONFIG), parts.identity()["config"] or {})
        return None
    if holds_run(folder) and not overwrite:
        state = "one whose checkpoints are gone" if resume else "one with a run in it"
        raise RecordError(
            f"fit: {folder}: expected a new folder, got {state}; "
            f"{'' if resume else 'resume it, '}overwrite it, or choose another"
        )
    return None


def make_writable(folder: Path) -> None:
    """Make ``folder``, and write to it and to it alone; raise RecordError if that is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        raise RecordError(
            f"fit: {folder}: expected a folder to write to, got {error.strerror}; choose another, or make room"
        ) from error


def begin_run(folder: Path, config: Config | None) -> None:
    """Remove a run from ``folder``, and write the config of the next one."""
    try:
        remove_run(folder)
    except OSError as error:
        raise RecordError(f"fit: {folder}: expected to remove the run in it, got {error.strerror}") from error
    if config is not None:
        config.save(folder / CONFIG)


def write_state(folder: Path, state: State, facts: Mapping[str, Any], message: str = "") -> None:
    """Write run.json: the ``facts`` of a run, its ``state``, and when it started and ended (ISO 8601, UTC)."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = folder / RUN
    before = _json(path) if path.exists() else {}
    started = before.get("started", now) if isinstance(before, dict) else now
    ended = None if state == "running" else now
    content = {**facts, "started": started, "ended": ended, "state": state, "message": message}
    write_atomic(path, (json.dumps(plain(content), indent=2, default=str) + "\n").encode())


def facts_of(model: Module, device: Device) -> dict[str, Any]:
    """Return what a run is made on and of: version, machine, adapter, model."""
    return {
        "wgpu_nn": _version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": repr(device),
        "adapter": _adapter(device),
        "argv": sys.argv,
        "seed": device.rng.seed,
        "model": repr(model),
        "parameters": model.num_params(),
    }


def write_details(folder: Path, epoch: int, details: Mapping[str, np.ndarray | float], best: int) -> None:
    """Write details/epoch-<n>.npz, and remove those of other epochs than this and the best one."""
    if not details:
        return
    path = folder / DETAILS / f"epoch-{epoch}.npz"
    try:
        path.parent.mkdir(exist_ok=True)
        write_arrays(path, details)
        for number, old in _details(folder).items():
            if number not in (epoch, best):
                old.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"fit: expected to write {path}, got {error.strerror}; is the disk full?") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray | float]) -> None:
    """Write named arrays as .npz, whole or not at all."""
    named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    write_atomic(path, lambda file: np.savez(file, **named))


def _details(folder: Path) -> dict[int, Path]:
    found = {path.stem.removeprefix("epoch-"): path for path in (folder / DETAILS).glob("epoch-*.npz")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


def _adapter(device: Device) -> dict[str, str] | None:
    root = device.root
    if not isinstance(root, Wgpu):
        return None
    adapter = root.gpu.adapter
    return {"name": adapter.name, "kind": adapter.kind, "api": adapter.api, "driver": adapter.driver}


def _version() -> str:
    try:
        return version("wgpu-nn")
    except PackageNotFoundError:  # imported from a checkout that is not installed
        return "unknown"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"resume: {path}: expected a readable JSON file, got {error}; mend it, or remove it"
        ) from error
