"""Choices among variants of kernels, in memory and in a file of the user's cache; knows not how they are made."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wgpu_nn import kernels
from wgpu_nn.errors import RecordError, missing_extra
from wgpu_nn.files import write_atomic
from wgpu_nn.gpu import Adapter
from wgpu_nn.kernels.source import folder

FORMAT = 1


class Choices:
    """Names by key. A file is read when the first is asked for, and written as a whole after each that is made.

    ``stamp`` says what the choices hold for; a file with another stamp is stale. ``path`` None: nothing outlives the
    process. Two processes may share a file: each keeps what it finds there, and at worst one's last choice is lost.
    """

    def __init__(self, path: Path | None, stamp: Mapping[str, str]) -> None:
        self._path, self._stamp = path, {"format": FORMAT, **stamp}
        self._known: dict[str, str] | None = None

    def get(self, key: str) -> str | None:
        """Return what was chosen, if it is known."""
        if self._known is None:
            self._known, trouble = self._read()
            if trouble:
                warnings.warn(f"autotune: {self._path}: {trouble}; it is ignored, and will be replaced", stacklevel=2)
        return self._known.get(key)

    def keep(self, key: str, name: str) -> None:
        """Remember a choice."""
        self.get(key)
        assert self._known is not None
        self._known[key] = name
        if self._path is None:
            return
        self._known = self._read()[0] | self._known
        text = json.dumps({**self._stamp, "choices": dict(sorted(self._known.items()))}, indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, text.encode())
        except (OSError, RecordError) as error:
            warnings.warn(f"autotune: choices last only as long as this process: {error}", stacklevel=2)
            self._path = None

    def _read(self) -> tuple[dict[str, str], str]:
        """Return the choices of the file, or none and what is wrong with it."""
        if self._path is None:
            return {}, ""
        try:
            found: Any = json.loads(self._path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}, ""
        except (OSError, ValueError, RecursionError) as error:
            return {}, f"expected choices of kernels, got a file that cannot be read ({error})"
        choices: Any = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(choices, dict) or not all(isinstance(v, str) for v in choices.values()):
            return {}, "expected choices of kernels, got something else"
        for name, value in self._stamp.items():
            if found.get(name) != value:
                return {}, f"expected {name} {value}, got {found.get(name)}: it is stale"
        return choices, ""


@functools.cache
def kernels_version() -> str:
    """Return a digest of all that makes a kernel: shaders, planners, and the package that compiles WGSL."""
    digest = hashlib.sha256(version("wgpu").encode())
    planners = Path(kernels.__file__).parent
    for path in (*sorted(folder().rglob("*.wgsl")), *sorted(planners.glob("*.py"))):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path | None:
    """Return where this user's caches lie; None, with a warning, without the package that knows."""
    try:
        from platformdirs import user_cache_path
    except ImportError:
        what = "autotune: choices last only as long as this process; to keep them"
        warnings.warn(str(missing_extra(what, "platformdirs", "tune")), stacklevel=2)
        return None
    return user_cache_path("wgpu_nn", appauthor=False)


def known_choices(adapter: Adapter) -> Choices:
    """Return the choices for an adapter, with its driver and these kernels."""
    stamp = {"adapter": str(adapter), "driver": adapter.driver, "kernels": kernels_version()}
    where = cache_folder()
    name = re.sub(r"[^a-z0-9]+", "-", f"{adapter.name} {adapter.api}".lower()).strip("-")[:80]
    return Choices(where / f"autotune-{name}.json" if where else None, stamp)
