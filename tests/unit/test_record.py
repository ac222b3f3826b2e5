"""Atomic files, tensors in safetensors, checkpoints: what they hold, and what a kill or damage does to them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wgpu_nn.errors import RecordError
from wgpu_nn.record import latest_checkpoint, load_checkpoint, load_tensors, save_checkpoint, save_tensors, write_atomic

WEIGHTS = {"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "optimizer": {"step": np.array(3, np.int32)}}


class Killed(BaseException):
    """Stands for a kill: nothing that the code does on Exception may be needed."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Atomic files


def test_write_atomic_replaces_the_old_content(tmp_path: Path):
    write_atomic(tmp_path / "a", b"old")
    write_atomic(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_failing_writer_leaves_the_old_content_and_no_debris(tmp_path: Path):
    write_atomic(tmp_path / "a", b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise Killed

    with pytest.raises(Killed):
        write_atomic(tmp_path / "a", half)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_write_atomic_names_the_path_it_cannot_write(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"")
    for path in (tmp_path / "none" / "a", tmp_path / "f" / "a", tmp_path):
        with pytest.raises(RecordError, match=f"write: expected to write {path}"):
            write_atomic(path, b"")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_write_atomic_obeys_the_umask(tmp_path: Path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


# Tensors


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.int32, np.bool_, np.float64, np.uint8, np.dtype(">f4"), np.dtype(">i4")]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    st.randoms(use_true_random=False),
)
def test_arrays_of_any_shape_and_layout_round_trip(tmp_path_factory: pytest.TempPathFactory, array: Any, random: Any):
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    view = array.transpose(random.sample(range(array.ndim), array.ndim))[(slice(None, None, -1),) * array.ndim]
    save_tensors(path, {"a.b": view})
    again = load_tensors(path)[0]["a.b"]
    np.testing.assert_array_equal(again, view)
    assert again.shape == view.shape and again.dtype == view.dtype.newbyteorder("=")
    assert safetensors.numpy.load_file(path)["a.b"].tobytes() == again.tobytes()


def test_an_expanded_view_is_written_out(tmp_path: Path):
    save_tensors(tmp_path / "t", {"x": np.broadcast_to(np.float32(2), (3, 2))})
    assert safetensors.numpy.load_file(tmp_path / "t")["x"].tolist() == [[2, 2]] * 3


def test_loaded_arrays_are_writable_and_outlive_the_file(tmp_path: Path):
    save_tensors(tmp_path / "t", {"x": np.ones(3, np.float32)})
    x = load_tensors(tmp_path / "t")[0]["x"]
    (tmp_path / "t").unlink()
    x += 1
    assert x.tolist() == [2, 2, 2]


def test_metadata_round_trips(tmp_path: Path):
    save_tensors(tmp_path / "t", {}, {"class": "Модель"})
    assert load_tensors(tmp_path / "t") == ({}, {"class": "Модель"})


def test_no_metadata_reads_as_an_empty_dictionary(tmp_path: Path):
    save_tensors(tmp_path / "t", {"": np.zeros((0, 3))})
    arrays, metadata = load_tensors(tmp_path / "t")
    assert metadata == {} and arrays[""].shape == (0, 3)


@pytest.mark.parametrize("array", [np.array([1 + 2j]), np.array(["a"]), np.array([object()]), np.zeros(2, "M8[s]")])
def test_element_types_without_a_place_are_refused(tmp_path: Path, array: Any):
    with pytest.raises(RecordError, match=r"save_tensors: .*expected arrays of numbers"):
        save_tensors(tmp_path / "t", {"x": array})
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [3, "__metadata__", "\ud800"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, name: Any):
    with pytest.raises(RecordError, match="save_tensors"):
        save_tensors(tmp_path / "t", {name: np.ones(1)})


def test_metadata_that_is_no_string_is_refused(tmp_path: Path):
    with pytest.raises(RecordError, match="metadata of strings"):
        save_tensors(tmp_path / "t", {}, {"a": 3})  # pyright: ignore[reportArgumentType]


def test_a_missing_file_and_a_folder_are_record_errors(tmp_path: Path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RecordError, match=f"load_tensors: {path}: expected a readable file"):
            load_tensors(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_record_error(tmp_path: Path):
    save_tensors(tmp_path / "t", {})
    (tmp_path / "t").chmod(0)
    with pytest.raises(RecordError, match="Permission denied"):
        load_tensors(tmp_path / "t")


def test_every_truncation_is_a_record_error(tmp_path: Path):
    save_tensors(tmp_path / "t", {"x": np.arange(5, dtype=np.float32)}, {"a": "b"})
    whole = (tmp_path / "t").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "t").write_bytes(whole[:size])
        with pytest.raises(RecordError, match="t: expected"):
            load_tensors(tmp_path / "t")


@given(st.binary(max_size=200), st.binary(max_size=16), st.booleans())
def test_foreign_bytes_raise_nothing_but_record_error(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes, framed: bool
):
    path = tmp_path_factory.getbasetemp() / "foreign.safetensors"
    path.write_bytes((len(header).to_bytes(8, "little") if framed else b"") + header + data)
    with pytest.raises(RecordError):
        load_tensors(path)


def framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "data",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        framed(b"[" * 1_000_000),
        framed(b'{"__metadata__":' + b'{"a":' * 100_000),
        framed(b" " * (16 * 2**20 + 1)),
        framed(b'{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + b"\0" * 4,
        framed(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + b"\0" * 4,
    ],
)
def test_headers_that_lie_are_record_errors(tmp_path: Path, data: bytes):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(RecordError, match="is it a safetensors file"):
        load_tensors(tmp_path / "t")


def test_bfloat16_is_refused_with_a_way_out(tmp_path: Path):
    (tmp_path / "t").write_bytes(framed(b'{"x":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}') + b"\0\0")
    with pytest.raises(RecordError, match=r"bfloat16.*convert the file to float32"):
        load_tensors(tmp_path / "t")


# Checkpoints


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path):
    generator = np.random.Generator(np.random.PCG64(3))
    state = {"epoch": 2, "best": math.inf, "rng": generator.bit_generator.state, "none": None, "list": [1, "a"]}
    path = save_checkpoint(tmp_path / "run", 120, WEIGHTS, state)
    again = load_checkpoint(path)
    assert path.name == "checkpoint-120"
    assert again.step == 120 and again.state == state
    assert again.tensors["model"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert again.tensors["optimizer"]["step"].shape == ()


def test_a_checkpoint_is_safetensors_and_json_to_other_readers(tmp_path: Path):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {"epoch": 2})
    assert names(path) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    with safetensors.safe_open(path / "model.safetensors", framework="numpy") as file:  # pyright: ignore
        assert file.get_tensor("w").shape == (2, 3)
    record = json.loads((path / "state.json").read_text())
    assert (record["format"], record["step"], record["state"]) == (1, 1, {"epoch": 2})


def test_a_checkpoint_without_tensors_works(tmp_path: Path):
    assert load_checkpoint(save_checkpoint(tmp_path, 0, {}, {})).tensors == {}


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (9, 10, 11):
        save_checkpoint(tmp_path, step, WEIGHTS, {}, keep=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]


def test_newest_means_written_last_and_not_the_largest_step(tmp_path: Path):
    save_checkpoint(tmp_path, 1000, WEIGHTS, {}, keep=1)
    path = save_checkpoint(tmp_path, 10, WEIGHTS, {}, keep=1)
    assert latest_checkpoint(tmp_path) == path


def test_a_step_saved_again_is_the_latest(tmp_path: Path):
    save_checkpoint(tmp_path, 5, WEIGHTS, {"try": 1})
    again = save_checkpoint(tmp_path, 5, WEIGHTS, {"try": 2})
    assert latest_checkpoint(tmp_path) == again
    assert load_checkpoint(again).state == {"try": 2} and load_checkpoint(again).step == 5


def test_a_run_without_checkpoints_has_no_latest(tmp_path: Path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none") is None


def test_latest_ignores_what_is_no_complete_checkpoint(tmp_path: Path):
    good = save_checkpoint(tmp_path, 1, WEIGHTS, {}, keep=9)
    (save_checkpoint(tmp_path, 2, WEIGHTS, {}, keep=9) / "state.json").unlink()
    (save_checkpoint(tmp_path, 3, WEIGHTS, {}, keep=9) / "model.safetensors").unlink()
    (save_checkpoint(tmp_path, 4, WEIGHTS, {}, keep=9) / "model.safetensors").write_bytes(b"short")
    (save_checkpoint(tmp_path, 5, WEIGHTS, {}, keep=9) / "state.json").write_text('{"format": 1, "files": 3}')
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / ".checkpoint-8.tmp").mkdir()
    assert latest_checkpoint(tmp_path) == good


def test_latest_does_not_pass_over_another_format_in_silence(tmp_path: Path):
    save_checkpoint(tmp_path, 1, WEIGHTS, {})
    path = save_checkpoint(tmp_path, 2, WEIGHTS, {})
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**record, "format": 2}))
    assert latest_checkpoint(tmp_path) == path
    with pytest.raises(RecordError, match="expected format 1, got 2"):
        load_checkpoint(path)


def test_a_changed_byte_is_found(tmp_path: Path):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {})
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(RecordError, match=r"model.safetensors .*damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("file", ["state.json", "model.safetensors"])
def test_a_missing_part_is_named(tmp_path: Path, file: str):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {})
    (path / file).unlink()
    with pytest.raises(RecordError, match=file):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 100_000, '{"format": 1, "step": "a"}', "\0"])
def test_a_state_that_is_none_is_a_record_error(tmp_path: Path, text: str):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {})
    (path / "state.json").write_text(text)
    with pytest.raises(RecordError, match="load_checkpoint"):
        load_checkpoint(path)
    assert latest_checkpoint(tmp_path) in {None, path}


def test_a_state_does_not_lead_out_of_its_directory(tmp_path: Path):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {})
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**record, "files": {"../model": {}}}))
    with pytest.raises(RecordError, match="expected a group name"):
        load_checkpoint(path)


def test_no_directory_is_a_record_error(tmp_path: Path):
    with pytest.raises(RecordError, match="expected a checkpoint's directory"):
        load_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": [1, np.float32(2)]}, r"state.a\[1\]"),
        ({"a": {1: 2}}, "state.a"),
        ({"a": np.ones(2)}, "state.a"),
        ({"a": {"b": {3}}}, "state.a.b"),
    ],
)
def test_a_state_that_json_cannot_hold_is_named_and_nothing_is_lost(tmp_path: Path, state: Any, place: str):
    good = save_checkpoint(tmp_path, 1, WEIGHTS, {}, keep=1)
    with pytest.raises(RecordError, match=place):
        save_checkpoint(tmp_path, 2, WEIGHTS, state, keep=1)
    assert names(tmp_path) == [good.name]


@pytest.mark.parametrize("call", [{"step": -1}, {"keep": 0}, {"tensors": {"../a": {}}}])
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, call: dict[str, Any]):
    with pytest.raises(RecordError, match="save_checkpoint"):
        save_checkpoint(tmp_path, **{"step": 1, "tensors": WEIGHTS, "state": {}, **call})


def test_a_run_that_cannot_be_made_is_a_record_error(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(RecordError, match="save_checkpoint"):
        save_checkpoint(tmp_path / "f", 1, WEIGHTS, {})


@pytest.mark.parametrize("keep", [1, 2])
def test_a_failure_at_any_system_call_leaves_a_loadable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
):
    calls = ["open", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "scandir"]
    left: list[float] = [math.inf]

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:  # and stays dead: no clean-up after a kill
                raise Killed
            return real(*args, **kwargs)

        return call

    save_checkpoint(tmp_path, 0, WEIGHTS, {}, keep=keep)
    for name in calls:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    step, died = 1, True
    while died:  # dies at the first call, at the second, ... until a save needs fewer calls than that
        left[0] = step - 1
        try:
            save_checkpoint(tmp_path, step, WEIGHTS, {}, keep=keep)
            died = False
        except Killed:
            pass
        left[0] = math.inf
        latest = latest_checkpoint(tmp_path)
        assert latest is not None and load_checkpoint(latest).step in range(step + 1)
        step += 1
    assert step > 10
    save_checkpoint(tmp_path, step, WEIGHTS, {}, keep=keep)
    assert [n for n in names(tmp_path) if n.startswith(".")] == []
    assert len(names(tmp_path)) == keep


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_leaves_a_loadable_checkpoint(tmp_path: Path):
    script = """
import itertools, sys, numpy as np
from wgpu_nn.record import save_checkpoint
for step in itertools.count():
    save_checkpoint(sys.argv[1], step, {"model": {"w": np.full(100_000, step, np.float32)}}, {"n": step}, keep=1)
    print(step, flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
        )
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.kill()
        process.communicate()
        latest = latest_checkpoint(tmp_path)
        assert latest is not None
        loaded = load_checkpoint(latest)
        assert (loaded.tensors["model"]["w"] == loaded.state["n"]).all()
