"""Writes checkpoints beside the training, in a thread of its own; what is in them, others know."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wgpu_nn.record import save_checkpoint
from wgpu_nn.train.checkpoint import Taken, check_finite


class Writer:
    """Writes one checkpoint at a time to the run in the folder ``run``; the ``keep`` newest and the best stay.

    The training thread begins the reads, and hands the arrays over when they have come: nothing waits for the device but
    ``finish``. What goes wrong in the thread (a full disk, a weight that is not finite) is raised by the next call; the
    checkpoints of before are whole then.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self._run, self._keep = run, keep
        self._coming: tuple[Taken, Collection[int]] | None = None
        self._writing: Future[Path] | None = None
        self._pool = ThreadPoolExecutor(1, "wgpu_nn-checkpoint")

    def save(self, taken: Taken, spared: Collection[int]) -> None:
        """Write a checkpoint once its tensors have come, and leave those of ``spared`` steps; waits for the one before."""
        self.finish()
        self._coming = (taken, spared)
        self.turn()

    def turn(self) -> None:
        """Hand over what has come, and raise what went wrong; waits for nothing."""
        if self._writing is not None and self._writing.done():
            done, self._writing = self._writing, None
            done.result()
        if self._coming is not None and self._writing is None and self._coming[0].ready():
            self._hand_over()

    def finish(self) -> None:
        """Wait until everything is written, and raise what went wrong."""
        if self._coming is not None:
            self._hand_over()
        if self._writing is not None:
            done, self._writing = self._writing, None
            done.result()

    def close(self) -> None:
        """End the thread, after what it writes at present; what was not handed over is not written."""
        self._coming = None
        self._pool.shutdown()

    def _hand_over(self) -> None:
        assert self._coming is not None
        (taken, spared), self._coming = self._coming, None
        if self._writing is not None:
            before, self._writing = self._writing, None
            before.result()
        self._writing = self._pool.submit(self._write, taken, taken.arrays(), spared)

    def _write(self, taken: Taken, arrays: dict[str, dict[str, np.ndarray]], spared: Collection[int]) -> Path:
        check_finite(taken.step, arrays)
        return save_checkpoint(self._run, taken.step, arrays, taken.state, self._keep, spared)
