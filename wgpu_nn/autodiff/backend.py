"""Autodiff(inner): runs every op on ``inner`` and records a tape; the rules say what the gradients are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from wgpu_nn.autodiff.rules import NO_GRADIENT, RULES
from wgpu_nn.backends.base import Backend, Handle, HostCallback, Pending, Recorder
from wgpu_nn.dtype import DType, Float, Kind, Scalar
from wgpu_nn.errors import GradientError
from wgpu_nn.ops import Algebra, Spec
from wgpu_nn.shape import Shape


@dataclass(slots=True, eq=False)
class Node:
    """One recorded op, or a leaf (no op): what its gradient rule needs, and where gradients flow on to."""

    out: Handle
    op: str = ""
    operands: tuple[Handle | Scalar, ...] = ()
    parents: tuple[Node | None, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    order: int = field(default_factory=itertools.count().__next__)


@dataclass(slots=True, eq=False)
class Tracked:
    """Autodiff's handle: a handle of the inner backend, and the node that made it if gradients can reach it."""

    value: Handle
    node: Node | None = None


class Term(Algebra):
    """A handle that speaks mathematics: what gradient rules compute with."""

    __slots__ = ("backend", "handle", "spec")

    def __init__(self, backend: Backend, handle: Handle) -> None:
        self.backend, self.handle, self.spec = backend, handle, backend.spec(handle)

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        return self.spec.dtype

    def run(self, op: str, *operands: Self | Scalar, **attrs: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        given = [x.handle if isinstance(x, Term) else x for x in operands]
        return type(self)(self.backend, self.backend.run(op, *given, **attrs))


class Autodiff:
    """A backend that computes gradients of what runs on it; wraps any backend, itself included."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return f"autodiff({self.inner.name})"

    @property
    def dtypes(self) -> Mapping[Kind, DType]:
        return self.inner.dtypes

    def spec(self, handle: Tracked) -> Spec:
        return self.inner.spec(handle.value)

    def upload(self, array: np.ndarray, dtype: DType) -> Tracked:
        return Tracked(self.inner.upload(array, dtype))

    def download(self, handle: Tracked) -> np.ndarray:
        return self.inner.download(handle.value)

    def download_later(self, handles: Sequence[Tracked]) -> list[Pending]:
        return self.inner.download_later([handle.value for handle in handles])

    def sync(self) -> None:
        self.inner.sync()

    def host(self, callback: HostCallback) -> tuple[Tracked | Scalar, ...]:
        found = self.inner.host(callback)
        return tuple(x if isinstance(x, bool | int | float) else Tracked(x) for x in found)

    @property
    def recorder(self) -> Recorder | None:
        return self.inner.recorder

    def run(self, op: str, *operands: Tracked | Scalar, **attrs: Any) -> Tracked:
        values = tuple([x.value if isinstance(x, Tracked) else x for x in operands])
        out = self.inner.run(op, *values, **attrs)
        parents = tuple([x.node if isinstance(x, Tracked) else None for x in operands])
        if not any(parents) or op in NO_GRADIENT or self.inner.spec(out).dtype.kind is not Float:
            return Tracked(out)
        if op not in RULES:
            raise GradientError(f"{op}: has no gradient rule; detach() its input, or register a rule")
        return Tracked(out, Node(out, op, values, parents, attrs))

    def require_grad(self, handle: Tracked) -> Tracked:
        """Return ``handle`` as a new leaf, at every level of nested Autodiffs."""
        value = self.inner.require_grad(handle.value) if isinstance(self.inner, Autodiff) else handle.value
        return Tracked(value, Node(value))

    def detach(self, handle: Tracked) -> Tracked:
        """Return ``handle`` without its history, at every level."""
        return Tracked(self.inner.detach(handle.value) if isinstance(self.inner, Autodiff) else handle.value)

    def backward(self, handle: Tracked, seed: Handle | None = None) -> dict[Node, Handle]:
        """Return the gradient, on the inner backend, of every leaf that ``handle`` depends on.

        ``seed`` is the gradient of ``handle`` itself; 1 if none is given, and then ``handle`` must have one element.
        """
        if handle.node is None:
            raise GradientError(
                "backward: this tensor depends on none that requires gradients; use device.autodiff() and require_grad()"
            )
        spec = self.spec(handle)
        if seed is None:
            if np.prod(spec.shape, dtype=np.int64) != 1:
                raise GradientError(
                    f"backward: expected a tensor of one element, got {list(spec.shape)}; reduce it with .sum() or .mean()"
                )
            seed = self.inner.run("full", 1.0, shape=spec.shape, dtype=spec.dtype)
        found: dict[Node, Term] = {handle.node: Term(self.inner, seed)}
        leaves: dict[Node, Handle] = {}
        for node in _newest_first(handle.node):
            g = found.pop(node, None)
            if g is None:
                continue
            if not node.op:
                leaves[node] = g.handle
                continue
            out = Term(self.inner, node.out)
            xs = [x if isinstance(x, bool | int | float) else Term(self.inner, x) for x in node.operands]
            rules = RULES[node.op]
            for i, parent in enumerate(node.parents):
                if parent is None:
                    continue
                rule = rules[i]
                if rule is None:
                    continue
                part = _like(rule(g, out, *xs, **node.attrs), self.inner.spec(node.operands[i]))
                found[parent] = found[parent] + part if parent in found else part
        return leaves


def _newest_first(root: Node) -> Sequence[Node]:
    """Return the nodes that ``root`` depends on, each after all that use it: an op is newer than its operands."""
    seen: set[Node] = {root}
    todo = [root]
    while todo:
        for parent in todo.pop().parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return sorted(seen, key=lambda n: -n.order)


def _like(g: Term, operand: Spec) -> Term:
    """Sum a gradient over the axes along which its operand was repeated; it has that one's element type."""
    shape = operand.shape
    if g.shape != shape:
        lead = g.rank - len(shape)
        axes = [*range(lead), *(i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)]
        g = (g.sum(axes) if axes else g).reshape(shape)
    return g.cast(operand.dtype)
