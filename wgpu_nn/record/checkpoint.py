"""Checkpoints of a run: directories that are complete or not seen; what the tensors and the state mean, callers know.

A checkpoint is ``<run>/checkpoint-<step>/`` with one ``<group>.safetensors`` for each group of tensors, and a
``state.json`` that names these files with their sizes and digests. It is written under a hidden name, reaches the disk,
and is renamed; only then are older ones removed, hidden by a rename first. So at any instant every directory of that
name is whole. One process at a time writes to a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from wgpu_nn.errors import RecordError
from wgpu_nn.files import sync_directory, write_atomic
from wgpu_nn.record.tensors import load_tensors, save_tensors

__all__ = ["Checkpoint", "checkpoint_at", "latest_checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = 1
# A step saved twice in a run (after a resume from an older one) gets a suffix: there is no atomic swap of directories.
_NAME = re.compile(r"checkpoint-(\d+)(?:\.(\d+))?")
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEBRIS = ".checkpoint-"
OLDER = "load an older checkpoint of the run"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: the step it was taken at, groups of named arrays, and the state given beside them."""

    step: int
    tensors: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]


def save_checkpoint(
    run_dir: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    state: Mapping[str, Any],
    keep: int = 2,
    spared: Collection[int] = (),
) -> Path:
    """Write a checkpoint, remove all but the ``keep`` newest and those of ``spared`` steps, and return its directory.

    ``tensors`` maps groups ("model", "optimizer") to named arrays; ``state`` holds what JSON can hold (tuples come back
    as lists, NaN and the infinities are kept). Newest means written last, whatever its step. Raises RecordError when
    something cannot be saved; the older checkpoints are untouched then.
    """
    run = Path(run_dir)
    where = f"save_checkpoint: {run}"
    if step < 0 or keep < 1:
        raise RecordError(f"{where}: expected step >= 0 and keep >= 1, got step {step} and keep {keep}; count from 0")
    for group in tensors:
        if not _GROUP.fullmatch(group):
            raise RecordError(f"{where}: expected a group name of letters, digits, _ and -, got {group!r}; rename it")
    _check_plain(where, dict(state), "state")
    serial = max((serial for serial, _ in _complete(run)), default=-1) + 1
    temporary = run / f"{_DEBRIS}{step}.{secrets.token_hex(4)}.tmp"
    try:
        run.mkdir(parents=True, exist_ok=True)
        _remove_debris(run)
        temporary.mkdir()
        for group, arrays in tensors.items():
            save_tensors(temporary / f"{group}.safetensors", arrays)
        files = {group: _fingerprint(temporary / f"{group}.safetensors") for group in tensors}
        record = {"format": FORMAT, "serial": serial, "step": step, "files": files, "state": dict(state)}
        write_atomic(temporary / "state.json", (json.dumps(record, indent=2) + "\n").encode())
        target = _free_name(run, step)
        os.rename(temporary, target)
        sync_directory(run)
        for _, old in _complete(run)[keep:]:
            if step_of(old) in spared:
                continue
            with contextlib.suppress(OSError):  # the new one is safe; an old one too many is no failure
                os.rename(old, run / f"{_DEBRIS}{old.name}.{secrets.token_hex(4)}.old")
        _remove_debris(run)
    except OSError as error:
        raise RecordError(
            f"{where}: expected to write a checkpoint, got {error.strerror or error}; "
            "may you write there, is the disk full?"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the checkpoint in the directory ``path``, every byte of its tensors checked.

    Raises RecordError, naming the file, if it is missing, incomplete, damaged, or of another format version.
    """
    directory = Path(path)
    where = f"load_checkpoint: {directory}"
    if not directory.is_dir():
        raise RecordError(f"{where}: expected a checkpoint's directory, got none; is the path right?")
    record = _read_record(where, directory)
    if record.get("format") != FORMAT:
        raise RecordError(
            f"{where}: expected format {FORMAT}, got {record.get('format')!r}; "
            "load it with the version of wgpu_nn that wrote it"
        )
    step, files, state = (record.get(key) for key in ("step", "files", "state"))
    if type(step) is not int or not isinstance(files, dict) or not isinstance(state, dict):
        raise RecordError(f"{where}: expected step, files and state in state.json, got {sorted(record)}; {OLDER}")
    tensors: dict[str, dict[str, np.ndarray]] = {}
    for group, expected in cast(dict[str, Any], files).items():
        if not _GROUP.fullmatch(group):  # a name such as ../x must not lead out of the directory
            raise RecordError(f"{where}: expected a group name, got {group!r}; is it one of ours? If so, {OLDER}")
        file = directory / f"{group}.safetensors"
        try:
            found = _fingerprint(file)
        except OSError as error:
            raise RecordError(f"{where}: expected {file.name}, got {error.strerror}; {OLDER}") from error
        if found != expected:
            raise RecordError(f"{where}: expected {file.name} with {expected}, got {found}; it is damaged, {OLDER}")
        tensors[group] = load_tensors(file)[0]
    return Checkpoint(step, tensors, cast(dict[str, Any], state))


def latest_checkpoint(run_dir: str | os.PathLike[str]) -> Path | None:
    """Return the directory of the complete checkpoint written last in a run, or None if there is none.

    Complete means that all files are there in their full sizes; ``load_checkpoint`` checks the bytes too.
    """
    return next((path for _, path in _complete(Path(run_dir))), None)


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint's directory."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise RecordError(f"checkpoint: expected a directory named checkpoint-<step>, got {path}; is it one of ours?")
    return int(found[1])


def checkpoint_at(run_dir: str | os.PathLike[str], step: int) -> Path | None:
    """Return the directory of the complete checkpoint of ``step`` in a run, the last written of several, or None."""
    return next((path for _, path in _complete(Path(run_dir)) if step_of(path) == step), None)


def _complete(run: Path) -> list[tuple[int, Path]]:
    """List the complete checkpoints of a run with their serial numbers, newest first."""
    found: list[tuple[int, Path]] = []
    try:
        candidates = [path for path in run.iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return []
    for path in candidates:
        try:
            record = _read_record("", path)
            # A whole checkpoint of another format counts: to pass over it in silence would lose training.
            if record.get("format") == FORMAT and not all(
                (path / f"{group}.safetensors").stat().st_size == expected["bytes"]
                for group, expected in record["files"].items()
            ):
                continue
            serial = record.get("serial")
        except (RecordError, OSError, AttributeError, KeyError, TypeError, ValueError):
            continue
        found.append((serial if type(serial) is int else -1, path))
    return sorted(found, reverse=True)


def _read_record(where: str, directory: Path) -> dict[str, Any]:
    try:
        record: object = json.loads((directory / "state.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{where}: expected a readable state.json, got {error}; {OLDER}") from error
    if not isinstance(record, dict):
        raise RecordError(f"{where}: expected an object in state.json, got {type(record).__name__}; {OLDER}")
    return cast(dict[str, Any], record)


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _free_name(run: Path, step: int) -> Path:
    target, again = run / f"checkpoint-{step}", 0
    while os.path.lexists(target):
        again += 1
        target = run / f"checkpoint-{step}.{again}"
    return target


def _remove_debris(run: Path) -> None:
    """Remove what a kill left behind; a failure to do so is no reason to lose a checkpoint."""
    for path in run.glob(f"{_DEBRIS}*"):
        shutil.rmtree(path, ignore_errors=True)


def _check_plain(where: str, value: object, name: str) -> None:
    """Raise RecordError naming the place in ``state`` that JSON would refuse, or would change without a word."""
    if isinstance(value, dict):
        for key, child in cast(dict[object, object], value).items():
            if not isinstance(key, str):
                raise RecordError(f"{where}: {name}: expected keys that are strings, got {key!r}; use str(key)")
            _check_plain(where, child, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, child in enumerate(cast(list[object], value)):
            _check_plain(where, child, f"{name}[{index}]")
    elif type(value) not in {bool, int, float, str, type(None)}:
        raise RecordError(
            f"{where}: {name}: expected what JSON can hold, got {type(value).__name__}; "
            "convert it (.item(), .tolist()), or save it among the tensors"
        )
