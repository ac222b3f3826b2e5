"""Files that appear whole or not at all; knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from wgpu_nn.errors import RecordError

__all__ = ["sync_directory", "write_atomic"]


def write_atomic(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write ``content``, or what ``content(file)`` writes, to ``path`` so that a kill at any instant leaves old or new.

    The bytes go to a temporary file beside ``path``, reach the disk, and take its name in one step. On failure the
    temporary file is removed and ``path`` is untouched. Raises RecordError when the system refuses; what ``content``
    raises goes through, except for its OSErrors.
    """
    target = Path(path)
    # Not tempfile: its files are private to the user, and would stay so after the rename.
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise RecordError(
            f"write: expected to write {target}, got {error.strerror or error}; "
            "does the folder exist, may you write there, is the disk full?"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone by now, if all went well
            temporary.unlink()


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable: without it a rename can be lost though the renamed file's bytes are safe."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # NOTE: Windows opens no directories, and needs no such step
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the rename itself has happened
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
