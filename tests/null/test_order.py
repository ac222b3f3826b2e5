"""The order of launches: what depends on what, and who runs beside whom; no device."""

from __future__ import annotations

import random

from wgpu_nn.gpu import Kernel
from wgpu_nn.graph.order import AHEAD, side_by_side
from wgpu_nn.graph.plan import Dispatch
from wgpu_nn.kernels.plan import Slot

A, B, C, D, E, F = (Slot("temp", 4) for _ in range(6))


def launch(name: str, reads: list[Slot], writes: list[Slot]) -> Dispatch:
    access = "r" * len(reads) + "w" * len(writes)
    return Dispatch(Kernel(name, "", access, False, "test"), (*reads, *writes), (1, 1, 1))


def ordered(*launches: Dispatch) -> str:
    """Names in order; what runs beside those before it is in small letters."""
    names = [(d.kernel.name, d.beside) for d in side_by_side(launches)]
    return " ".join(n.lower() if beside else n for n, beside in names)


def test_what_reads_the_same_runs_at_once() -> None:
    first = launch("MAKE", [], [A])
    assert ordered(first, launch("LEFT", [A], [B]), launch("NEXT", [B], [C]), launch("RIGHT", [A], [D])) == (
        "MAKE LEFT right NEXT"
    )


def test_a_chain_keeps_its_order() -> None:
    chain = [launch("ONE", [A], [B]), launch("TWO", [B], [C]), launch("THREE", [C], [D])]
    assert ordered(*chain) == "ONE TWO THREE"
    assert ordered() == ""


def test_memory_that_was_used_before_needs_a_barrier() -> None:
    # B is written again: whoever reads what was in it comes first, and the second writer waits.
    launches = [launch("MAKE", [A], [B]), launch("READ", [B], [C]), launch("AGAIN", [A], [B]), launch("LAST", [B], [D])]
    assert ordered(*launches) == "MAKE READ AGAIN LAST"


def test_parts_of_one_buffer_are_looked_at_as_a_whole() -> None:
    home = Slot("temp", 8)
    left, right = Slot("temp", 4, home, 0), Slot("temp", 4, home, 4)
    assert ordered(launch("LEFT", [A], [left]), launch("RIGHT", [A], [right])) == "LEFT RIGHT"
    assert ordered(launch("LEFT", [A], [left]), launch("OTHER", [A], [B])) == "LEFT other"
    window = left.window(0, 2)
    assert ordered(launch("LEFT", [A], [left]), launch("SEES", [window], [B])) == "LEFT SEES"


def test_the_one_that_waits_anyway_goes_before_the_one_that_need_not() -> None:
    # SUMS writes to an arena that is in use, GRAD to fresh memory: behind SUMS it needs no barrier.
    launches = [
        launch("USES", [A], [E]),
        launch("MAKE", [A], [B]),
        launch("GRAD", [B], [C]),
        launch("SUMS", [B], [E]),
        launch("LAST", [C, E], [F]),
    ]
    assert ordered(*launches) == "USES make SUMS grad LAST"


def test_nobody_is_put_off_for_long() -> None:
    waits = [launch("WAITS", [A], [B])]
    others = [launch(f"N{n}", [A], [Slot("temp", 4)]) for n in range(3 * AHEAD)]
    assert [d.kernel.name for d in side_by_side([*others, *waits])].index("WAITS") >= 2 * AHEAD


def test_random_launches_keep_what_depends_on_what_and_say_truly_who_needs_no_barrier() -> None:
    rng = random.Random(5)
    for _ in range(200):
        slots = [Slot("temp", 4) for _ in range(6)]
        launches: list[Dispatch] = []
        for n in range(rng.randrange(1, 14)):
            used = rng.sample(slots, rng.randrange(1, 4))
            split = rng.randrange(len(used))
            launches.append(launch(str(n), used[:split], used[split:]))
        got = side_by_side(launches)
        assert sorted(int(d.kernel.name) for d in got) == list(range(len(launches)))
        contents = [dict[Slot, str](), dict[Slot, str]()]
        for found, run in zip(contents, (launches, got), strict=True):
            for d in run:
                reads = [found.get(s, "") for s, a in zip(d.slots, d.kernel.access, strict=True) if a == "r"]
                for s, a in zip(d.slots, d.kernel.access, strict=True):
                    if a == "w":
                        found[s] = f"{d.kernel.name}({','.join(reads)},{found.get(s, '')})"
        assert contents[0] == contents[1]
        seen: dict[Slot, bool] = {}
        for n, d in enumerate(got):
            use = dict(zip(d.slots, d.kernel.access, strict=True))
            free = all(s not in seen if a == "w" else not seen.get(s) for s, a in use.items())
            assert not d.beside or (free and n > 0)
            seen |= {s: a == "w" for s, a in use.items()}
