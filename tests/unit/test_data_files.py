"""Readers of data files: IDX, MNIST's archives and images, and what damaged ones raise."""

import contextlib
import gc
import gzip
import hashlib
import http.server
import io
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wgpu_nn.data import (
    fetch_mnist,
    load_digits_npz,
    load_mnist,
    mnist,
    read_digit,
    read_idx,
)
from wgpu_nn.errors import DataError, MissingExtraError

DIGITS = Path(__file__).parents[2] / "examples" / "mnist" / "mnist10k.npz"


# IDX


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")], ids=str
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(5,), (0, 28), (2, 1, 3)])
def test_idx_files_of_every_type_are_read(tmp_path: Path, code: int, dtype: str, packed: bool, shape: tuple[int, ...]):
    array = (np.arange(np.prod(shape)) - 1).astype(dtype).reshape(shape)
    data = idx(array, code)
    (tmp_path / "a").write_bytes(gzip.compress(data) if packed else data)
    again = read_idx(tmp_path / "a")
    assert again.dtype == np.dtype(dtype) and again.shape == shape and again.flags.writeable
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_of_an_idx_file_is_a_data_error(tmp_path: Path, packed: bool):
    data = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
    data = gzip.compress(data) if packed else data
    for size in range(len(data)):
        (tmp_path / "a").write_bytes(data[:size])
        with pytest.raises(DataError, match=r"read_idx: .*expected"):
            read_idx(tmp_path / "a")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (idx(np.arange(3, dtype=np.uint8)) + b"\0", "got more"),
        (b"\0\0\x0a\1\0\0\0\0", "expected an IDX file"),
        (b"\0\0\x08\0", "expected an IDX file"),
        (b"\0\0\x08\xff" + b"\1" * 2000, "expected an IDX file"),
        (b"PK\3\4" + b"\0" * 50, "expected an IDX file"),
        (b"\0\0\x08\4" + b"\xff" * 16, "expected 115792089156436461520804053296032972880 bytes|got a file of"),
    ],
)
def test_files_that_are_no_idx_are_data_errors(tmp_path: Path, data: bytes, said: str, packed: bool):
    (tmp_path / "a").write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=said):
        read_idx(tmp_path / "a")


def test_a_gzip_with_a_wrong_checksum_is_a_data_error(tmp_path: Path):
    data = bytearray(gzip.compress(idx(np.arange(3, dtype=np.uint8))))
    data[-8] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_idx(tmp_path / "a")


@given(st.sampled_from([b"", b"\0\0\x08\1\0\0", b"\0\0\x08\3", b"\x1f\x8b\x08\0"]), st.binary(max_size=80))
def test_random_bytes_as_idx_raise_nothing_but_data_error(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
):
    path = tmp_path_factory.getbasetemp() / "random.idx"
    for data in (start + rest, gzip.compress(start + rest)):
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_idx(path)


def test_no_file_and_a_folder_are_data_errors(tmp_path: Path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="expected a readable file"):
            read_idx(path)


# MNIST


def digits(n: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = (np.arange(n) + first) % 10
    return np.repeat(labels.astype(np.uint8) * 20, 784).reshape(n, 28, 28), labels.astype(np.uint8)


def write_idx_set(folder: Path, packed: bool = True) -> None:
    for part, n in (("train", 12), ("t10k", 5)):
        x, y = digits(n)
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            name, data = f"{part}-{kind}-ubyte", idx(array)
            if packed:
                name, data = f"{name}.gz", gzip.compress(data, mtime=0)
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_read(tmp_path: Path, packed: bool):
    write_idx_set(tmp_path, packed)
    (x_train, y_train), (x_test, y_test) = load_mnist(tmp_path)
    assert x_train.shape == (12, 28, 28) and x_train.dtype == np.uint8 and y_train.dtype == np.int32
    assert (x_train[:, 0, 0] == 20 * y_train).all() and y_test.tolist() == [0, 1, 2, 3, 4] and len(x_test) == 5


def test_a_missing_idx_file_is_named(tmp_path: Path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"expected t10k-labels-idx1-ubyte.gz, gzipped or not"):
        load_mnist(tmp_path)


def test_a_path_that_does_not_exist_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="which does not exist"):
        load_mnist(tmp_path / "none")


def test_the_shipped_digits_split_into_9000_and_1000():
    (x_train, y_train), (x_test, y_test) = load_mnist(DIGITS)
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (9000, 9000, 1000, 1000)
    assert np.bincount(y_test, minlength=10).min() > 70  # shuffled: every class is in the test set
    counts = np.bincount(np.concatenate([y_train, y_test]))
    assert counts.tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]


def test_the_shipped_digits_are_the_file_that_their_note_describes():
    note = (DIGITS.parent / "DATA.md").read_text(encoding="utf-8")
    assert hashlib.sha256(DIGITS.read_bytes()).hexdigest() in note


def test_an_npz_with_both_sets_is_not_split_again(tmp_path: Path):
    (x, y), (u, v) = digits(7), digits(3, first=4)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=u, y_test=v.astype(np.int64))
    (x_train, y_train), (_, y_test) = load_mnist(tmp_path / "d.npz")
    assert y_train.tolist() == [0, 1, 2, 3, 4, 5, 6] and y_test.tolist() == [4, 5, 6]
    np.testing.assert_array_equal(x_train, x)


X, Y = digits(20)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X.reshape(20, 784), "y": Y}, r"expected images \[n, 28, 28\], got \[20, 784\]"),
        ({"x": X[:, :27], "y": Y}, r"got \[20, 27, 28\]"),
        ({"x": X / 255, "y": Y}, "expected uint8 images"),
        ({"x": X, "y": Y[:19]}, "expected one label for each of 20 images"),
        ({"x": X, "y": Y[:, None]}, "expected one label for each"),
        ({"x": X, "y": Y + 1}, r"expected labels in 0..9, got 1 .. 10"),
        ({"x": X, "y": Y.astype(np.int8) - 1}, r"got -1 .. 8"),
        ({"x": X, "y": Y.astype(float)}, "expected integer labels"),
        ({"x": X, "y": Y > 3}, "expected integer labels"),
        ({"x": X[:0], "y": Y[:0]}, "expected at least one image"),
        ({"x": X[:9], "y": Y[:9]}, "expected at least 10 items"),
        ({"images": X, "labels": Y}, "expected arrays x, y or x_train"),
        ({"x": X, "y": np.array([object()] * 20)}, "expected an .npz file, got ValueError"),
        ({}, "expected arrays x, y or x_train"),
    ],
)
def test_an_npz_of_other_things_is_a_data_error(tmp_path: Path, arrays: dict[str, Any], said: str):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=said):
        load_digits_npz(tmp_path / "d.npz")


def test_a_single_array_is_no_npz(tmp_path: Path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(DataError, match="got a single array"):
        load_mnist(tmp_path / "d.npy")


@given(st.integers(0, 4000), st.binary(max_size=8))
@settings(deadline=None)
def test_damaged_npz_files_raise_nothing_but_data_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, patch: bytes
):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=Y)
    whole = buffer.getvalue()
    position %= len(whole)
    for data in (whole[:position] + patch, whole[:position] + patch + whole[position + len(patch) :], patch):
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            load_digits_npz(path)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mirror of a tiny data set on this machine, in the place of the well-known ones."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_idx_set(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in mnist.MNIST_FILES}
    monkeypatch.setattr(mnist, "MNIST_FILES", files)
    monkeypatch.setattr(mnist, "MIRRORS", [f"http://127.0.0.1:{server.server_port}/"])
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()  # the sockets below


# requests leaves the socket of an answer that is an error to the garbage collector.
LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_fetch_downloads_once(mirror: Path, tmp_path: Path):
    (_, y_train), _ = fetch_mnist(tmp_path / "cache")
    assert len(y_train) == 12
    shutil.rmtree(mirror)
    (_, again), _ = fetch_mnist(tmp_path / "cache")
    assert again.tolist() == y_train.tolist()


@LEAVES_SOCKETS
def test_fetch_goes_on_to_the_next_mirror(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnist, "MIRRORS", [mnist.MIRRORS[0] + "none/", *mnist.MIRRORS])
    assert len(fetch_mnist(tmp_path / "cache")[0][1]) == 12


def test_fetch_refuses_a_file_with_another_checksum(mirror: Path, tmp_path: Path):
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"other")
    with pytest.raises(DataError, match=r"expected t10k-labels-idx1-ubyte.gz from a mirror, got ValueError"):
        fetch_mnist(tmp_path / "cache")


@LEAVES_SOCKETS
def test_fetch_without_a_network_says_how_to_get_the_files(mirror: Path, tmp_path: Path):
    shutil.rmtree(mirror)
    with pytest.raises(DataError, match=r"put train-images-idx3-ubyte.gz, .* into a folder and give load_mnist"):
        fetch_mnist(tmp_path / "cache")


def test_without_pooch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[data\]"):
        fetch_mnist()


# Images

RAMP = np.arange(784, dtype=np.uint8).reshape(28, 28)


@pytest.mark.parametrize("suffix", ["png", "pgm", "bmp", "tiff", "gif"])
def test_grey_images_are_read_exactly(tmp_path: Path, suffix: str):
    Image.fromarray(RAMP).save(tmp_path / f"a.{suffix}")
    digit = read_digit(tmp_path / f"a.{suffix}")
    assert digit.dtype == np.float32
    np.testing.assert_array_equal(digit, RAMP / np.float32(255))


def test_jpeg_images_are_read_nearly(tmp_path: Path):
    Image.new("RGB", (28, 28), (200, 200, 200)).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_digit(tmp_path / "a.jpg"), 200 / 255, atol=2 / 255)


def test_sixteen_bits_are_not_clipped(tmp_path: Path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_digit(tmp_path / "a.png"), RAMP / 255, rtol=1e-6)


def test_what_is_transparent_lies_on_white(tmp_path: Path):
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_digit(tmp_path / "a.png") == 1).all()


def test_palettes_and_bits_are_read_as_their_colours(tmp_path: Path):
    Image.fromarray(RAMP > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_digit(tmp_path / "a.png"), RAMP > 99)


def test_invert_swaps_black_and_white(tmp_path: Path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_digit(tmp_path / "a.png", invert=True), 1 - RAMP / 255, atol=1e-7)


@pytest.mark.parametrize("size", [(28, 29), (1, 1), (56, 56), (300, 7)])
def test_another_size_is_refused_unless_resized(tmp_path: Path, size: tuple[int, int]):
    Image.new("L", size, 51).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"expected 28 x 28 pixels, got {size[0]} x {size[1]}; .*resize=True"):
        read_digit(tmp_path / "a.png")
    digit = read_digit(tmp_path / "a.png", resize=True)
    assert digit.shape == (28, 28)
    np.testing.assert_allclose(digit, 0.2, rtol=1e-6)


def test_files_that_are_no_image_are_data_errors(tmp_path: Path):
    (tmp_path / "a.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for path in (tmp_path / "a.png", tmp_path / "empty.png", tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="expected a readable image"):
            read_digit(path)


def test_a_small_file_that_claims_a_huge_image_is_a_data_error(tmp_path: Path):
    for sides in (b"10000 10000", b"60000 60000"):
        (tmp_path / "a.pgm").write_bytes(b"P5 " + sides + b" 255\n")
        with pytest.raises(DataError):
            read_digit(tmp_path / "a.pgm", resize=True)


@given(st.integers(0, 10_000), st.binary(max_size=6), st.sampled_from(["PNG", "JPEG", "PPM", "TIFF", "GIF"]))
@settings(deadline=None)
def test_damaged_images_raise_nothing_but_data_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, patch: bytes, kind: str
):
    path = tmp_path_factory.getbasetemp() / "damaged.image"
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, kind)
    whole = buffer.getvalue()
    position %= len(whole)
    for data in (whole[:position], whole[:position] + patch + whole[position + len(patch) :]):
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_digit(path, resize=True)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[data\]"):
        read_digit(tmp_path / "a.png")
