"""What users import says what it computes: names, methods that no class above documents, and the error of empty joins."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import wgpu_nn
from wgpu_nn import data, metrics, nn, optim, runs, train
from wgpu_nn.errors import ShapeError


def undocumented(cls: type) -> list[str]:
    """Return the public methods and properties that neither ``cls`` nor a class above it says anything of."""
    found: list[str] = []
    for name, value in list(vars(cls).items()):  # looking at a config's fields completes the class
        function: Any = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        above = (vars(base).get(name) for base in cls.__mro__)
        if inspect.isfunction(function) and not name.startswith("_") and not any(inspect.getdoc(f) for f in above if f):
            found.append(f"{cls.__name__}.{name}")
    return found


@pytest.mark.parametrize("module", [wgpu_nn, nn, train, optim, data, metrics, runs], ids=lambda m: m.__name__)
def test_every_public_name_has_a_docstring(module: ModuleType) -> None:
    exported = [getattr(module, name) for name in module.__all__]
    protocols = [value for value in exported if getattr(value, "_is_protocol", False)]
    said = {name for value in protocols for name, method in list(vars(value).items()) if inspect.getdoc(method)}
    silent: list[str] = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            # A dataclass writes its signature where there is nothing else.
            text = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
            silent += [name] * (not text or text.startswith(f"{name}("))
        if inspect.isclass(value):
            silent += [n for n in undocumented(value) if n.rpartition(".")[2] not in said]
    assert not silent


@pytest.mark.parametrize("dim", [0, -1])
def test_joining_nothing_says_so(dim: int) -> None:
    for join in (wgpu_nn.cat, wgpu_nn.stack):
        with pytest.raises(ShapeError, match=f"{join.__name__}: expected at least one tensor, got none; give it some"):
            join([], dim)
