"""Tables and rows: files of other programs are read as they were written, and a bad row is named by line and column."""

from __future__ import annotations

import contextlib
import csv
import json
import pickle
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpu_nn.data import (
    CsvRows,
    DataLoader,
    JsonRows,
    ParquetRows,
    SqliteDataset,
    SqliteRows,
    StreamLoader,
    Table,
    mapped_stream,
    read_csv,
    read_jsonl,
    read_parquet,
    read_sqlite,
    stacked,
)
from wgpu_nn.errors import DataError, MissingExtraError

NAMES = ["width", "length", "species"]
ROWS: list[tuple[float, float, str]] = [
    (1.5, -2.0, "iris"),
    (0.25, 3.0, "rose"),
    (1e-3, 4.0, "iris"),
    (7.0, 8.0, "lily"),
]


def write_csv(path: Path, rows: Any = ROWS, names: Any = NAMES) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def write_jsonl(path: Path, rows: Any = ROWS, names: Any = NAMES) -> Path:
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Any = ROWS, names: Any = NAMES) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), path, row_group_size=3)
    return path


def write_feather(path: Path, rows: Any = ROWS, names: Any = NAMES) -> Path:
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return path


def write_sqlite(path: Path, rows: Any = ROWS, names: Any = NAMES) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE flowers ({', '.join(names)})")
        connection.executemany(f"INSERT INTO flowers VALUES ({', '.join('?' * len(names))})", rows)
    return path


def read_flowers(path: Path, *args: Any, **how: Any) -> Table:
    return read_sqlite(path, "flowers", *args, **how)


FORMATS: list[Any] = [
    pytest.param(write_csv, read_csv, id="csv"),
    pytest.param(write_jsonl, read_jsonl, id="jsonl"),
    pytest.param(write_parquet, read_parquet, id="parquet"),
    pytest.param(write_feather, read_parquet, id="arrow"),
    pytest.param(write_sqlite, read_flowers, id="sqlite"),
]
Write = Callable[..., Path]
Read = Callable[..., Table]


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_every_format_gives_the_same_table(tmp_path: Path, write: Write, read: Read):
    table = read(write(tmp_path / "t"), "species")
    assert table.names == ("width", "length") and table.classes == ("iris", "lily", "rose")
    assert table.x.dtype == np.float32 and table.labels.dtype == np.int32
    np.testing.assert_array_equal(table.x, np.array([row[:2] for row in ROWS], np.float32))
    assert table.labels.tolist() == [0, 2, 0, 1] and len(table) == 4 and table.skipped == 0
    x, y = table[np.array([3, 0])]
    assert x.tolist() == [[7, 8], [1.5, -2]] and y.tolist() == [1, 0] and table[3][1].shape == ()


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_targets_are_numbers_classes_or_absent(tmp_path: Path, write: Write, read: Read):
    path = write(tmp_path / "t", [(1.0, 2, 0.5), (2.0, 0, 1.5)], ["a", "b", "c"])
    assert [a.shape for a in read(path)[0]] == [(3,)]
    numbers = read(path, "c", ["b"])
    assert (
        numbers.labels.dtype == np.float32
        and numbers.labels.tolist() == [0.5, 1.5]
        and numbers.x.tolist() == [[2], [0]]
    )
    assert read(path, "b").labels.dtype == np.int32 and read(path, "b").classes == ()
    assert read(path, "b", regression=True).labels.dtype == np.float32


@pytest.mark.parametrize(("write", "read"), FORMATS)
@pytest.mark.parametrize(
    ("row", "how", "said"),
    [
        ((1.0, None, "a"), {}, r"length'?: expected a number, got nothing; give missing"),
        ((1.0, 2.0, None), {}, r"species'?: expected a target, got nothing"),
        ((1.0, float("inf"), "a"), {}, r"length'?: expected a finite number"),
        ((1.0, 1e300, "a"), {}, r"length'?: expected a finite number of single precision"),
        ((1.0, 2.0, "oak"), {"classes": ["a", "b"]}, r"species'?: expected one of \['a', 'b'\], got 'oak'"),
    ],
)
def test_a_bad_row_is_named_passed_over_and_counted(
    tmp_path: Path, write: Write, read: Read, row: Any, how: dict[str, Any], said: str
):
    rows: list[Any] = [(float(i), float(-i), "ab"[i % 2]) for i in range(4200)]
    rows.insert(4123, row)
    path = write(tmp_path / "t", rows)
    number = 4125 if write is write_csv else 4124  # the first line of CSV has the names
    with pytest.raises(DataError, match=rf"t, (line|row) {number}, column '{said}"):
        read(path, "species", **how)
    table = read(path, "species", skip_bad=True, **how)
    assert len(table) == 4200 and table.skipped == 1 and f" {number}, column" in str(table.bad[0])
    assert table.x[:, 0].tolist() == list(range(4200))


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_a_target_beyond_single_precision_is_a_bad_row(tmp_path: Path, write: Write, read: Read):
    path = write(tmp_path / "t", [(1.0, 2.0, "a"), (2.0, -1e300, "b")])
    with pytest.raises(DataError, match=r"expected a finite number of single precision, got .*1e\+300"):
        read(path, "length", ["width"], regression=True)


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_missing_numbers_can_be_filled(tmp_path: Path, write: Write, read: Read):
    table = read(write(tmp_path / "t", [(1.0, None, "a"), (2.0, 3.0, "b")]), "species", missing=-1)
    assert table.x.tolist() == [[1, -1], [2, 3]]


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_classes_out_of_range_are_refused(tmp_path: Path, write: Write, read: Read):
    path = write(tmp_path / "t", [(1.0, 0), (2.0, 1), (3.0, 2), (4.0, 3)], ["a", "y"])
    with pytest.raises(DataError, match=r"(line 5|line 4|row 4), column 'y': expected a class in 0 .. 2, got '?3"):
        read(path, "y", classes=3)
    assert read(path, "y", classes=3, skip_bad=True).labels.tolist() == [0, 1, 2]
    path = write(tmp_path / "u", [(1.0, -1), (2.0, 1)], ["a", "y"])
    with pytest.raises(
        DataError, match=r"expected classes from 0 on in the target 'y', got -1 .. 1; .*regression=True"
    ):
        read(path, "y")
    assert read(path, "y", regression=True).labels.tolist() == [-1, 1]


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_more_names_than_classes_are_refused(tmp_path: Path, write: Write, read: Read):
    assert read(write(tmp_path / "t"), "species", classes=3).classes == ("iris", "lily", "rose")
    with pytest.raises(DataError, match=r"expected 2 classes in the target 'species', got 3: \('iris', "):
        read(tmp_path / "t", "species", classes=2)


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_texts_among_features_and_unknown_columns_are_refused(tmp_path: Path, write: Write, read: Read):
    path = write(tmp_path / "t")
    with pytest.raises(DataError, match=r"column 'species': expected a number, got 'iris'"):
        read(path, "width")
    for columns in ({"target": "spices"}, {"target": "species", "features": ["height"]}, {"features": []}):
        with pytest.raises(DataError, match="expected columns"):
            read(path, **columns)


@pytest.mark.parametrize("write_read", [(write_jsonl, read_jsonl), (write_sqlite, read_flowers)])
def test_numbers_written_as_text_are_numbers_in_csv_only(tmp_path: Path, write_read: tuple[Write, Read]):
    write, read = write_read
    with pytest.raises(DataError, match=r"column 'a': expected a number, got '2'"):
        read(write(tmp_path / "t", [(1.0, 0), ("2", 1)], ["a", "y"]), "y")


@pytest.mark.parametrize("text", ["1_000", "0x10", "1,5", "one", "1 2", "٣ب"])
def test_what_is_no_number_in_csv_is_refused(tmp_path: Path, text: str):
    with pytest.raises(DataError, match="line 3, column 'a': expected a number, got"):
        read_csv(write_csv(tmp_path / "t", [(1, 0), (text, 1)], ["a", "y"]), "y")


def test_lists_of_numbers_are_features(tmp_path: Path):
    rows = [([1, 2.5, 3], True, "a"), ([4, 5, 6], False, "b")]
    for write, read in ((write_jsonl, read_jsonl), (write_parquet, read_parquet)):
        table = read(write(tmp_path / "t", rows, ["v", "on", "y"]), "y")
        assert table.names == ("v[0]", "v[1]", "v[2]", "on") and table.x.tolist() == [[1, 2.5, 3, 1], [4, 5, 6, 0]]
    late = write_jsonl(tmp_path / "late", [(None, "a"), ([1, 2], "b")], ["v", "y"])
    assert read_jsonl(late, "y", skip_bad=True).x.tolist() == [[1, 2]]
    with pytest.raises(DataError, match=r"row 2, column 'v': expected 3 numbers as in the first row, got 2"):
        read_parquet(write_parquet(tmp_path / "u", [([1, 2, 3], "a"), ([1, 2], "b")], ["v", "y"]), "y")


def test_csv_of_other_dialects_is_read(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"a;b";y\r\n\r\n"1,5";"zwei ""Zeilen""\r\nlang"\r\n'.encode())
    (row,) = CsvRows(path, delimiter=";")
    assert row == {"a;b": "1,5", "y": 'zwei "Zeilen"\r\nlang'}
    path.write_bytes("1,ä\n2,ö\n".encode("cp1252"))
    with pytest.raises(DataError, match="line 1 or after: expected text in utf-8, got byte 0xe4"):
        list(CsvRows(path, names=["a", "b"]))
    assert [row["b"] for row in CsvRows(path, names=["a", "b"], encoding="cp1252")] == ["ä", "ö"]


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), min_size=2, max_size=2),
        max_size=6,
    )
)
@settings(deadline=None)
def test_csv_of_any_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    assert [list(row.values()) for row in CsvRows(path)] == rows


@given(st.binary(max_size=120))
@settings(deadline=None, max_examples=40)
def test_random_bytes_raise_nothing_but_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "random"
    for start in (b"", b"PAR1", b"ARROW1", b"SQLite format 3\0", b'{"a": 1}\n', b"a,b\n1,2\n"):
        path.write_bytes(start + content)
        for read in (read_csv, read_jsonl, read_parquet, read_flowers):
            with contextlib.suppress(DataError):
                read(path)


def test_rows_of_too_few_fields_and_broken_json_are_bad(tmp_path: Path):
    path = tmp_path / "t"
    path.write_text('a,b\n1,2\n3\n4,5,6\n7,"8\n')
    found = CsvRows(path).check()
    assert found.good == 1
    assert [str(bad).removeprefix(f"{path}, ") for bad in found.bad] == [
        "line 3: expected 2 fields, got 1: ['3']",
        "line 4: expected 2 fields, got 3: ['4', '5', '6']",
        "line 5: expected a row of CSV, got unexpected end of data",
    ]
    with pytest.raises(DataError, match="line 3: expected 2 fields"):
        read_csv(path)
    assert read_csv(path, skip_bad=True).skipped == 3 and len(list(CsvRows(path, skip_bad=True))) == 1
    path.write_text('{"a": 1}\n\n{"a": 2\n[3]\n{"a": NaN}\n')
    found = JsonRows(path).check()
    assert found.good == 2 and [bad.place.removeprefix(f"{path}, ") for bad in found.bad] == [
        "line 3, column 8",
        "line 4",
    ]
    assert read_jsonl(path, skip_bad=True).x.tolist() == [[1]]


def test_files_that_are_missing_or_empty_are_data_errors(tmp_path: Path):
    for read in (read_csv, read_jsonl, read_parquet, read_flowers):
        with pytest.raises(DataError, match=r"none.*expected a"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match="expected a"):
            read(tmp_path)
        (tmp_path / "empty").write_bytes(b"")
        with pytest.raises(DataError, match=r"empty.*expected|expected.*empty"):
            read(tmp_path / "empty")
    assert not (tmp_path / "none").exists()
    for write, read in [param.values for param in FORMATS if param.id not in ("parquet", "arrow", "jsonl")]:
        with pytest.raises(DataError, match="expected at least one row, got none"):
            read(write(tmp_path / f"no rows {write.__name__}", []), "species")  # pyright: ignore


def test_columns_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"different names, got \['a'\] more than once"):
        read_csv(write_csv(tmp_path / "t", [(1, 2)], ["a", "a"]))


# --- tables as data sets -----------------------------------------------------------------------------------------------
def test_a_table_splits_into_tables_that_know_its_classes(tmp_path: Path):
    rows = [(float(i), 0.0, "abc"[i % 3]) for i in range(30)]
    train, valid = read_csv(write_csv(tmp_path / "t", rows), target="species").split(0.8, stratify=True, seed=1)
    assert isinstance(valid, Table) and valid.classes == ("a", "b", "c") and (len(train), len(valid)) == (24, 6)
    assert np.bincount(train.labels).tolist() == [8, 8, 8] and np.bincount(valid.labels).tolist() == [2, 2, 2]
    assert sorted([*train.x[:, 0], *valid.x[:, 0]]) == list(range(30))


def test_features_are_standardised_by_those_of_training(tmp_path: Path):
    table = read_csv(write_csv(tmp_path / "t", [(i, 5, "a") for i in range(10)]), "species")
    train, valid = table.take(np.arange(8)), table.take(np.arange(8, 10))
    x = train.standardised().x
    np.testing.assert_allclose([x[:, 0].mean(), x[:, 0].std(), *x[:3, 1]], [0, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        valid.standardised(train).x[:, 0], (np.array([8, 9]) - 3.5) / np.arange(8).std(), rtol=1e-6
    )


# --- streams -----------------------------------------------------------------------------------------------------------
def numbers(row: dict[str, Any]) -> tuple[np.ndarray, str]:
    return np.array([row["width"], row["length"]], np.float32), row["species"]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_rows_of_every_format_stream_alike(tmp_path: Path, skip_bad: bool):
    rows = ROWS * 200
    streams: list[Any] = [
        CsvRows(write_csv(tmp_path / "a", rows), skip_bad=skip_bad),
        JsonRows(write_jsonl(tmp_path / "b", rows), skip_bad=skip_bad),
        ParquetRows(write_parquet(tmp_path / "c", rows)),
        ParquetRows(write_feather(tmp_path / "d", rows), columns=NAMES),
        SqliteRows(write_sqlite(tmp_path / "e", rows), "flowers", skip_bad=skip_bad),
    ]
    for stream in streams:
        batches = list(StreamLoader(mapped_stream(stream, numbers), 7, workers=3).epoch(0))
        assert np.concatenate([y for _, y in batches]).tolist() == [row[2] for row in rows]
        np.testing.assert_array_equal(
            np.concatenate([x for x, _ in batches]), np.array([r[:2] for r in rows], np.float32)
        )
        again = pickle.loads(pickle.dumps(stream))
        later = list(StreamLoader(mapped_stream(again, numbers), 7, workers=2).epoch(3, start_batch=100))
        assert [y.tolist() for _, y in later] == [y.tolist() for _, y in batches[100:]]


def write_numbers(path: Path, bad: set[int]) -> Path:
    path.write_text("".join("oops\n" if i in bad else json.dumps({"x": i}) + "\n" for i in range(50)))
    return path


def only_x(row: dict[str, Any]) -> tuple[int]:
    return (row["x"],)


def test_rows_that_are_passed_over_do_not_shift_batches_of_workers(tmp_path: Path):
    path = write_numbers(tmp_path / "t", set(range(0, 50, 5)))
    stream = mapped_stream(JsonRows(path, skip_bad=True), only_x)
    expected = [x.tolist() for (x,) in StreamLoader(stream, 4, workers=0).epoch(0)]
    assert [x for batch in expected for x in batch] == [i for i in range(50) if i % 5]
    assert [x.tolist() for (x,) in StreamLoader(stream, 4, workers=3).epoch(0)] == expected


def test_a_bad_row_of_a_stream_is_named_by_batch_item_and_line(tmp_path: Path):
    stream = mapped_stream(JsonRows(write_numbers(tmp_path / "t", {5})), only_x)
    with pytest.raises(DataError, match=r"batch 1 of epoch 0 failed at item 5: DataError: .*line 6"):
        list(StreamLoader(stream, 4).epoch(0))


# --- SQLite by index ---------------------------------------------------------------------------------------------------
def test_a_sqlite_table_is_read_by_index_from_many_threads(tmp_path: Path):
    rows = [(i, i / 2, np.full(3, i, np.float32).tobytes(), f"n{i}") for i in range(1500)]
    data = SqliteDataset(
        write_sqlite(tmp_path / "t.db", rows, ["a", "b", "v", "s"]), "flowers", ["a", "b", "v", "s"], "f4"
    )
    a, b, v, s = data[np.arange(1499, -1, -1)]
    assert (
        a.tolist() == list(range(1499, -1, -1)) and (b == a / 2).all() and (v == a[:, None]).all() and s[0] == "n1499"
    )
    assert v.dtype == np.float32 and data[7][0] == 7 and data[7][2].tolist() == [7, 7, 7]
    found = list(DataLoader(data, 100, shuffle=True, seed=0, workers=3).epoch(0))
    assert sorted(np.concatenate([batch[0] for batch in found])) == list(range(1500))
    again = pickle.loads(pickle.dumps(data))
    assert again[3][0] == 3
    first = next(DataLoader(data, 2, shuffle=False, seed=0, collate=stacked, workers=0).epoch(0))
    assert first[0].tolist() == [0, 1]


def test_sqlite_columns_that_are_not_there_and_nulls_are_data_errors(tmp_path: Path):
    path = write_sqlite(tmp_path / "t.db", [(1, None)], ["a", "b"])
    with pytest.raises(DataError, match=r"expected columns of \['a', 'b'\], got \['c'\]"):
        SqliteDataset(path, "flowers", ["c"])
    with pytest.raises(DataError, match="no such table"):
        SqliteDataset(path, "trees", ["a"])
    with pytest.raises(DataError, match="row 1, column 'b': expected a value, got NULL"):
        SqliteDataset(path, "flowers", ["b"])[0]
    with pytest.raises(DataError, match="answers 'SELECT nothing FROM flowers'"):
        read_sqlite(path, "SELECT nothing FROM flowers")
    assert read_sqlite(path, "SELECT a FROM flowers WHERE a = ?", parameters=[1]).x.tolist() == [[1]]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_parquet(tmp_path / "t")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[data\]"):
        read_parquet(path)
