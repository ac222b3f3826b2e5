"""Every reader against damaged files: the error that it documents or a sound value, whatever the bytes.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/unit/test_fuzz_files.py` damages 120,000 of them. What it found stands
below as tests with names.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damage import DAMAGE, Damage, damaged
from tests.file_seeds import Reader, Seed, readers
from tests.fuzz import examples, nightly, peak_kb

NAMES = ("load_tensors", "load_module", "load_checkpoint", "load_position", "load_position model", "Outer.load",
         "ModelConfig.load", "Conv2dConfig.load", "Choices", "read_log", "read_idx", "load_mnist", "load_digits_npz",
         "read_digit")  # fmt: skip
GROWTH_KB = 50_000  # what the process may grow by over the second half of all that is damaged at night


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("damaged")
    assert set(readers(found)) == set(NAMES)
    yield found


def read(reader: Reader, folder: Path, data: bytes) -> None:
    """Read ``data``; only the documented error may come of it, and no huge allocation."""
    reader.place(folder)
    path = folder / reader.name
    path.write_bytes(data)
    tracemalloc.start()
    try:
        reader.read(path)
    except reader.error as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < reader.most_bytes, f"{peak} bytes for a file of {len(data)}"


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read(name: str, folder: Path) -> None:
    reader = readers(folder)[name]
    for seed in reader.seeds:
        if name == "load_mnist" or seed.name not in ("f4", "i2"):
            reader.place(folder)
            (folder / reader.name).write_bytes(seed.wrap(seed.inner))
            reader.read(folder / reader.name)


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
    reader.place(folder)
    (folder / reader.name).write_bytes(data)
    with pytest.raises(reader.error, match=said):
        reader.read(folder / reader.name)


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
    only("load_digits_npz", seed.wrap(b"no array"), folder, "expected an array x, got other bytes")


def test_a_png_whose_chunk_claims_gigabytes_allocates_none(folder: Path) -> None:
    reader = readers(folder)["read_digit"]
    seed = next(s for s in reader.seeds if s.name == "PNG L")
    read(reader, folder, seed.inner[:33] + b"\x7f\xff\xff\xffIDAT" + seed.inner[41:])
