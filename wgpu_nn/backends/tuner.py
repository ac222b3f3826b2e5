"""Tuner: measures the candidates of a task on the user's adapter, checks them against the first, and remembers the best.

Each runs alone, on memory of its own that holds random numbers. What candidates there are is the planners' business.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from wgpu_nn import switches
from wgpu_nn.backends.choices import Choices
from wgpu_nn.dtype import DType, Float
from wgpu_nn.errors import DeviceError, DeviceLimitError, DeviceLostError, OutOfMemoryError
from wgpu_nn.gpu import Bound, Buffer, Gpu, Replay, Segment
from wgpu_nn.kernels import Grid, Target, Template, View, Words, whole
from wgpu_nn.kernels.plan import Candidate, Task
from wgpu_nn.kernels.storage import stored
from wgpu_nn.ops import Spec
from wgpu_nn.shape import Shape

log = logging.getLogger("wgpu_nn.autotune")

DROP = 1.5  # times the best: a candidate that takes as long after a round is not measured again
ROUNDS = 5
# What the rules chose stays, unless the best takes less time by this factor in all of so many runs side by side: a
# machine that others use must not talk us out of it.
MARGIN, DUELS = 1.05, 5
PERIOD = 65521  # random numbers, repeated: a prime, so that no two rows of a matrix are alike
SPAN, SPANS = 1 << 16, 64  # of larger results this much is compared, in parts spread from the first to the last element


class Limits(NamedTuple):
    """How long measuring may take: seconds of the clock, and the multiply-adds of a task beyond which rules choose.

    No candidate is begun for which there is no time, if it takes as long to compile, check and run as the longest before it.
    """

    choice: float  # to compile, check and time the candidates once
    rounds: float  # to time those that are left again, and as much for the best against the first
    process: float  # for all choices together
    work: float


SOFTWARE = Limits(choice=1.5, rounds=0.25, process=20.0, work=1e9)
GPU = Limits(choice=1.5, rounds=0.25, process=60.0, work=1e12)


class _Trial:
    """A candidate bound to memory. It is itself the site of its planner."""

    tuned = True

    def __init__(self, gpu: Gpu, target: Target, index: int) -> None:
        self.target, self.index = target, index
        self.best = math.inf  # seconds
        self._gpu = gpu
        self.bound: list[Bound] = []
        self._held: list[Buffer] = []

    def empty(self, shape: Shape, dtype: DType) -> View:
        spec = Spec(shape, dtype)
        buffer = self._gpu.pool.lease(spec.nbytes)
        self._gpu.stream.upload(
            buffer, _repeated(np.nan, spec.nbytes, dtype)
        )  # whoever reads what nobody wrote is caught
        self._held.append(buffer)
        return whole(shape, dtype, buffer)

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        if 0 not in grid:
            places = [Segment(v.buffer, 0, v.buffer.block.size) for v in views]
            self.bound.append(
                self._gpu.stream.bind(stored(template(key, words), views, self.target.halves), places, grid)
            )

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        return 0

    def run(self) -> None:
        """Launch all, and wait."""
        self._gpu.stream.replay(Replay.of(self.bound), (), None, submit=True)
        self._gpu.stream.sync()


class _Bench:
    """Memory like a task's: random numbers to read, and room for results."""

    def __init__(self, gpu: Gpu, task: Task) -> None:
        self._gpu, self._buffers = gpu, dict[int, Buffer]()
        extents: dict[int, int] = {}
        for v in (*task.reads, *task.writes):
            reach = sum((n - 1) * s for n, s in zip(v.shape, v.strides, strict=True) if s > 0)
            extents[id(v.buffer)] = max(extents.get(id(v.buffer), 0), v.offset + reach + 1)
        rng = np.random.default_rng(0)
        types = {id(v.buffer): v.dtype for v in (*task.reads, *task.writes)}
        for home, extent in extents.items():
            nbytes = types[home].nbytes * extent
            self._buffers[home] = gpu.pool.lease(nbytes)
            # An index or a mask is 0, which is right for both.
            some = rng.uniform(-1, 1, PERIOD) if types[home].kind is Float else 0.0
            gpu.stream.upload(self._buffers[home], _repeated(some, nbytes, types[home]))
        self.views = [View(self._buffers[id(v.buffer)], v.layout) for v in (*task.reads, *task.writes)]
        self._writes = self.views[len(task.reads) :]
        self._room = {self._buffers[id(v.buffer)]: (extents[id(v.buffer)], v.dtype) for v in task.writes}

    def blank(self) -> None:
        """Overwrite results, so that what a candidate leaves out is seen."""
        for buffer, (extent, dtype) in self._room.items():
            self._gpu.stream.upload(buffer, _repeated(np.nan, dtype.nbytes * extent, dtype))

    def results(self) -> list[np.ndarray]:
        """Return what was written; of much, parts."""
        out: list[np.ndarray] = []
        for v in self._writes:
            if v.size <= SPAN * SPANS:
                starts, count = [0], v.size
            else:
                starts, count = np.linspace(0, v.size - SPAN, SPANS).astype(int).tolist(), SPAN
            width = v.dtype.nbytes
            starts = [s - s % 2 for s in starts]  # whole words
            parts = [self._gpu.stream.read(v.buffer, v.start + width * s, -(-width * count // 4) * 4) for s in starts]
            out.append(np.frombuffer(b"".join(parts), v.dtype.numpy if v.dtype.kind is Float else np.float32))
        return out


def _repeated(some: float | np.ndarray, nbytes: int, dtype: DType) -> np.ndarray:
    """Return Floats over so many bytes, in whole words."""
    element = np.dtype(np.float16 if dtype.nbytes == 2 else np.float32)
    return np.resize(np.asarray(some, element), -(-nbytes // 4) * 4 // element.itemsize)


def agrees(got: np.ndarray, want: np.ndarray, terms: int) -> bool:
    """Whether sums of ``terms`` products of numbers in [-1, 1] differ by no more than their order explains.

    Rounding errors of a running sum grow as its length, and its result as the root of that; a lost product is larger.
    """
    rounding = 2e-3 if want.dtype == np.float16 else 1e-5  # two of f16's
    got, want = got.astype(np.float32), want.astype(np.float32)
    known = want[np.isfinite(want)]
    scale = float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if known.size else 0.0
    tolerance = (1e-5 + 5e-7 * math.sqrt(terms)) * scale
    return bool(np.allclose(got, want, rounding, tolerance, equal_nan=True))


class Tuner:
    """Chooses among candidates by measuring, as ``switches.autotune`` says; once for all sizes of a bucket."""

    def __init__(
        self,
        gpu: Gpu,
        target: Target,
        choices: Callable[[], Choices],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._gpu, self._target, self._open, self._clock = gpu, target, choices, clock
        self._limits = limits or (SOFTWARE if target.software else GPU)
        self._choices: Choices | None = None
        self._measured: set[str] = set()
        self._spent = 0.0
        self._lock = threading.RLock()

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        """Return which candidate to take: the one known to be best, else the one found to be, else the first."""
        mode = switches.autotune.value
        if mode == "off" or len(candidates) < 2:
            return 0
        with self._lock:
            if self._choices is None:
                self._choices = self._open()
            key, names = remembered_by(task, self._target), [c.name for c in candidates]
            known = self._choices.get(key) if mode == "on" or key in self._measured else None
            if known in names:
                return names.index(known)
            if self._spent >= self._limits.process or task.terms * task.writes[0].size > self._limits.work:
                log.info("%s: left to the rules: it, or what came before, would take long to measure", key)
                return 0
            start = self._clock()
            try:
                best = self._measure(key, task, candidates)
            except (OutOfMemoryError, DeviceLimitError) as error:
                log.info("%s: left to the rules: no room to measure (%s)", key, error)
                return 0
            finally:
                self._spent += self._clock() - start
            self._measured.add(key)
            self._choices.keep(key, names[best])
            return best

    def _measure(self, key: str, task: Task, candidates: Sequence[Candidate]) -> int:
        """Return the index of the best candidate."""
        start = self._clock()
        bench = _Bench(self._gpu, task)
        begun = self._clock()
        first = self._trial(bench, 0, candidates[0])
        want = bench.results()
        self._time(first)
        left, tried, longest = [first], 1, 0.0
        for n, candidate in enumerate(candidates[1:], 1):
            now = self._clock()
            longest, begun = max(longest, now - begun), now
            if now - start + longest > self._limits.choice:
                log.info("%s: no time for %d of %d candidates", key, len(candidates) - n, len(candidates))
                break
            try:
                trial = self._trial(bench, n, candidate)
                got = bench.results()
            except DeviceLostError:
                raise
            except DeviceError as error:
                log.info("%s: skipped %s, which %s refuses: %s", key, candidate.name, self._gpu.adapter, error)
                continue
            if not all(agrees(g, w, task.terms) for g, w in zip(got, want, strict=True)):
                warnings.warn(
                    f"autotune: {key}: expected {candidate.name} to agree with {candidates[0].name}, got other numbers on "
                    f"{self._gpu.adapter} ({self._gpu.adapter.driver}); it is not used. Please report this",
                    stacklevel=2,
                )
                continue
            self._time(trial)
            left.append(trial)
            tried += 1
        start = self._clock()
        for _ in range(ROUNDS):
            best = min(t.best for t in left)
            left = [t for t in left if t is first or t.best <= DROP * best]
            if len(left) == 1 or self._clock() - start + sum(t.best for t in left) > self._limits.rounds:
                break
            for trial in left:
                self._time(trial)
        best = min(left, key=lambda t: t.best)
        if best is not first and not self._wins(best, first):
            best = first
        log.info(
            "%s: %s takes %.3g ms, best of %d; the rules' %s %.3g ms",
            *(key, candidates[best.index].name, 1e3 * best.best, tried, candidates[0].name, 1e3 * first.best),
        )
        return best.index

    def _wins(self, trial: _Trial, first: _Trial) -> bool:
        """Whether a candidate is faster than the rules' choice every time that they run one after the other."""
        start = self._clock()
        for _ in range(DUELS):
            if self._clock() - start + first.best + trial.best > self._limits.rounds:
                return False
            if self._time(first) <= MARGIN * self._time(trial):
                return False
        return True

    def _trial(self, bench: _Bench, index: int, candidate: Candidate) -> _Trial:
        """Compile and bind a candidate, and run it once."""
        trial = _Trial(self._gpu, self._target, index)
        bench.blank()
        candidate.plan(trial, bench.views)
        trial.run()
        return trial

    def _time(self, trial: _Trial) -> float:
        """Run it once more; return how long that took, and note it if it is its best."""
        if "timestamp-query" in self._gpu.features:
            taken = sum(self._gpu.stream.timed(trial.bound))
        else:
            start = time.perf_counter()
            trial.run()
            taken = time.perf_counter() - start
        if taken > 0:  # some drivers' timestamps go astray now and then
            trial.best = min(trial.best, taken)
        return taken


def remembered_by(task: Task, target: Target) -> str:
    """Return what the choice for a task is remembered by."""
    kind = "software" if target.software else f"gpu {target.invocations} {target.storage}"
    trust = ", checked" if switches.checked_shaders else ""
    halves = [str(n) for n, v in enumerate((*task.reads, *task.writes)) if v.dtype.nbytes == 2]
    stored_so = f", f16 {' '.join(halves)}" if halves else ""
    return f"{task.family} {' x '.join(str(bucket(n)) for n in task.sizes)}, {task.traits}, {kind}{trust}{stored_so}"


def bucket(n: int) -> int:
    """Return the size that stands for ``n``: itself up to 16, else the next 1, or 1.5, times a power of two."""
    step = 1 << max(n.bit_length() - 2, 0)
    return n if n <= 16 else -(-n // step) * step
