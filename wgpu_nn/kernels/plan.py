"""What planners work with: views of buffers, the target's traits, and the site that takes their launches."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from wgpu_nn.dtype import DType, Float, Scalar
from wgpu_nn.errors import DeviceLimitError
from wgpu_nn.gpu import Kernel
from wgpu_nn.ops import Spec
from wgpu_nn.shape import Shape, is_row_major, row_major, size

Grid = tuple[int, int, int]
Words = tuple[int, ...]
# Makes a kernel's text from what distinguishes it, and from its sizes if those are to be constants.
Template = Callable[[Any, "Words | None"], Kernel]

BINDING = 256  # bytes: the largest alignment that a device may ask of a binding's start
MOST_GROUPS = 65535  # workgroups per dimension that every WebGPU device allows
WORTH = 1 << 18  # elements of an operand from which bandwidth, not the launch, is what a variant may save
# NOTE: llvmpipe (Mesa 22) ends an invocation's loops, silently, after 65,535 iterations in all. Planners keep every
# invocation of a software adapter below this.
MOST_TURNS = 32768


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How elements lie in a buffer. Offset and strides count elements; strides may be 0 or negative.

    Equal ones are one object, as ``layout`` makes them: what is kept by layouts is found by their identity.
    """

    shape: Shape
    strides: Shape
    offset: int
    dtype: DType
    spec: Spec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", Spec(self.shape, self.dtype))


@functools.lru_cache(1 << 14)
def layout(shape: Shape, strides: Shape, offset: int, dtype: DType) -> Layout:
    """Return the layout of elements that lie so."""
    # NumPy's integers equal Python's, which whoever asks next is to get.
    return Layout(tuple([int(n) for n in shape]), tuple([int(n) for n in strides]), int(offset), dtype)


@functools.lru_cache(1 << 12)
def plain(shape: Shape, dtype: DType) -> Layout:
    """Return the layout of elements in row-major order, from the start of a buffer on."""
    return layout(shape, row_major(shape), 0, dtype)


# Not frozen: every op makes one, and a frozen one takes twice as long to make. Nobody changes it.
@dataclass(slots=True, eq=False)
class View:
    """Elements of a buffer seen as a tensor.

    ``buffer`` is whatever the site hands out: a real buffer, or a number in a plan.
    """

    buffer: Any
    layout: Layout

    @property
    def shape(self) -> Shape:
        """The sizes of all axes."""
        return self.layout.shape

    @property
    def strides(self) -> Shape:
        """The elements from one to the next along each axis."""
        return self.layout.strides

    @property
    def offset(self) -> int:
        """The elements before the first."""
        return self.layout.offset

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.layout.dtype

    @property
    def spec(self) -> Spec:
        """The shape and element type."""
        return self.layout.spec

    @property
    def size(self) -> int:
        """The number of elements."""
        return size(self.layout.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the elements."""
        return self.dtype.nbytes * self.size

    @property
    def start(self) -> int:
        """The bytes before the first element."""
        return self.dtype.nbytes * self.offset

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return self.strides == row_major(self.shape) or is_row_major(self.shape, self.strides)

    def lent(self) -> View:
        """Return the same view on a lease of its own; see Buffer.lend."""
        return View(self.buffer.lend(), self.layout)

    def seen(self, shape: Shape, strides: Shape, offset: int = 0) -> View:
        """Return another view of the same buffer; ``offset`` is added."""
        return View(self.buffer, layout(shape, strides, self.offset + offset, self.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place in memory that whoever runs a plan will own or borrow."""

    role: str  # temp, arg, state, host, const, arena: memory that others lie in, or window: part of any of these
    nbytes: int
    parent: Slot | None = None
    offset: int = 0  # bytes from the parent's start

    def window(self, offset: int, nbytes: int) -> Slot:
        """Return part of it, in bytes from its start: what a launch is to see of it."""
        home = self.home
        return Slot("window", nbytes, home, offset + (self.offset if home is not self else 0))

    @property
    def home(self) -> Slot:
        """The slot itself, or what it is a window of."""
        return self.parent if self.role == "window" and self.parent is not None else self

    @property
    def root(self) -> Slot:
        """The memory that it lies in, which lives as long as it is used."""
        home = self.home
        return home.parent or home


@dataclass(frozen=True, slots=True)
class Number:
    """Stands for a number that a plan is given anew at each run: operand ``index`` of its op."""

    index: int


Input = View | Scalar | Number


class Late(int):
    """A word that is not known while a launch is planned: a Number as an element of ``dtype``."""

    number: Number
    dtype: DType

    @classmethod
    def of(cls, number: Number, dtype: DType) -> Late:
        """Return the word of a number."""
        word = cls(0)
        word.number, word.dtype = number, dtype
        return word


@dataclass(frozen=True, slots=True)
class Target:
    """What the choice of a variant depends on."""

    software: bool
    invocations: int  # most per workgroup
    storage: int  # bytes of workgroup memory
    bindings: int = 8  # storage buffers per kernel; the default is what every WebGPU device has
    binding: int = 1 << 27  # bytes that a kernel may see of a buffer; the same
    halves: bool = True  # whether WGSL may have f16; see storage.py

    @property
    def workgroup(self) -> int:
        """The workgroup size for kernels without workgroup memory."""
        return 64 if self.software else min(256, self.invocations)


class Site(Protocol):
    """Where planners put their work: the eager stream, or a captured step."""

    @property
    def target(self) -> Target:
        """The traits of the adapter."""
        ...

    @property
    def tuned(self) -> bool:
        """Whether variants may depend on every size, as in fused steps; else a new batch size must compile nothing new."""
        ...

    def empty(self, shape: Shape, dtype: DType) -> View:
        """Return a contiguous view of fresh elements."""
        ...

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        """Dispatch ``template(key, words)`` on the buffers of ``views``, one binding each, in order."""
        ...

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        """Return which candidate to take; the first is what the rules say, and always right."""
        ...


class Candidate(NamedTuple):
    """One way to do a task. ``plan(site, views)`` launches it on views like the task's: what is read, what is written."""

    name: str
    plan: Callable[[Site, Sequence[View]], None]


class Task(NamedTuple):
    """What candidates are measured on: the op by itself, without what is fused behind it."""

    family: str
    traits: str  # what else the choice depends on: layouts, window, groups
    sizes: tuple[int, ...]
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    terms: int  # products that each result adds up; rounding errors grow with it


T = TypeVar("T")


def chosen(site: Site, task: Task, found: Mapping[str, T], plan: Callable[[T, Site, Sequence[View]], None]) -> T:
    """Return the variant to take of those ``found``, by name, the rules' choice first.

    ``plan`` launches one on views like the task's. What touches few elements is not worth a measurement: the rules choose.
    """
    variants = list(found.values())
    if not site.tuned or len(variants) < 2 or max(v.size for v in (*task.reads, *task.writes)) < WORTH:
        return variants[0]
    return variants[site.choose(task, [Candidate(name, partial(plan, v)) for name, v in found.items()])]


def workgroups(site: Site) -> dict[str, int]:
    """Return the workgroup sizes that a kernel without workgroup memory may have, the rules' first."""
    sizes = (site.target.workgroup, *((16, 256) if site.target.software else (64, 128)))
    return {f"workgroups of {n}": n for n in dict.fromkeys(sizes) if n <= site.target.invocations}


def whole(shape: Shape, dtype: DType, buffer: object) -> View:
    """Return the contiguous view of a buffer that holds just ``shape``."""
    return View(buffer, plain(shape, dtype))


def grid(groups: int) -> Grid:
    """Spread workgroups over two dimensions where one does not hold them; bodies compute x + y * groups.x."""
    if groups <= MOST_GROUPS:
        return (groups, 1, 1)
    rows = -(-groups // MOST_GROUPS)
    return (-(-groups // rows), rows, 1)


class Packing:
    """Packs numbers, and arrays of the very element type, as the words that hold them, one after another."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        self._dtypes = [spec.dtype for spec in specs]
        self._arrays = [n for n, spec in enumerate(specs) if spec.shape]
        letters = [f"{4 * size(s.shape)}s" if s.shape else "f" if s.dtype.kind is Float else "i" for s in specs]
        self._struct = struct.Struct("<" + "".join(letters))

    def __call__(self, values: Sequence[Any]) -> bytes:
        given = list(values)
        for n in self._arrays:
            x: np.ndarray = given[n]
            given[n] = (x.astype(np.uint32) if x.dtype == np.bool_ else x).tobytes()
        try:
            return self._struct.pack(*given)
        except (OverflowError, TypeError, struct.error):  # numbers beyond f32 or i32, and truths of NumPy
            plain = [x.item() if isinstance(x, np.ndarray) else x for x in given]
            words = zip(plain, self._dtypes, strict=True)
            return b"".join(x if isinstance(x, bytes) else bits(x, t).to_bytes(4, "little") for x, t in words)


def bits(value: Scalar | Number, dtype: DType) -> int:
    """Return a number as the word that holds it in the element type of ``dtype``."""
    if isinstance(value, Number):
        return Late.of(value, dtype)
    if dtype.kind is Float:
        try:
            return struct.unpack("<I", struct.pack("<f", float(value)))[0]
        except OverflowError:  # beyond f32: infinity, as NumPy rounds
            return 0x7F800000 if value > 0 else 0xFF800000
    return int(value) & 0xFFFFFFFF


def check_turns(site: Site, op: str, turns: int) -> None:
    """Raise if one invocation would loop longer than a software adapter lets it."""
    if site.target.software and turns > 2 * MOST_TURNS - 1:
        raise DeviceLimitError(
            f"{op}: expected windows of at most {2 * MOST_TURNS - 1} elements (llvmpipe's loop limit), got {turns}; "
            "use a GPU, or the NumPy device"
        )
