"""@capture: a function of tensors, traced once per input signature and replayed as bound launches."""

from __future__ import annotations

import functools
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload, runtime_checkable

import numpy as np

from wgpu_nn import switches
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import check_range, kind_of_numpy
from wgpu_nn.errors import CaptureError, KindError
from wgpu_nn.graph import Program, Trace, simplify
from wgpu_nn.nn import Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.tensor import Cell, Device, Rng, Tensor, tensor
from wgpu_nn.train.captured import CapturedStep

P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class Holder(Protocol):
    """What holds cells, perhaps more of them as time goes by: an optimizer, or a sum of your own."""

    def cells(self) -> list[Cell]:
        """Return the cells that it holds now."""
        ...


State = Module | Holder | Cell | Device | Rng
Leaf = Tensor | np.ndarray
MOST_SENT = 1 << 14  # bytes of an array that goes up with a call's numbers; a larger one is uploaded as any tensor is


log = logging.getLogger("wgpu_nn.capture")


def cells_of(state: Sequence[State]) -> list[Cell]:
    """Return the cells of named state. A Device and an Rng have none: their counters are host numbers."""
    found: list[Cell] = []
    for s in state:
        if isinstance(s, Module):
            found += s.params()
        elif isinstance(s, Cell):
            found.append(s)
        elif isinstance(s, Holder):
            found += s.cells()
    return found


def _types(t: Tensor) -> tuple[str, str, int]:
    """Return a tensor's element type, that of Floats that are made beside it, and what runs its ops."""
    return (t.dtype.name, t.device.float_dtype.name, id(t.device.backend))


def _flatten(value: Any, leaves: list[Leaf]) -> Hashable:
    """Append the tensors and arrays in ``value`` to ``leaves``, and return its structure with their places."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return (value.shape, *_types(value), len(leaves) - 1)
    if isinstance(value, np.ndarray):
        leaves.append(cast(np.ndarray, value))
        return (value.shape, value.dtype.str, len(leaves) - 1)
    if isinstance(value, list | tuple):
        return (type(value), *(_flatten(v, leaves) for v in cast(Sequence[Any], value)))
    if isinstance(value, dict):
        return ("dict", *((k, _flatten(v, leaves)) for k, v in cast(dict[str, Any], value).items()))
    try:
        hash(value)
    except TypeError:
        raise CaptureError(
            f"capture: expected tensors and hashable values as arguments, got {type(value).__name__}"
        ) from None
    # 1, 1.0 and True are equal in Python, as are 0.0 and -0.0; here they are not.
    return ("value", type(value), repr(value) if isinstance(value, float) else value)


def _signature(args: tuple[Any, ...], leaves: list[Leaf]) -> Hashable | None:
    """Return quickly what tells calls with nothing but tensors and arrays, or one tuple of them, apart, and append these;
    None for other arguments."""
    alone = len(args) == 1 and type(args[0]) is tuple
    given = cast(tuple[Any, ...], args[0]) if alone else args
    found: list[Hashable] = [alone]
    for x in given:
        if type(x) is Tensor:
            found.append((x.shape, *_types(x)))
        elif type(x) is np.ndarray:
            found.append((x.shape, x.dtype.str))
        else:
            return None
    leaves += given
    return tuple(found)


def _goes_along(x: np.ndarray) -> bool:
    """Whether an array is sent with the call's numbers: a small one, and of whole words."""
    return 0 < x.nbytes <= MOST_SENT and x.dtype != np.float16


def _fitting(x: np.ndarray, root: Wgpu) -> np.ndarray:
    """Return an array in the device's element type; raise KindError for what it cannot hold, before the call does anything."""
    kind = kind_of_numpy(x.dtype)
    if kind is None:
        raise KindError(f"capture: expected arrays of numbers or truths, got elements of {x.dtype}")
    dtype = root.dtypes[kind]
    if x.dtype == dtype.numpy:
        return x
    check_range("capture", x, dtype)
    return x.astype(dtype.numpy)


def _rebuilt(value: Any, leaves: Sequence[Tensor], count: list[int]) -> Any:
    """Return ``value`` with its tensors and arrays replaced, in order."""
    if isinstance(value, Tensor | np.ndarray):
        count[0] += 1
        return leaves[count[0] - 1]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rebuilt(v, leaves, count) for v in cast(tuple[Any, ...], value)))
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(v, leaves, count) for v in cast(Sequence[Any], value))
    if isinstance(value, dict):
        return {k: _rebuilt(v, leaves, count) for k, v in cast(dict[str, Any], value).items()}
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """How to capture; see ``capture``."""

    state: tuple[State, ...] = ()
    fuse: bool | None = None
    check: bool = False
    most: int = 8
    together: int = 1


class Captured(Generic[P, R]):
    """A captured function, called like the function itself; see ``capture``."""

    def __init__(self, fn: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self._name: str = getattr(fn, "__qualname__", type(fn).__name__)
        self._fn, self._options = fn, options
        self._baked: dict[str, tuple[Any, Any]] = {}
        self._home: tuple[int, Wgpu | None] | None = None  # the GPU of the state, as long as no cell is touched
        self._steps: OrderedDict[Hashable, CapturedStep] = OrderedDict()
        self._lock = threading.RLock()

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        """Let a captured function be a method; its module is then part of the signature, by identity."""
        return self if instance is None else functools.partial(cast(Any, self), instance)

    @property
    def steps(self) -> list[CapturedStep]:
        """The signatures captured so far, the one used last at the end."""
        return list(self._steps.values())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        leaves: list[Leaf] = []
        shape = _signature(args, leaves) if not kwargs else None
        if shape is None:
            shape = _flatten((args, kwargs), leaves)
        has_arrays = any(isinstance(x, np.ndarray) for x in leaves)
        if has_arrays and not all(isinstance(x, Tensor) or _goes_along(x) for x in leaves):
            leaves = self._uploaded(leaves, _goes_along)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        root = self._root(tensors)
        if root is None or not switches.capture or root.recorder is not None:
            if has_arrays:
                args, kwargs = _rebuilt((args, kwargs), self._uploaded(leaves), [0])
            return self._fn(*args, **kwargs)
        arrays = [_fitting(x, root) for x in leaves if isinstance(x, np.ndarray)]
        fuse = bool(switches.fusion) if self._options.fuse is None else self._options.fuse
        modes = (switches.checked_shaders, switches.half_sums, switches.deterministic)
        key = (shape, id(root), id(root.gpu.stream), fuse, switches.autotune.value, *map(bool, modes))
        with self._lock:
            step = self._steps.get(key)
            if step is None:
                step = self._capture(root, args, kwargs, leaves, arrays, fuse)
                self._steps[key] = step
                if len(self._steps) > self._options.most:
                    self._steps.popitem(last=False)
                    log.warning(
                        "capture %s: more than %d signatures; the oldest step is dropped, and will be captured again if it "
                        "returns. Fewer shapes, or a larger capture(most=...), avoid that",
                        self._name,
                        self._options.most,
                    )
            else:
                self._steps.move_to_end(key)
                self._warn_of_baked()
            results = step(tensors, arrays, self._name, self._options.check)
        return cast(R, _rebuilt(step.result, results, [0]))

    def _bake(self) -> None:
        """Note the Python numbers of the function's closure: a trace takes them as they are now."""
        code, closure = getattr(self._fn, "__code__", None), getattr(self._fn, "__closure__", None)
        names = code.co_freevars if code is not None else ()
        for name, cell in zip(names, closure or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if isinstance(value, bool | int | float):
                self._baked[name] = (cell, value)

    def _warn_of_baked(self) -> None:
        for name, (cell, value) in self._baked.items():
            if cell.cell_contents is not value and cell.cell_contents != value:
                warnings.warn(
                    f"capture {self._name}: {name} was {value!r} when the function was captured, and its steps keep that; "
                    f"it is {cell.cell_contents!r} now. Pass it as an argument, or keep it in a Cell",
                    stacklevel=3,
                )
                self._baked[name] = (cell, cell.cell_contents)

    def _root(self, tensors: Sequence[Tensor]) -> Wgpu | None:
        """Return the GPU that the tensors, or else the state, are on; None on NumPy."""
        if tensors:
            roots = {id(r): r for r in [t.device.root for t in tensors]}
        elif self._home is not None and self._home[0] == Cell.touched:
            return self._home[1]
        else:
            devices = [c.device for c in cells_of(self._options.state)]
            devices += [s for s in self._options.state if isinstance(s, Device)]
            roots = {id(d.root): d.root for d in devices}
        gpus = [r for r in roots.values() if isinstance(r, Wgpu)]
        if len(gpus) > 1:
            raise CaptureError(f"capture {self._name}: expected tensors of one GPU, got {len(gpus)}; move them to one")
        found = gpus[0] if gpus and len(roots) == 1 else None
        if not tensors:
            self._home = (Cell.touched, found)
        return found

    def _devices(self, leaves: Sequence[Leaf]) -> list[Device]:
        """Return the devices of tensors and of the state, in that order."""
        state = self._options.state
        found = [*(x.device for x in leaves if isinstance(x, Tensor)), *(c.device for c in cells_of(state))]
        return [*found, *(s for s in state if isinstance(s, Device))]

    def _uploaded(self, leaves: Sequence[Leaf], stays: Callable[[np.ndarray], bool] = lambda x: False) -> list[Any]:
        """Return arguments with arrays as tensors of the call's device, but for those that may stay."""
        devices = self._devices(leaves)
        if not devices:
            raise CaptureError(
                f"capture {self._name}: expected a tensor, or state, that says where arrays go; name the Device in state"
            )
        return [x if isinstance(x, Tensor) or stays(x) else tensor(x, devices[0]) for x in leaves]

    def _capture(
        self, root: Wgpu, args: Any, kwargs: Any, leaves: list[Leaf], arrays: list[np.ndarray], fuse: bool
    ) -> CapturedStep:
        if self._steps:
            log.info("capture %s: new signature %s", self._name, [list(x.shape) for x in leaves])
        self._bake()
        trace = Trace(root.dtypes, root.spec)
        optimizers = [s for s in self._options.state if isinstance(s, Optimizer)]
        before = [(o, o.steps) for o in optimizers]
        devices = self._devices(leaves)
        rngs = {id(r): r for r in (*(d.rng for d in devices), *(s for s in self._options.state if isinstance(s, Rng)))}
        streams = [(r, r.stream) for r in rngs.values()]
        try:
            sent = list(arrays)
            of_each_call = iter(trace.host(lambda: list(sent)) if sent else ())
            inputs = [
                Tensor.of_root(x.device, trace.input("arg", root.spec(x.root)))
                if isinstance(x, Tensor)
                else Tensor.of_root(devices[0], next(of_each_call))
                for x in leaves
            ]
            given_args, given_kwargs = _rebuilt((args, kwargs), inputs, [0])
            with root.recording(trace):
                result = cast(Any, self._fn)(*given_args, **given_kwargs)
            outputs: list[Tensor] = []
            _flatten(result, cast(list[Leaf], outputs))
            if any(isinstance(x, np.ndarray) for x in outputs):
                raise CaptureError(
                    f"capture {self._name}: expected tensors as results, got an array, which never changes"
                )
            updates = {ref: trace.cells[cell].root for ref, cell in trace.states.items()}
            program = simplify(trace.program([t.root for t in outputs], updates))
            self._check_named(trace, program)
            of_results = [t.device for t in outputs]
            return CapturedStep(root, trace, program, result, of_results, sent, fuse, self._options.together)
        except BaseException:
            trace.open = False
            for o, steps in before:
                o.steps = steps
            for r, stream in streams:
                r.stream = stream
            raise

    def _check_named(self, trace: Trace, program: Program) -> None:
        named = {id(c) for c in cells_of(self._options.state)}
        for ref, new in program.updates.items():
            cell = trace.states[ref]
            if new != ref and id(cell) not in named:
                raise CaptureError(
                    f"capture {self._name}: replaces a {type(cell).__name__} of shape {list(cell.shape)} that is not in "
                    "state; name what holds it: capture(state=[model, optim])"
                )


@overload
def capture(fn: Callable[P, R], /) -> Captured[P, R]: ...
@overload
def capture(
    *,
    state: Sequence[State] = (),
    fuse: bool | None = None,
    check: bool = False,
    most: int = 8,
    calls_per_submit: int = 1,
) -> Callable[[Callable[P, R]], Captured[P, R]]: ...
def capture(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    state: Sequence[State] = (),
    fuse: bool | None = None,
    check: bool = False,
    most: int = 8,
    calls_per_submit: int = 1,
) -> Any:
    """Trace a function of tensors once per signature of its arguments, and replay it with one submit.

    ``state`` names the modules, optimizers, cells and other holders of cells whose tensors the function replaces. What
    it reads besides is baked: Python numbers of its closure keep the value that they had when it was traced. Learning
    rates, step counts and random streams are not baked. On NumPy, and with ``switches.capture`` off, the function runs
    as it is. Arguments are tensors, NumPy arrays and hashable values. An array is a tensor inside, on the device of the
    other tensors or else of the state; a small one goes up with the numbers of the call, which costs no upload of its own.

    ``fuse`` decides about fusion (by default ``switches.fusion``); without, results equal eager mode's bit for bit.
    ``check`` also launches the ops one by one at every call, slowly, and raises CaptureError naming the first op that
    differs. ``most`` bounds the number of signatures kept. With ``calls_per_submit`` above 1 so many calls go to the GPU
    together, in one submit, which is what a loop of small steps spends most of its host time on; a read or a sync
    sends those that wait. Raises CaptureError, naming op and line, where the function reads a value.
    """
    if most < 1 or calls_per_submit < 1:
        raise CaptureError(
            f"capture: expected most and calls_per_submit of 1 or more, got {most} and {calls_per_submit}"
        )
    options = Options(tuple(state), fuse, check, most, calls_per_submit)
    return Captured(fn, options) if fn is not None else lambda f: Captured(f, options)
