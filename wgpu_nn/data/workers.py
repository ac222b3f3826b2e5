"""Worker processes that share out a job: started by spawn, watched, and gone when nobody needs them; reads no data itself."""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from wgpu_nn.errors import DataError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

__all__ = ["Crew", "Job", "Plan", "WorkerTraceback"]

# Seconds that a worker which was told to go has to do so by itself.
PATIENCE = 2.0

Plan: TypeAlias = Any
"""What an epoch's shares depend on: picklable, small, sent once an epoch."""


class Job(Protocol):
    """What workers do: worker w of n yields things w, w + n, w + 2n... of ``plan``. It is pickled once for each worker."""

    def share(self, plan: Plan, worker: int, workers: int) -> Generator[Any, None, None]:
        """Yield the share of ``worker``, in order."""
        ...


class WorkerTraceback(Exception):
    """The traceback of an exception in another process, as text: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"in a worker process:\n\n{self.args[0]}"


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a worker sends when it fails: a message and the traceback. The error itself may not be picklable."""

    message: str
    text: str


_DONE = "done"


class Crew:
    """Processes that each hold a copy of ``job`` and work on one plan after the other.

    They are started by spawn, on every system: a fork would copy locks that other threads hold. They leave Ctrl-C to
    their parent, and end when it closes their pipe, or dies. Raises DataError if ``job`` cannot be pickled.
    """

    def __init__(self, job: Job, workers: int) -> None:
        import multiprocessing

        try:
            pickled = pickle.dumps(job, protocol=5)
        except Exception as error:  # whatever the classes' own reductions raise
            raise DataError(
                f"DataLoader: expected a data set and functions that can be pickled, for worker processes, got "
                f"{type(error).__name__}: {error}; define them at the top of a module, or take kind='thread'"
            ) from error
        context = multiprocessing.get_context("spawn")
        self.idle = True
        self.ends: list[Connection] = []
        self.processes: list[SpawnProcess] = []
        try:
            for worker in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, worker, workers), name=f"wgpu_nn-loader-{worker}", daemon=True
                )
                self.ends.append(ours)
                process.start()
                theirs.close()  # so that a dead worker is an end of file
                self.processes.append(process)
            for worker in range(workers):
                self._send(worker, pickled)
        except BaseException:
            self.close()
            raise

    def begin(self, plan: Plan) -> list[Generator[Any, None, None]]:
        """Give ``plan`` to all, and return what each makes of its share."""
        self.idle = False
        message = pickle.dumps(plan, protocol=5)
        for worker in range(len(self.processes)):
            self._send(worker, message)
        return [self._results(worker) for worker in range(len(self.processes))]

    def _send(self, worker: int, message: bytes) -> None:
        try:
            self.ends[worker].send_bytes(message)
        except OSError as error:
            raise self._died(worker) from error

    def _results(self, worker: int) -> Generator[Any, None, None]:
        while True:
            try:
                result = _receive(self.ends[worker])
            except (EOFError, OSError) as error:
                raise self._died(worker) from error
            if isinstance(result, _Failed):
                raise DataError(result.message) from WorkerTraceback(result.text)
            if isinstance(result, str) and result == _DONE:
                return
            yield result

    def _died(self, worker: int) -> DataError:
        process = self.processes[worker]
        process.join(PATIENCE)
        code = process.exitcode
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            names = {s.value: s.name for s in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}"
        else:
            how = f"ended with exit status {code}"
        return DataError(
            f"DataLoader: expected batches from worker {worker} of {len(self.processes)}, but the process {how}; "
            "what it printed stands above. Was memory short? Does the script start its work under "
            "if __name__ == '__main__'?"
        )

    @property
    def alive(self) -> bool:
        """Whether all of the processes run."""
        return all(process.is_alive() for process in self.processes)

    def stop(self) -> None:
        """End the processes without waiting for them: whoever reads from them meets an end of file."""
        for process in self.processes:
            process.terminate()

    def close(self) -> None:
        """End the processes, and wait until they are gone."""
        self.stop()
        for end in self.ends:
            end.close()
        for process in self.processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _work(end: Connection, worker: int, workers: int) -> None:
    """Do one plan after the other until the parent hangs up; the first message is the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone, or wants no more
        pickled = end.recv_bytes()
        job = cache(lambda: pickle.loads(pickled))
        while True:
            for result in _made(job, end.recv_bytes(), worker, workers):
                _deliver(end, result)


def _made(job: Callable[[], Job], plan: bytes, worker: int, workers: int) -> Iterator[Any]:
    try:
        work = job()
    except Exception as error:  # whatever importing its modules and making it again raise
        what = f"got {type(error).__name__}: {error}; define its classes in a module that can be imported (a notebook is none)"
        yield _failed(
            f"DataLoader: expected a data set that a worker process can unpickle, {what}, or take kind='thread'", error
        )
        return
    try:
        yield from work.share(pickle.loads(plan), worker, workers)
        yield _DONE
    except DataError as error:
        yield _failed(str(error), error)
    except Exception as error:
        yield _failed(f"DataLoader: a worker process failed with {type(error).__name__}: {error}", error)


def _failed(message: str, error: Exception) -> _Failed:
    return _Failed(message, "".join(traceback.format_exception(error)).rstrip())


def _deliver(end: Connection, thing: object) -> None:
    """Send ``thing`` with its arrays beside the pickle, so that they are not copied into it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    end.send_bytes(pickle.dumps((head, [raw.nbytes for raw in raws])))
    for raw in raws:
        if raw.nbytes:
            end.send_bytes(raw)


def _receive(end: Connection) -> Any:
    head, sizes = pickle.loads(end.recv_bytes())
    buffers = [bytearray(size) for size in sizes]  # not bytes: arrays upon them can be written to
    for buffer in buffers:
        if buffer:
            end.recv_bytes_into(buffer)
    return pickle.loads(head, buffers=buffers)
