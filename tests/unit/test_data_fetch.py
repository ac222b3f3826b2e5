"""CIFAR's files, and what fetching has in common: caches without a network, mirrors in order, checksums."""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn.data import (
    CIFAR10,
    CIFAR100,
    Cifar,
    cifar,
    fetch_cifar10,
    fetch_cifar100,
    fetch_fashion_mnist,
    load_cifar,
    mnist,
)
from wgpu_nn.data.fetch import fetched
from wgpu_nn.errors import DataError


def records(which: Cifar, n: int, first: int = 0) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(first)
    pixels = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(n) * 7 + first) % which.classes
    rows = [
        bytes([9] * (which.labels - 1) + [label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True)
    ]
    return b"".join(rows), pixels, labels


def archive(which: Cifar, **changed: bytes | None) -> bytes:
    """Return a tar archive as Toronto's: a folder, its files, and a page that nobody needs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for i, name in enumerate((*which.train, *which.test, "readme.html")):
            content = changed.get(name.partition(".")[0], records(which, 3 + i, i)[0])
            if content is not None:
                info = tarfile.TarInfo(f"cifar-binary/{name}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("which", [CIFAR10, CIFAR100], ids=lambda w: w.name)
def test_cifar_is_read_from_its_archive_and_from_a_folder(tmp_path: Path, which: Cifar):
    (tmp_path / "a.tar.gz").write_bytes(archive(which))
    with tarfile.open(tmp_path / "a.tar.gz") as file:
        file.extractall(tmp_path, filter="data")
    for path in (tmp_path / "a.tar.gz", tmp_path / "cifar-binary"):
        (x, y), (x_test, y_test) = load_cifar(path, which)
        want = [records(which, 3 + i, i) for i in range(len(which.train) + 1)]
        np.testing.assert_array_equal(x, np.concatenate([pixels for _, pixels, _ in want[:-1]]))
        np.testing.assert_array_equal(y, np.concatenate([labels for _, _, labels in want[:-1]]))
        np.testing.assert_array_equal(x_test, want[-1][1])
        assert (
            x.dtype == np.uint8
            and y.dtype == np.int32
            and y_test.tolist() == want[-1][2].tolist()
            and x.flags.writeable
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data_batch_3": None}, "expected data_batch_3.bin in the archive"),
        ({"data_batch_3": b"\0" * 3072}, r"data_batch_3.bin: expected records of 3073 bytes, got 3072 bytes"),
        ({"test_batch": b""}, "test_batch.bin: expected records"),
        (
            {"test_batch": (b"\3" + bytes(3072)) * 2 + b"\12" + bytes(3072)},
            "expected classes below 10, got 10 in record 2",
        ),
    ],
)
def test_cifar_that_is_not_whole_is_refused(tmp_path: Path, changed: dict[str, Any], said: str):
    (tmp_path / "a").write_bytes(archive(CIFAR10, **changed))
    with pytest.raises(DataError, match=said):
        load_cifar(tmp_path / "a")


def test_no_archive_and_a_cut_one_are_data_errors(tmp_path: Path):
    whole = archive(CIFAR10)
    (tmp_path / "folder").mkdir()
    for name, content in (("cut", whole[:5000]), ("empty", b""), ("text", b"no archive" * 99)):
        (tmp_path / name).write_bytes(content)
    for name in ("cut", "empty", "text", "none", "folder"):
        with pytest.raises(DataError, match="load_cifar: "):
            load_cifar(tmp_path / name)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """No mirror can be reached: the port is one where nobody listens. Returns the archives that would be right."""
    right: dict[str, bytes] = {}
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    nowhere = ("http://127.0.0.1:9/", "http://127.0.0.1:9/again/")
    monkeypatch.setattr(mnist, "FASHION_MIRRORS", nowhere)
    for name in ("CIFAR10", "CIFAR100"):
        content = right[vars(cifar)[name].archive] = archive(vars(cifar)[name])
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setattr(cifar, name, replace(vars(cifar)[name], mirrors=nowhere, digest=digest))
    return right


def test_what_is_in_the_cache_needs_no_network_and_the_log_says_so(
    offline: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for which, fetch in ((CIFAR10, fetch_cifar10), (CIFAR100, fetch_cifar100)):
        (tmp_path / which.archive).write_bytes(offline[which.archive])
        with caplog.at_level(logging.INFO, "wgpu_nn.data"):
            (_, y), _ = fetch(tmp_path)
        assert len(y) >= 3
        assert f"all 1 files are in {tmp_path}; no network is used" in caplog.messages[-1]


def test_without_a_network_the_error_says_what_is_there_and_what_to_do(offline: dict[str, bytes], tmp_path: Path):
    with pytest.raises(
        DataError, match=r"expected cifar-10-binary.tar.gz from a mirror, got .*9/, .*again/; .*give load_cifar"
    ):
        fetch_cifar10(tmp_path)
    with pytest.raises(DataError, match=r"fetch_fashion_mnist: expected train-images.* give load_mnist its path"):
        fetch_fashion_mnist(tmp_path)
    (tmp_path / "a").write_bytes(b"1")
    files = {"a": hashlib.sha256(b"1").hexdigest(), "b": "0" * 64}
    with pytest.raises(DataError, match=r"expected b from a mirror.*has \['a'\] already; without a network, wait"):
        fetched("x", "x", files, ["http://127.0.0.1:9/"], tmp_path, "wait")
