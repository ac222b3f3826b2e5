"""A bounded place between a thread that makes things and one that takes them; what the things are, others know."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

__all__ = ["Shelf", "ahead"]

T = TypeVar("T")


class Shelf(Generic[T]):
    """Where a reading thread lays things down: at most ``room`` of them, then the end or what went wrong."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ready: deque[T] = deque()
        self.changed = threading.Condition()
        self.ended = False
        self.failure: BaseException | None = None
        self.abandoned = False

    def fill(self, things: Generator[T, None, None]) -> None:
        """Lay down ``things`` until they end, fail, or nobody wants them any more; runs in the reading thread."""
        failure: BaseException | None = None
        try:
            with closing(things):
                for thing in things:
                    with self.changed:
                        self.changed.wait_for(lambda: self.abandoned or len(self.ready) < self.room)
                        if self.abandoned:
                            return
                        self.ready.append(thing)
                        self.changed.notify_all()
        except BaseException as error:
            failure = error
        finally:
            with self.changed:
                self.ended, self.failure = True, failure
                self.changed.notify_all()

    def take(self) -> Iterator[T]:
        """Iterate over what was laid down, then raise what ``fill`` met."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.ready or self.ended)
                if not self.ready:
                    break
                thing = self.ready.popleft()
                self.changed.notify_all()
            yield thing
        if self.failure is not None:
            raise self.failure

    def abandon(self) -> None:
        """Throw away what lies here, and let ``fill`` end."""
        with self.changed:
            self.abandoned = True
            self.ready.clear()
            self.changed.notify_all()


def ahead(sources: list[Generator[T, None, None]], room: int, stop: Callable[[], object]) -> Generator[T, None, None]:
    """Yield one thing of each source in turn, each read by a thread of its own, until the first of them ends.

    The threads live from the first thing to the last, or until this is closed. Where it does not come to the end, ``stop``
    is called first, to wake those that wait for someone else.
    """
    shelves = [Shelf[T](room) for _ in sources]
    # Daemon: a process that is told to exit does not wait for a slow file.
    threads = [
        threading.Thread(target=shelf.fill, args=(source,), name="wgpu_nn-loader", daemon=True)
        for shelf, source in zip(shelves, sources, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        taken = [shelf.take() for shelf in shelves]
        end = object()
        while True:
            for things in taken:
                thing = next(things, end)
                if thing is end:
                    return
                yield thing  # pyright: ignore[reportReturnType]
    except BaseException:
        stop()
        raise
    finally:
        for shelf in shelves:
            shelf.abandon()
        for thread in threads:
            if thread is not threading.current_thread():  # the garbage collector may close us from the thread itself
                thread.join()
