"""Every reader against damaged files: the error that it documents or a sound value, whatever the bytes.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/unit/test_fuzz_files.py` damages 380,000 of them. What it found stands
below as tests with names.
"""

from __future__ import annotations

import functools
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import file_seeds, file_seeds_data
from tests.damage import DAMAGE, Damage, damaged
from tests.file_seeds import Reader, Seed
from tests.fuzz import examples, nightly, peak_kb

NAMES = ("load_tensors", "load_module", "load_checkpoint", "load_position", "load_position model", "Outer.load",
         "ModelConfig.load", "Conv2dConfig.load", "Choices", "read_log", "read_idx", "load_mnist", "load_mnist images",
         "load_digits_npz", "read_digit", "read_csv", "CsvRows", "read_jsonl", "JsonRows", "read_parquet", "ParquetRows",
         "read_sqlite", "SqliteRows", "SqliteDataset", "ImageFolder", "MaskFolder", "CocoBoxes", "TextFolder",
         "load_cifar folder", "load_cifar archive", "cached note", "cached item", "read_arrays", "RunConfig.load",
         "write_state", "SavedRun config", "SavedRun facts", "SavedRun log", "report log", "report config",
         "report facts", "report data", "report samples", "report details")  # fmt: skip
GROWTH_KB = 50_000  # what the process may grow by over the second half of all that is damaged at night


@functools.cache
def readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by name; seeds that need a file to be made are made in ``folder``."""
    return file_seeds.readers(folder) | file_seeds_data.readers(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("damaged")
    assert set(readers(found)) == set(NAMES)
    yield found


def read(reader: Reader, folder: Path, data: bytes) -> None:
    """Read ``data``; only the documented error may come of it, and no huge allocation."""
    tracemalloc.start()
    try:
        read_whole(reader, folder, data)
    except reader.error as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < reader.most_bytes, f"{peak} bytes for a file of {len(data)}"


def read_whole(reader: Reader, folder: Path, data: bytes) -> None:
    """Read ``data``, with which nothing is wrong, or raise what the reader has to say."""
    reader.place(folder)
    path = folder / reader.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    reader.read(path)


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read(name: str, folder: Path) -> None:
    reader = readers(folder)[name]
    for seed in reader.seeds:
        if name == "load_mnist" or seed.name not in ("f4", "i2"):
            read_whole(reader, folder, seed.wrap(seed.inner))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_give_the_documented_error_or_a_sound_value(name: str, folder: Path) -> None:
    reader = readers(folder)[name]
    peaks: list[int] = []  # of the process, file by file

    @examples(60, 8600)
    @given(seed=st.sampled_from(reader.seeds), damage=DAMAGE)
    def try_one(seed: Seed, damage: Damage) -> None:
        read(reader, folder, seed.wrap(damaged(seed.inner, damage)))
        peaks.append(peak_kb())

    try_one()
    if nightly():
        assert peaks[-1] - peaks[len(peaks) // 2] < GROWTH_KB


# --- what was found, each as small as it gets --------------------------------------------------------------------------
def only(name: str, data: bytes, folder: Path, said: str) -> None:
    reader = readers(folder)[name]
    with pytest.raises(reader.error, match=said):
        read_whole(reader, folder, data)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ('"epoch": 1', '"epoch": "1"'),
        ('"seconds": 0.0', '"seconds": null'),
        ('"optimizer_steps": 0', '"optimizer_steps": Infinity'),
        ('"stream": 0', '"stream": -1'),
        ('"items": 0', '"items": true'),
        ('"loss": 0.5', '"loss": []'),
    ],
)
def test_a_position_that_is_no_number_is_refused_before_anything_changes(
    there: str, instead: str, folder: Path
) -> None:
    text = readers(folder)["load_position"].seeds[0].inner.decode()
    assert there in text
    only("load_position", text.replace(there, instead).encode(), folder, "expected a checkpoint of a training run, got")


@pytest.mark.parametrize(
    "line",
    [b'{"kind": "step", "epoch": 1, "step": "2"}', b'{"kind": 1, "epoch": 1, "step": 2}', b"[" * 100_000],
    ids=["step", "kind", "depth"],
)
def test_a_metrics_line_of_other_types_is_named(line: bytes, folder: Path) -> None:
    only("read_log", line + b"\n", folder, "line 1: expected an object with a kind")


def test_an_npz_entry_that_is_no_array_is_a_data_error(folder: Path) -> None:
    seed = next(s for s in readers(folder)["load_digits_npz"].seeds if s.name == "array")
    only("load_digits_npz", seed.wrap(b"no array"), folder, "got other bytes as the array x")


def test_a_png_whose_chunk_claims_gigabytes_allocates_none(folder: Path) -> None:
    reader = readers(folder)["read_digit"]
    seed = next(s for s in reader.seeds if s.name == "PNG L")
    read(reader, folder, seed.inner[:33] + b"\x7f\xff\xff\xffIDAT" + seed.inner[41:])


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_offsets_of_an_arrow_file_that_lead_out_of_it_do_not_end_the_process(kind: str, folder: Path) -> None:
    seed = next(s for s in readers(folder)["read_parquet"].seeds if s.name == kind)
    offsets = struct.pack("<4i", 0, 2, 4, 6)  # of lists of two numbers
    assert offsets in seed.inner
    damaged = seed.inner.replace(offsets, struct.pack("<4i", 0, 2, 4, 1 << 30))
    only("read_parquet", damaged, folder, "expected a Parquet or Arrow file, got .*; is the file whole?")


@pytest.mark.parametrize("name", ["RunConfig.load", "SavedRun config", "write_state", "report facts", "cached note"])
def test_json_that_is_nested_too_deeply_is_no_other_error(name: str, folder: Path) -> None:
    only(name, b"[" * 100_000, folder, "expected")


@pytest.mark.parametrize(("inside", "said"), [(b"no array", "other bytes as"), (b"\x93NUMPY\1\0\4\0(\n{ ", "expected")])
def test_an_npz_of_a_run_whose_entry_is_no_array_is_named(inside: bytes, said: str, folder: Path) -> None:
    seed = next(s for s in readers(folder)["report details"].seeds if s.name == "matrix")
    only("report details", seed.wrap(inside), folder, said)


def test_a_confusion_matrix_that_is_none_is_left_out(folder: Path) -> None:
    reader = readers(folder)["report details"]
    seed = next(s for s in reader.seeds if s.name == "matrix")
    for bad in (float("inf"), float("nan"), -1.0):
        read_whole(reader, folder, seed.wrap(seed.inner.replace(struct.pack("<d", 1.0), struct.pack("<d", bad), 1)))


def test_whole_numbers_that_no_float_holds_are_no_values_of_a_log(folder: Path) -> None:
    line = b'{"kind": "step", "epoch": 1, "step": 2, "loss": %s}\n'
    read_whole(readers(folder)["report log"], folder, line % (b"9" * 400))
    only(
        "report log", line.replace(b"2", b"9" * 400) % b"1", folder, "line 1: expected whole numbers for epoch and step"
    )


def test_an_epoch_of_other_fields_is_an_error_of_the_log(folder: Path) -> None:
    line = b'{"kind": "epoch", "epoch": 1, "step": 2, "train": 3}\n'
    only("SavedRun log", line, folder, "expected the epochs of a run, got another train: Input should be")


def test_a_data_base_whose_names_are_no_text_is_a_data_error(folder: Path) -> None:
    for name in ("read_sqlite", "SqliteDataset"):
        whole = readers(folder)[name].seeds[0].inner
        assert b"kind TEXT" in whole
        only(name, whole.replace(b"kind TEXT", b"k\xffnd TEXT"), folder, "expected a data base")
