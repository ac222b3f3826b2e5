"""Whole files of every format that is read, and how each is read: what the file fuzz damages.

A seed is damaged inside of its wrapping where it has one: beneath checksums, compression and lengths, which would
otherwise hide the damage from the code behind them.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wgpu_nn import Device
from wgpu_nn.backends.choices import Choices
from wgpu_nn.data import ArrayDataset, DataLoader, load_digits_npz, load_mnist, read_digit
from wgpu_nn.data.idx import read_idx
from wgpu_nn.errors import ConfigError, DataError, RecordError, WgpuNNError
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import Config, Conv2dConfig, LinearConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.record import latest_checkpoint, load_checkpoint, load_module, load_tensors, save_checkpoint, save_tensors
from wgpu_nn.tensor import Rng
from wgpu_nn.train import read_log
from wgpu_nn.train.checkpoint import Parts, Position, load_position, take_position
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.log import Log
from wgpu_nn.train.totals import Totals


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole file, or what is inside of one; ``wrap`` makes the file of it."""

    name: str
    inner: bytes
    wrap: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads the file ``name`` in a folder, the errors that it documents, and whole files for it."""

    read: Callable[[Path], object]
    error: type[WgpuNNError]
    name: str
    seeds: tuple[Seed, ...]
    place: Callable[[Path], None] = lambda folder: None  # writes what else belongs into the folder
    most_bytes: int = 1 << 26  # what a file of some KB may make it allocate


def bytes_of(write: Callable[[Any], object]) -> bytes:
    """Return what ``write`` writes to a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


# --- tensors -----------------------------------------------------------------------------------------------------------
def _saved(folder: Path, write: Callable[[Path], object]) -> bytes:
    write(folder / "seed")
    return (folder / "seed").read_bytes()


def _with_length(header: bytes, data: int = 96) -> bytes:
    """Return a safetensors file of any header, with its length in front and so many bytes behind it."""
    return struct.pack("<Q", len(header)) + header + bytes(data)


ARRAYS = {"w": np.ones((3, 4), np.float32), "b": np.arange(5, dtype=np.int64), "s": np.float16(1.5).reshape(())}
HEADER = (
    b'{"w":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},"b":{"dtype":"F32","shape":[12],"data_offsets":[48,96]}}'
)


def _tensors(folder: Path) -> tuple[Seed, ...]:
    whole = _saved(folder, lambda path: save_tensors(path, ARRAYS, {"made": "here"}))
    return (Seed("file", whole), Seed("header", HEADER, _with_length))


def _module(folder: Path) -> tuple[Seed, ...]:
    linear = LinearConfig(3, 4).init(Device("numpy"))
    state = {name: t.numpy() for name, t in linear.state().items()}
    whole = _saved(folder, lambda path: save_tensors(path, state))
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
    return (Seed("file", whole), Seed("header", header, functools.partial(_with_length, data=4 * (12 + 4))))


def _read_module(path: Path) -> None:
    linear = LinearConfig(3, 4).init(Device("numpy"))
    load_module(linear, path)
    assert {n: t.shape for n, t in linear.state().items()} == {"weight": (3, 4), "bias": (4,)}


# --- checkpoints -------------------------------------------------------------------------------------------------------
def _parts() -> Parts:
    device = Device("numpy").autodiff()
    config = LinearConfig(2, 2)
    data = DataLoader(ArrayDataset(np.zeros((4, 2), np.float32), np.zeros(4, np.int32)), 2, shuffle=True, seed=1)
    totals = Totals([], device.inner())
    return Parts(config.init(device), AdamConfig(lr=0.1).init(), Rng(3), totals, data, config, accumulate=1)


@functools.cache
def _checkpoint_files() -> dict[str, bytes]:
    record = EpochRecord(1, 2, {"loss": 0.5}, {"loss": 0.5, "accuracy": 0.5}, lr=0.1, seconds=1.0, items_per_s=4.0)
    with tempfile.TemporaryDirectory() as folder:
        taken = take_position(_parts(), Position(epoch=1, step=2, history=[record]))
        written = save_checkpoint(Path(folder), taken.step, taken.arrays(), taken.state)
        return {path.name: path.read_bytes() for path in written.iterdir()}


def _place_checkpoint(folder: Path) -> None:
    (folder / "checkpoint-2").mkdir(exist_ok=True)
    for name, data in _checkpoint_files().items():
        (folder / "checkpoint-2" / name).write_bytes(data)


def _place_with_digest(folder: Path) -> None:
    """Let the state vouch for whatever the model's file is."""
    state = json.loads(_checkpoint_files()["state.json"])
    data = (folder / "checkpoint-2" / "model.safetensors").read_bytes()
    state["files"]["model"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "checkpoint-2" / "state.json").write_text(json.dumps(state))


def _read_position(path: Path) -> None:
    parts = _parts()
    at = load_position(path.parent, parts)
    assert all(type(n) is int and n >= 0 for n in (at.epoch, at.batch, at.step, at.sums.items)), at
    assert all(type(x) is float for x in (at.seconds, *at.sums.totals.values(), *(r.seconds for r in at.history))), (
        asdict(at)
    )
    assert type(parts.optimizer.steps) is int and type(parts.rng.seed) is type(parts.rng.stream) is int


def _read_checkpoint(path: Path) -> None:
    latest_checkpoint(path.parent.parent)
    load_checkpoint(path.parent)


def _read_signed_position(path: Path) -> None:
    _place_with_digest(path.parent.parent)
    _read_position(path)


# --- configurations, choices, metrics ----------------------------------------------------------------------------------
class Inner(Config):
    rate: float
    sizes: tuple[int, ...] = (1, 2)


class Outer(Config):
    name: str
    inner: Inner
    table: dict[str, int | None]
    inners: tuple[Inner, ...] = ()
    on: bool = False
    either: Inner | float | None = None


_OUTER = Outer("a", Inner(0.5), {"x": 1, "y": None}, inners=(Inner(1.0, sizes=(3,)),), either=2.0)


def _read_config(cls: type[Config]) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        found = cls.load(path)
        assert cls.from_json(found.to_json()) == found and repr(found) and hash(found) == hash(found)

    return read


STAMP = {"driver": "1", "kernels": "abc"}


def _read_choices(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that the file is ignored
        known = Choices(path, STAMP)
        found = known.get("matmul 4 x 4")
        known.keep("conv", "tile")
        assert found is None or type(found) is str
        assert Choices(path, STAMP).get("conv") == "tile"


def _read_metrics(path: Path) -> None:
    for line in read_log(path):
        assert type(line["kind"]) is str and type(line["epoch"]) is type(line["step"]) is int
    Log(path).rewind(1, 2)
    Log(path).write([{"kind": "step", "epoch": 1, "step": 2}])
    assert read_log(path)


# --- data sets ---------------------------------------------------------------------------------------------------------
def _idx(array: np.ndarray) -> bytes:
    code = {"u1": 0x08, "i2": 0x0B, "f4": 0x0D}[array.dtype.str[1:]]
    head = bytes((0, 0, code, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(12 * 28 * 28, dtype=np.int64).astype(np.uint8).reshape(12, 28, 28)
LABELS = np.arange(12, dtype=np.uint8) % 10
_LABELS_IDX = _idx(LABELS)


def _place_mnist(folder: Path) -> None:
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(_idx(IMAGES))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(_LABELS_IDX)


def zip_of(x: bytes, name: str = "x", other: str = "y") -> bytes:
    """Return an .npz whose array ``name`` is any bytes, with right checksums around them, and ``other`` some labels."""

    def write(buffer: Any) -> None:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{name}.npy", x)
            file.writestr(f"{other}.npy", bytes_of(lambda b: np.save(b, LABELS)))

    return bytes_of(write)


def _png_of(chunks: bytes) -> bytes:
    """Return a PNG of chunks (length, name, data, any four bytes) with right checksums, as far as they can be read."""
    out, at = bytearray(b"\x89PNG\r\n\x1a\n"), 0
    while at + 8 <= len(chunks):
        end = at + 8 + int.from_bytes(chunks[at : at + 4], "big")
        out += chunks[at:end] + struct.pack(">I", zlib.crc32(chunks[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _images() -> tuple[Seed, ...]:
    ramp = IMAGES[0]
    modes = {"L": ramp, "RGBA": np.dstack([ramp] * 4), "I16": ramp.astype(np.uint16) * 257}
    png = {name: bytes_of(lambda b, a=a: Image.fromarray(a).save(b, "PNG")) for name, a in modes.items()}
    palette = Image.fromarray(ramp).convert("P")
    png["P"] = bytes_of(lambda b: palette.save(b, "PNG", transparency=3))
    kinds = ("JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
    others = [Seed(kind, bytes_of(lambda b, k=kind: Image.fromarray(ramp).save(b, k))) for kind in kinds]
    whole = [Seed(f"PNG {name}", data) for name, data in png.items()]
    inside = [Seed(f"chunks {name}", data[8:], _png_of) for name, data in png.items()]
    return (*whole, *inside, *others)


def _npz() -> tuple[Seed, ...]:
    packed = bytes_of(lambda b: np.savez_compressed(b, x=IMAGES, y=LABELS))
    plain = bytes_of(
        lambda b: np.savez(b, x_train=IMAGES[:2], y_train=LABELS[:2], x_test=IMAGES[:1], y_test=LABELS[:1])
    )
    return (Seed("packed", packed), Seed("plain", plain), Seed("array", bytes_of(lambda b: np.save(b, IMAGES)), zip_of))


@functools.cache
def readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by name; seeds that need a file to be made are made in ``folder``."""
    state, model = _checkpoint_files()["state.json"], _checkpoint_files()["model.safetensors"]
    idx = (
        Seed("u1", _LABELS_IDX),
        Seed("f4", _idx(np.ones((2, 3), np.float32))),
        Seed("i2", _idx(np.ones(4, np.int16))),
    )
    zipped = tuple(Seed(f"{s.name} inside gzip", s.inner, functools.partial(gzip.compress, mtime=0)) for s in idx)
    log = b'{"kind": "step", "epoch": 1, "step": 2, "loss": 0.5}\n{"kind": "epoch", "epoch": 1, "step": 2}\n'
    choices = json.dumps({"format": 1, **STAMP, "choices": {"matmul 4 x 4": "tile"}}).encode()
    configs = {"Outer": _OUTER, "ModelConfig": ModelConfig(10, 512), "Conv2dConfig": Conv2dConfig([1, 8], [3, 3])}
    return {
        "load_tensors": Reader(load_tensors, RecordError, "a.safetensors", _tensors(folder)),
        "load_module": Reader(_read_module, RecordError, "m.safetensors", _module(folder)),
        "load_checkpoint": Reader(
            _read_checkpoint, RecordError, "checkpoint-2/state.json", (Seed("state", state),), _place_checkpoint
        ),
        "load_position": Reader(
            _read_position, RecordError, "checkpoint-2/state.json", (Seed("state", state),), _place_checkpoint
        ),
        "load_position model": Reader(
            _read_signed_position, RecordError, "checkpoint-2/model.safetensors", (Seed("model", model),), _place_checkpoint
        ),
        **{
            f"{name}.load": Reader(_read_config(type(c)), ConfigError, "c.json", (Seed(name, c.to_json().encode()),))
            for name, c in configs.items()
        },
        "Choices": Reader(_read_choices, WgpuNNError, "choices.json", (Seed("choices", choices),)),
        "read_log": Reader(_read_metrics, RecordError, "metrics.jsonl", (Seed("log", log),)),
        "read_idx": Reader(read_idx, DataError, "a.idx", (*idx, Seed("gzip", gzip.compress(_LABELS_IDX)), *zipped)),
        "load_mnist": Reader(
            lambda path: load_mnist(path.parent), DataError, "t10k-labels-idx1-ubyte", (idx[0],), _place_mnist
        ),
        "load_mnist images": Reader(
            lambda path: load_mnist(path.parent), DataError, "t10k-images-idx3-ubyte", (Seed("u1", _idx(IMAGES)),), _place_mnist
        ),
        "load_digits_npz": Reader(load_digits_npz, DataError, "d.npz", _npz()),
        "read_digit": Reader(lambda path: read_digit(path, resize=True), DataError, "a.image", _images(), most_bytes=1 << 29),
    }  # fmt: skip
