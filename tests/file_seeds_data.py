"""Whole files of the data sets, configs and runs that are read, and how each is read: more of what the file fuzz damages."""

from __future__ import annotations

import functools
import gzip
import io
import json
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests import run_folders
from tests.file_seeds import IMAGES, LABELS, Reader, Seed, bytes_of, zip_of
from wgpu_nn import Device
from wgpu_nn.data import (
    CIFAR100,
    ArrayDataset,
    Cifar,
    CocoBoxes,
    CsvRows,
    Dataset,
    ImageFolder,
    JsonRows,
    MaskFolder,
    ParquetRows,
    SqliteDataset,
    SqliteRows,
    Table,
    TextFolder,
    cached,
    load_cifar,
    read_csv,
    read_jsonl,
    read_parquet,
    read_sqlite,
)
from wgpu_nn.errors import ConfigError, DataError, RecordError, WgpuNNError
from wgpu_nn.record import save_module
from wgpu_nn.report import page, read_run
from wgpu_nn.runs import Facts, RunConfig, SavedRun, learner_of
from wgpu_nn.runs.arrays import read_arrays
from wgpu_nn.train.folder import write_state

CIFAR = Cifar("tiny", "tiny.tar.gz", "", (), ("train.bin",), ("test.bin",), CIFAR100.labels, CIFAR100.classes)


# --- tables ------------------------------------------------------------------------------------------------------------
def _sound(table: Table) -> None:
    assert (
        table.x.dtype == np.float32 and table.x.shape == (len(table), len(table.names)) and np.isfinite(table.x).all()
    )
    assert table.y is None or (len(table.y) == len(table) and table.y.dtype in (np.float32, np.int32))
    assert table.y is None or table.y.dtype != np.int32 or table.y.min() >= 0


def _read_table(read: Callable[..., Table], *features: str) -> Callable[[Path], object]:
    """Return what reads a table of ``features`` without its bad rows, if any is good, and then all of its columns."""

    def both(path: Path) -> None:
        for more in ({"skip_bad": True}, {"regression": True}):
            try:
                _sound(read(path, target="kind", features=features, missing=0.0, **more))
            except DataError as error:
                assert str(error)
        _sound(read(path, target="kind", missing=0.0))

    return both


def _read_rows(rows: Callable[..., Any]) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        rows(path).check()
        for row in rows(path):
            assert isinstance(row, dict)

    return read


CSV = 'a,b,kind\n1,2.5,rose\n"3",-4e-3,"tu,lip"\n\n5,6,rose\n'
JSONL = '{"a": 1, "b": 2.5, "kind": "rose", "list": [1, 2]}\n{"a": 3, "b": -4e-3, "kind": "tulip", "list": [3, 4]}\n'


def _columns() -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "a": pa.array([1, 2, 3], pa.int32()),
            "b": [0.5, None, 2.5],
            "kind": ["rose", "tulip", "rose"],
            "list": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "coded": pa.array([7, 8, 7]).dictionary_encode(),
        }
    )


def _arrow() -> tuple[Seed, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = _columns()

    def ipc(new: Callable[..., Any]) -> bytes:
        def write(buffer: Any) -> None:
            with new(buffer, whole.schema) as writer:
                writer.write_table(whole)

        return bytes_of(write)

    parquet = {kind: bytes_of(lambda b, k=kind: pq.write_table(whole, b, compression=k)) for kind in ("none", "snappy")}
    return (
        *(Seed(f"parquet {kind}", data) for kind, data in parquet.items()),
        Seed("file", ipc(pa.ipc.new_file)),
        Seed("stream", ipc(pa.ipc.new_stream)),
    )


def _sqlite(folder: Path) -> tuple[Seed, ...]:
    path = folder / "seed.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size = 512")  # several pages: a tree
        connection.execute("CREATE TABLE t (a INTEGER, b REAL, kind TEXT, raw BLOB)")
        rows = [(i, i / 3, ("rose", "tulip")[i % 2], bytes([i, 255])) for i in range(60)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    return (Seed("data base", path.read_bytes()),)


def _read_sqlite(path: Path, **more: Any) -> Table:
    return read_sqlite(path, "SELECT a, b, kind FROM t", **more)


def _items(dataset: Dataset[Any]) -> None:
    """Read the first items one by one, and then as a batch."""
    some = min(len(dataset), 4)
    for i in range(some):
        dataset[i]
    dataset[np.arange(some)]


# --- folders -----------------------------------------------------------------------------------------------------------
def _image(mode: str = "RGB", size: tuple[int, int] = (6, 5), of: str = "PNG") -> bytes:
    pixels = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    image = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0] % 3)
    return bytes_of(lambda b: image.resize(size, Image.Resampling.NEAREST).save(b, of))


def _place_images(folder: Path) -> None:
    for name in ("images/a/1.png", "images/b/1.png", "pairs/1.png", "boxed/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_image())
    (folder / "masks").mkdir(exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    (folder / "texts/a").mkdir(parents=True, exist_ok=True)


def _read_images(path: Path) -> None:
    folder = path.parent.parent
    whole = ImageFolder(folder, (4, 4), skip_bad=True)
    _items(whole)
    _items(ImageFolder(folder))


COCO = {
    "info": {"year": 2026},
    "images": [{"id": 7, "file_name": "1.png", "height": 5, "width": 6}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 3, 2.5], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 6, 5], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 6, 5], "iscrowd": 1},
    ],
}


# --- pixels in bytes ---------------------------------------------------------------------------------------------------
_RECORDS = np.arange(2 * (CIFAR.labels + 3 * 32 * 32), dtype=np.int64).astype(np.uint8)
_RECORDS[CIFAR.labels - 1 :: CIFAR.labels + 3 * 32 * 32] = 5
RECORDS = _RECORDS.tobytes()


def _tar() -> bytes:
    def write(buffer: Any) -> None:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in (*CIFAR.train, *CIFAR.test):
                about = tarfile.TarInfo(f"cifar/{name}")
                about.size = len(RECORDS)
                archive.addfile(about, io.BytesIO(RECORDS))

    return bytes_of(write)


def _place_cifar(folder: Path) -> None:
    (folder / "cifar").mkdir(exist_ok=True)
    for name in (*CIFAR.train, *CIFAR.test):
        (folder / "cifar" / name).write_bytes(RECORDS)


# --- items that were kept ----------------------------------------------------------------------------------------------
_KEPT = ArrayDataset(np.arange(8, dtype=np.float32).reshape(2, 4), np.arange(2))
_NOTE = json.dumps({"format": 1, "items": 2, "key": "k"}).encode()
_ITEM = bytes_of(lambda b: np.savez(b, *_KEPT[0]))
_ITEM_ARRAY = bytes_of(lambda b: np.save(b, _KEPT[0][0]))
_item_of = functools.partial(zip_of, name="arr_0", other="arr_1")


def _place_cache(folder: Path) -> None:
    (folder / "cache/000000").mkdir(parents=True, exist_ok=True)
    (folder / "cache/cache.json").write_bytes(_NOTE)
    (folder / "cache/000000/0.npz").write_bytes(_ITEM)


def _read_cache(path: Path) -> None:
    folder = next(p for p in path.parents if p.name == "cache")
    found = cached(_KEPT, folder, "k")[0]
    assert isinstance(found, tuple)


# --- runs --------------------------------------------------------------------------------------------------------------
RUN_CONFIG = RunConfig.of(
    "seed",
    {
        "data": {"kind": "csv", "path": "flowers.csv", "target": "kind"},
        "model": {"kind": "mlp", "hidden": [4]},
        "optimizer": {"kind": "adam", "lr": 0.01},
        "schedule": {"kind": "cosine"},
        "metrics": ["accuracy", {"kind": "f1", "average": "macro"}],
        "early_stopping": {"patience": 3},
    },
)


def _place_run(folder: Path) -> None:
    run = folder / "run"
    if not run.is_dir():
        run_folders.write_run(run, run_folders.lines(2, 3))
        (run / "data.json").write_text('{"classes": ["rose", "tulip"]}')
        run_folders.write_details(run, 2, classes=3)
        run_folders.write_samples(run, IMAGES[:2])
        for path in [p for p in run.rglob("*") if p.is_file()]:
            _RUN_FILES[path.relative_to(run).as_posix()] = path.read_bytes()
    for name, content in _RUN_FILES.items():
        (run / name).write_bytes(content)


_RUN_FILES: dict[str, bytes] = {}


def _samples_of(inputs: bytes) -> bytes:
    """Return a samples.npz of any bytes as inputs, with right checksums around them."""

    def write(buffer: Any) -> None:
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("inputs.npy", inputs)
            for name in ("target", "predicted", "score"):
                file.writestr(f"{name}.npy", bytes_of(lambda b: np.save(b, np.ones(2, np.float32))))

    return bytes_of(write)


def _read_report(path: Path) -> None:
    run = read_run(next(p for p in path.parents if p.name == "run"))
    assert page([run]).startswith("<!doctype html>")


@functools.cache
def _saved_files() -> dict[str, bytes]:
    facts = Facts((2,), 2, classes=("rose", "tulip"), features=("a", "b"), mean=(0.0, 1.0), deviation=(1.0, 2.0))
    log = "".join(json.dumps(line) + "\n" for line in run_folders.lines(2, 3))
    with tempfile.TemporaryDirectory() as found:
        save_module(learner_of(RUN_CONFIG, facts, Device("numpy")).model, Path(found) / "model.safetensors")
        model = (Path(found) / "model.safetensors").read_bytes()
    texts = {"config.json": RUN_CONFIG.to_json(), "data.json": facts.to_json(), "metrics.jsonl": log}
    return {"model.safetensors": model} | {name: text.encode() for name, text in texts.items()}


def _place_saved(folder: Path) -> None:
    (folder / "saved").mkdir(exist_ok=True)
    for name, content in _saved_files().items():
        (folder / "saved" / name).write_bytes(content)


def _read_saved(path: Path) -> None:
    saved = SavedRun.open(path.parent, "numpy")
    best = saved.best()
    assert best is None or type(best.step) is type(best.epoch) is int
    saved.learner("last").predict(np.zeros((1, *saved.facts.inputs), np.float32))


def _read_state(path: Path) -> None:
    write_state(path.parent, "running", {"model": "one"})
    assert json.loads(path.read_bytes())["state"] == "running"


# --- all of them -------------------------------------------------------------------------------------------------------
def _runs(folder: Path) -> dict[str, Reader]:
    _place_run(folder)
    saved = _saved_files()

    def report(name: str, path: str, *seeds: Seed) -> tuple[str, Reader]:
        whole = (Seed(name, _RUN_FILES[path]), *seeds)
        return f"report {name}", Reader(_read_report, RecordError, f"run/{path}", whole, _place_run)

    def of(name: str, path: str) -> tuple[str, Reader]:
        return f"SavedRun {name}", Reader(
            _read_saved, WgpuNNError, f"saved/{path}", (Seed(name, saved[path]),), _place_saved
        )

    npy = bytes_of(lambda b: np.save(b, IMAGES[:2]))
    matrix = Seed("matrix", bytes_of(lambda b: np.save(b, np.eye(3))), functools.partial(zip_of, name="c.matrix"))
    return dict(
        [
            ("RunConfig.load", Reader(RunConfig.load, ConfigError, "r.json", (Seed("config", saved["config.json"]),))),
            (
                "write_state",
                Reader(_read_state, RecordError, "state/run.json", (Seed("facts", _RUN_FILES["run.json"]),)),
            ),
            of("config", "config.json"),
            of("facts", "data.json"),
            of("log", "metrics.jsonl"),
            report("log", "metrics.jsonl"),
            report("config", "config.json"),
            report("facts", "run.json"),
            report("data", "data.json"),
            report("samples", "samples.npz", Seed("array", npy, _samples_of)),
            report("details", "details/epoch-2.npz", matrix),
        ]
    )


def readers(folder: Path) -> dict[str, Reader]:
    """Return the readers of data sets, configs and runs by name; seeds that need a file to be made are made in ``folder``."""
    csv = (Seed("classes", CSV.encode()), Seed("numbers", CSV.replace("rose", "1").replace("tu,lip", "2").encode()))
    jsonl, arrow, data_base = (Seed("rows", JSONL.encode()),), _arrow(), _sqlite(folder)
    npy = bytes_of(lambda b: np.save(b, IMAGES))
    arrays = (
        Seed("npz", bytes_of(lambda b: np.savez_compressed(b, x=IMAGES, y=LABELS))),
        Seed("npy", npy),
        Seed("array", npy, zip_of),
    )
    items = (Seed("item", _ITEM), Seed("array", _ITEM_ARRAY, _item_of))
    image = tuple(Seed(of, _image(of=of)) for of in ("PNG", "JPEG"))
    masks = (Seed("grey", _image("L")), Seed("bmp", _image("L", of="BMP")))
    tar, packed = Seed("tar", _tar()), Seed("inside gzip", _tar(), functools.partial(gzip.compress, mtime=0))
    return {
        "read_csv": Reader(_read_table(read_csv, "a", "b"), DataError, "t.csv", csv),
        "CsvRows": Reader(_read_rows(CsvRows), DataError, "t.csv", csv),
        "read_jsonl": Reader(_read_table(read_jsonl, "a", "list"), DataError, "t.jsonl", jsonl),
        "JsonRows": Reader(_read_rows(JsonRows), DataError, "t.jsonl", jsonl),
        "read_parquet": Reader(_read_table(read_parquet, "a", "list"), DataError, "t.parquet", arrow),
        "ParquetRows": Reader(_read_rows(ParquetRows), DataError, "t.parquet", arrow),
        "read_sqlite": Reader(_read_table(_read_sqlite, "a", "b"), DataError, "t.db", data_base),
        "SqliteRows": Reader(_read_rows(functools.partial(SqliteRows, query="t")), DataError, "t.db", data_base),
        "SqliteDataset": Reader(
            lambda path: _items(SqliteDataset(path, "t", ["a", "b", "kind", "raw"])), DataError, "t.db", data_base
        ),
        "ImageFolder": Reader(_read_images, DataError, "images/a/1.png", image, _place_images, most_bytes=1 << 29),
        "MaskFolder": Reader(
            lambda path: _items(MaskFolder(path.parents[1] / "pairs", path.parent, 3)),
            *(DataError, "masks/1.png", masks, _place_images, 1 << 29),
        ),
        "CocoBoxes": Reader(
            lambda path: _items(CocoBoxes(path, path.parent / "boxed", (10, 12))),
            *(DataError, "coco.json", (Seed("boxes", json.dumps(COCO).encode()),), _place_images),
        ),
        "TextFolder": Reader(
            lambda path: _items(TextFolder(path.parents[1])),
            *(DataError, "texts/a/1.txt", (Seed("text", "Grüße, 世界".encode()),), _place_images),
        ),
        "load_cifar folder": Reader(
            lambda path: load_cifar(path.parent, CIFAR), DataError, "cifar/train.bin", (Seed("records", RECORDS),), _place_cifar
        ),
        "load_cifar archive": Reader(lambda path: load_cifar(path, CIFAR), DataError, "cifar.tar", (tar, packed)),
        "cached note": Reader(_read_cache, DataError, "cache/cache.json", (Seed("note", _NOTE),), _place_cache),
        "cached item": Reader(_read_cache, DataError, "cache/000000/0.npz", items, _place_cache),
        "read_arrays": Reader(read_arrays, DataError, "a.npz", arrays),
        **_runs(folder),
    }  # fmt: skip
