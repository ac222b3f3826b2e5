"""Published files, downloaded once, checked, and kept: what is in them, others know."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wgpu_nn.errors import DataError, missing_extra

__all__ = ["fetched"]

LOG = logging.getLogger("wgpu_nn.data")


def fetched(
    what: str,
    name: str,
    files: Mapping[str, str],
    mirrors: Sequence[str],
    cache_dir: str | os.PathLike[str] | None,
    otherwise: str,
) -> Path:
    """Return the folder that has ``files``, names to SHA-256, after downloading what is not there from the first mirror
    that has it.

    The folder is ``cache_dir``, or the platform's cache for ``name``. Files that are there and whole need no network, and
    the log (``wgpu_nn.data``, level INFO) says so. Raises DataError, which names what each mirror did and the way out
    (``otherwise``), when a file cannot be had; MissingExtraError without pooch where something is to be downloaded.
    """
    try:
        import pooch
    except ImportError as error:
        raise missing_extra(what, "pooch", "data") from error
    folder = Path(cache_dir) if cache_dir is not None else Path(pooch.os_cache("wgpu_nn")) / name
    absent = {file: digest for file, digest in files.items() if not _whole(folder / file, digest)}
    if not absent:
        LOG.info("%s: all %d files are in %s; no network is used", what, len(files), folder)
        return folder
    for file, digest in absent.items():
        failures: dict[str, Exception] = {}
        for mirror in mirrors:
            try:
                pooch.retrieve(mirror + file, known_hash=f"sha256:{digest}", fname=file, path=folder)
                break
            except Exception as error:  # whatever requests, the file system, and a wrong checksum raise
                failures[mirror] = error
        else:
            got = ", ".join(f"{type(error).__name__} from {mirror}" for mirror, error in failures.items())
            there = [name for name in files if name not in absent]
            raise DataError(
                f"{what}: expected {file} from a mirror, got {got}; "
                f"{f'{folder} has {there} already; ' if there else ''}without a network, {otherwise}"
            ) from list(failures.values())[-1]
    LOG.info("%s: downloaded %s to %s", what, ", ".join(absent), folder)
    return folder


def _whole(path: Path, digest: str) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False  # not there, or not to be read: downloading says which
