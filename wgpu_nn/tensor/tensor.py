"""The public Tensor: a rank, a kind and a device around a backend's handle; immutable, with NumPy's habits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np

from wgpu_nn.autodiff import Autodiff, Tracked
from wgpu_nn.backends.base import Handle, Pending
from wgpu_nn.dtype import F16, F32, Bool, DType, Float, Int, Kind, Scalar
from wgpu_nn.errors import DeviceMismatchError, GradientError, KindError, ShapeError
from wgpu_nn.ops import Spec
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import printing
from wgpu_nn.tensor.annotation import TensorType
from wgpu_nn.tensor.device import Device
from wgpu_nn.tensor.indexing import Key, locate
from wgpu_nn.tensor.selections import Selections

if TYPE_CHECKING:
    from wgpu_nn.tensor.gradients import Gradients


class Tensor(Selections):
    """An n-dimensional array of one kind on one device.

    Made by ``wgpu_nn.tensor``, ``zeros``, ``randn`` and their like. ``Tensor[2]`` and ``Tensor[2, Int]`` annotate a
    rank and a kind.
    """

    __slots__ = ("__weakref__", "_handle", "_spec", "device")

    def __init__(self, device: Device, handle: Handle) -> None:
        self.device = device
        self._handle = handle
        self._spec: Spec = device.backend.spec(handle)

    def __class_getitem__(cls, item: int | tuple[int, Kind]) -> TensorType:
        rank, kind = item if isinstance(item, tuple) else (item, Float)
        if type(rank) is not int or type(kind) is not Kind:
            raise KindError(f"Tensor[...]: expected a rank and perhaps Float, Int or Bool, got {item!r}")
        return TensorType(rank, kind)

    # --- what it is ------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Shape:
        return self._spec.shape

    @property
    def dims(self) -> Shape:
        """The shape, under the name that the model page uses."""
        return self._spec.shape

    @property
    def dtype(self) -> DType:
        return self._spec.dtype

    @property
    def handle(self) -> Handle:
        """The backend's handle."""
        return self._handle

    @classmethod
    def of_root(cls, device: Device, handle: Handle) -> Tensor:
        """Return the tensor of a handle of the backend below all autodiff ones of ``device``."""
        backend = device.backend
        while isinstance(backend, Autodiff):
            handle, backend = Tracked(handle), backend.inner
        return cls(device, handle)

    @property
    def root(self) -> Handle:
        """The handle of the backend below all autodiff ones."""
        handle = self._handle
        while isinstance(handle, Tracked):
            handle = handle.value
        return handle

    def with_root(self, root: Handle) -> Tensor:
        """Return the same tensor, history included, around another handle of the same elements."""
        return Tensor(self.device, _around(self._handle, root))

    def run(self, op: str, *operands: Self | Scalar, **attrs: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        device = self.device
        given: list[Handle | Scalar] = []
        for x in operands:
            if isinstance(x, Tensor):
                if x.device is not device and x.device != device:
                    raise DeviceMismatchError(
                        f"{op}: expected tensors of one device, got {self.device} and {x.device}; move one with .to()"
                    )
                given.append(x._handle)
            else:
                given.append(x)
        return type(self)(device, device.backend.run(op, *given, **attrs))

    # --- out to the host -------------------------------------------------------------------------------------------
    def numpy(self) -> np.ndarray:
        """Return the elements as a new NumPy array; waits for the device."""
        return self.device.backend.download(self._handle)

    def numpy_later(self) -> Pending:
        """Begin to read the elements as they are now; ``result()`` is the array, ``ready()`` says whether it has come.

        The copy goes to the device at once, or with captured calls that wait for the submit that they share; nothing waits.
        """
        return self.device.backend.download_later([self._handle])[0]

    def item(self) -> Scalar:
        """Return the one element as a Python number; waits for the device."""
        if self.size != 1:
            raise ShapeError(f"item: expected a tensor of one element, got {list(self.shape)}; use .numpy()")
        return cast(Scalar, self.numpy().reshape(()).item())

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"bool: the truth of {list(self.shape)} elements is ambiguous; use .any() or .all()")
        return bool(self.item())

    def __len__(self) -> int:
        if not self.rank:
            raise ShapeError("len: a tensor of rank 0 has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return printing.text(self.numpy(), str(self.kind), self.dtype.name, self.device.backend.name)

    # --- kinds and devices -----------------------------------------------------------------------------------------
    def float(self) -> Tensor:
        """Return the elements as Floats: as float32 (or what the backend has), whatever its device makes by default."""
        return self.cast(self.device.backend.dtypes[Float])

    def half(self) -> Tensor:
        """Return the elements as float16: 11 bits, up to 65,504; larger ones become infinite."""
        return self.cast(F16)

    def int(self) -> Tensor:
        """Return the elements as Ints; Floats are truncated toward zero."""
        return self.cast(self.device.dtype(Int))

    def bool(self) -> Tensor:
        """Return which elements are not 0."""
        return self.cast(self.device.dtype(Bool))

    def to(self, where: Device | DType) -> Tensor:
        """Return the tensor on another device, its gradient history staying behind; or with another element type.

        Between a device and its ``autodiff()`` nothing is copied; between others the elements pass through the host.
        Halves stay halves, but on a device in double precision.
        """
        if isinstance(where, DType):
            return self.cast(where)
        if where == self.device:
            return self
        if where.root is not self.device.root:
            dtype = where.backend.dtypes[self.kind]
            dtype = F16 if self.dtype == F16 and dtype == F32 else dtype
            return Tensor(where, where.backend.upload(self.numpy(), dtype))
        return Tensor.of_root(where, self.root)

    # --- gradients -------------------------------------------------------------------------------------------------
    def _autodiff(self, what: str) -> Autodiff:
        backend = self.device.backend
        if not isinstance(backend, Autodiff):
            raise GradientError(
                f"{what}: expected a tensor of an autodiff device, got one of {self.device}; use device.autodiff()"
            )
        return backend

    def require_grad(self) -> Tensor:
        """Return the same elements as a leaf: ``backward`` will give their gradient."""
        if self.kind is not Float:
            raise KindError(f"require_grad: expected a Float tensor, got {self.kind}; only Floats have gradients")
        return Tensor(self.device, self._autodiff("require_grad").require_grad(self._handle))

    def detach(self) -> Tensor:
        """Return the same elements without history: no gradient flows through."""
        backend = self.device.backend
        return Tensor(self.device, backend.detach(self._handle)) if isinstance(backend, Autodiff) else self

    def inner(self) -> Tensor:
        """Return the same elements on the device below, without this level's history."""
        self._autodiff("inner")
        return Tensor(self.device.inner(), self._handle.value)

    def backward(self, seed: Tensor | None = None) -> Gradients:
        """Return the gradients of this tensor with respect to every leaf that it depends on.

        ``seed`` is the gradient of this tensor itself, on the inner device; 1 if it has one element.
        """
        from wgpu_nn.tensor.gradients import Gradients

        backend = self._autodiff("backward")
        found = backend.backward(self._handle, None if seed is None else seed._handle)
        inner = self.device.inner()
        return Gradients({node: Tensor(inner, handle) for node, handle in found.items()})

    # --- indexing --------------------------------------------------------------------------------------------------
    def __getitem__(self, key: Key) -> Self:
        place = locate(self, key)
        out = self.slice(place.ranges)
        if place.select is not None:
            dim, index = place.select[0], cast(Self, place.select[1])
            flat = index.reshape(-1)
            shape = (*out.shape[:dim], *index.shape, *out.shape[dim + 1 :])
            out = out.index_select(dim, flat).reshape(_with_new(shape, place.dropped, place.added, index.rank, dim))
            if place.apart is None:
                return out
            first = range(place.apart, place.apart + index.rank)
            return out.permute([*first, *(d for d in range(out.rank) if d not in first)])
        return out.reshape(_with_new(out.shape, place.dropped, place.added, 1, -1))

    def set(self, key: Key, value: Self | Scalar) -> Self:
        """Return a copy with the elements that ``key`` names replaced by ``value``, which may broadcast."""
        place = locate(self, key)
        if place.select is not None:
            raise ShapeError("set: expected integers and slices, got an index tensor; use scatter_add or where")
        region = tuple(count for _, _, count in place.ranges)
        given = value if isinstance(value, Tensor) else self.run("full", value, shape=(), dtype=self.dtype)
        seen = _with_new(region, place.dropped, place.added, 1, -1)
        return self.slice_assign(place.ranges, given.expand(seen).reshape(region))


def _around(handle: Handle, root: Handle) -> Handle:
    # NOTE: a function of its own: a recursive closure is a reference cycle, which would hold the root until collected.
    return Tracked(_around(handle.value, root), handle.node) if isinstance(handle, Tracked) else root


def _with_new(shape: Shape, dropped: Sequence[int], added: Sequence[int], spread: int, at: int) -> Shape:
    """Return ``shape`` without the axes that integers removed, and with those that None added.

    An index tensor put ``spread`` axes where axis ``at`` was.
    """
    out: list[int] = []
    source = 0
    axis = 0
    while source < len(shape):
        count = spread if axis == at else 1
        if axis not in dropped:
            out += shape[source : source + count]
        source += count
        axis += 1
    for position in added:
        out.insert(position, 1)
    return tuple(out)


Name = TypeVar("Name")


def read_later(tensors: Mapping[Name, Tensor]) -> dict[Name, Pending]:
    """Begin to read tensors as they are now, those of a device together; see ``Tensor.numpy_later``."""
    found: dict[Name, Pending] = {}
    for device in {id(t.device.backend): t.device for t in tensors.values()}.values():
        here = {name: t.handle for name, t in tensors.items() if t.device.backend is device.backend}
        found |= zip(here, device.backend.download_later(list(here.values())), strict=True)
    return {name: found[name] for name in tensors}
