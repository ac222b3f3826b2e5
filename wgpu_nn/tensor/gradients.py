"""Gradients: the value that ``backward`` returns, asked by the tensors whose gradients it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from wgpu_nn.autodiff import Node, Tracked
from wgpu_nn.errors import GradientError

if TYPE_CHECKING:
    from wgpu_nn.tensor.tensor import Tensor


class Gradients:
    """One gradient per leaf, on the inner device. ``grads[w]`` is that of the tensor ``w``."""

    __slots__ = ("_found",)

    def __init__(self, found: Mapping[Node, Tensor]) -> None:
        self._found = dict(found)

    @classmethod
    def of(cls, pairs: Iterable[tuple[Tensor, Tensor]]) -> Gradients:
        """Return gradients made by hand, from leaves with their gradients; other tensors than leaves raise GradientError."""
        found: dict[Node, Tensor] = {}
        for leaf, g in pairs:
            node = cls._node(leaf)
            if node is None:
                raise GradientError(
                    "gradients: expected leaves of an autodiff device, got a tensor without require_grad()"
                )
            found[node] = g
        return cls(found)

    @staticmethod
    def _node(of: Tensor) -> Node | None:
        return of.handle.node if isinstance(of.handle, Tracked) else None

    def get(self, of: Tensor) -> Tensor | None:
        """Return the gradient of ``of``, or None if the loss does not depend on it."""
        node = self._node(of)
        return None if node is None else self._found.get(node)

    def __getitem__(self, of: Tensor) -> Tensor:
        found = self.get(of)
        if found is None:
            raise GradientError(
                "gradients: none for this tensor; it needs require_grad() before its use, and the loss to depend on it"
            )
        return found

    def __contains__(self, of: object) -> bool:
        from wgpu_nn.tensor.tensor import Tensor

        return isinstance(of, Tensor) and self.get(of) is not None

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._found.values())

    def map(self, fn: Callable[[Tensor], Tensor]) -> Gradients:
        """Return the gradients with ``fn`` applied to each."""
        return Gradients({node: fn(g) for node, g in self._found.items()})

    def __add__(self, other: Gradients) -> Gradients:
        """Return the sums, as accumulation over batches needs them; leaves of one side only keep their gradient."""
        out = dict(self._found)
        for node, g in other._found.items():
            out[node] = out[node] + g if node in out else g
        return Gradients(out)

    def norm(self) -> Tensor:
        """Return the Euclidean norm of all gradients taken as one vector."""
        total = None
        for g in self._found.values():
            wide = g.cast(g.dtype.wide)  # squares of halves from 256 on are infinite
            part = (wide * wide).sum()
            total = part if total is None else total + part
        if total is None:
            raise GradientError("norm: there are no gradients")
        return total.sqrt()

    def clip_norm(self, limit: float) -> Gradients:
        """Return the gradients scaled down together so that their norm is at most ``limit``."""
        scale = (limit / self.norm().maximum(1e-12)).minimum(1.0)
        return self.map(lambda g: g * scale)

    def clip_value(self, limit: float) -> Gradients:
        """Return the gradients with every element limited to [-limit, limit]."""
        return self.map(lambda g: g.clamp(-limit, limit))
