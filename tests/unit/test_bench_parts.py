"""Parts of the benchmarks that need no GPU: rounds, tables, JSON, and peers in processes of their own.

This module is a peer itself: ``engines`` below is what its process loads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

import pytest

from wgpu_nn.bench import compare, report, step
from wgpu_nn.bench.engine import Engine, Facts, Label
from wgpu_nn.bench.peers import Peer, PeerError, opened
from wgpu_nn.bench.timing import Round, alternating, steps_of_a_round, time_round
from wgpu_nn.errors import ConfigError

LOSSES = [2.0, 1.5]


class Fake:
    """An engine that answers without work; ``trouble`` says what is wrong with it."""

    def __init__(self, label: Label, wall_us: float = 100.0, trouble: str = "") -> None:
        self.label, self._wall, self._trouble = label, wall_us, trouble

    def outcome(self) -> list[float]:
        return {"wrong": [2.0, 1.6], "nan": [math.nan, 1.5]}.get(self._trouble, LOSSES)

    def facts(self) -> Facts:
        if self._trouble == "raises":
            raise ValueError("no such thing\nand pages more")
        if self._trouble == "dies":
            os._exit(3)
        return Facts(launches=7)

    def round(self, steps: int) -> Round:
        return Round(steps, 10.0, self._wall)


def label(key: str = "fake", work: str = "train") -> Label:
    return Label(key, key.replace("-", " "), work, ("a", "peer"))


def engines(batch: int) -> tuple[list[Engine], str]:
    if batch == 13:
        raise RuntimeError("no luck")
    return [Fake(label(trouble), trouble=trouble) for trouble in ("fine", "raises", "dies")], f"fake, batch {batch}"


FAKE = Peer("fake", ("json",), "pip install fake", "tests.unit.test_bench_parts")


def test_a_peer_answers_from_its_process_and_its_failures_are_one_line() -> None:
    with opened(FAKE, 4) as (found, about):
        fine, raises, dies = found
        assert about == "fake, batch 4" and fine.label == label("fine")
        assert fine.outcome() == LOSSES and fine.facts() == Facts(launches=7) and fine.round(5) == Round(5, 10.0, 100.0)
        with pytest.raises(PeerError, match=r"^ValueError: no such thing \(test_bench_parts.py:\d+\)$"):
            raises.facts()
        assert fine.outcome() == LOSSES
        with pytest.raises(PeerError, match="process ended, with status 3"):
            dies.facts()
        with pytest.raises(PeerError, match="process ended, with status 3"):
            fine.outcome()


def test_a_peer_that_does_not_load_says_why() -> None:
    with pytest.raises(PeerError, match="RuntimeError: no luck"), opened(FAKE, 13):
        pass


def test_a_missing_peer_says_what_to_install() -> None:
    peer = Peer("x", ("json", "no_such_package", "nor_this"), "pip install x", "none")
    message = "needs no_such_package and nor_this, not installed; pip install x"
    with pytest.raises(PeerError, match=message), opened(peer, 1):
        pass


def test_rounds_count_calls_and_wait_once_for_all_of_them() -> None:
    events: list[str] = []
    found = time_round(lambda: events.append("step"), lambda: events.append("wait"), 40)
    assert events == ["wait", *["step", "wait"] * 4, *["step"] * 40, "wait"]
    assert found.steps == 40 and found.wall_us > 0 and found.host_us > 0


def test_rounds_alternate_and_turn() -> None:
    assert list(alternating("abc", 3)) == list("abccbaabc")
    assert [steps_of_a_round(us) for us in (1.0, 1000.0, 1e9)] == [1000, 250, 2]


def test_the_list_of_peers_is_checked() -> None:
    assert [p.name for p in step.peers("tinygrad, torch,tinygrad")] == ["tinygrad", "torch"]
    assert step.peers("") == ()
    with pytest.raises(argparse.ArgumentTypeError, match="torch, tinygrad, got 'jax'"):
        step.peers("torch,jax")


def test_losses_that_differ_or_are_no_numbers_fail() -> None:
    for trouble, agrees in (("", True), ("wrong", False), ("nan", False)):
        row = compare.Row(Fake(label(), trouble=trouble), False, 1e-4)
        compare.compare(row, LOSSES)
        assert row.agrees == agrees, trouble


def test_ratios_say_how_many_times_faster_and_only_among_the_same_work() -> None:
    ours, peer, other = (
        compare.Row(Fake(label(work=work), wall_us), False, 1e-4)
        for work, wall_us in (("train", 50.0), ("train", 200.0), ("infer", 10.0))
    )
    assert ours.over(peer) is None  # not timed yet
    compare.time_rows([ours, peer, other], 3, None)
    assert ours.over(peer) == 4.0 and peer.over(ours) == 0.25 and ours.over(other) is None
    assert len(ours.rounds) == 3 and ours.rounds[0].steps == 1000


def test_numbers_in_tables_are_short() -> None:
    assert [report.count(x) for x in (None, 19, 0.1234, 99.96, 274_001.4, 12_300_000.0)] == [
        "-", "19", "0.123", "100", "274,001", "12.3M",
    ]  # fmt: skip
    assert [report.ratio(x) for x in (None, 0.2483, 12.0, 274.4)] == ["-", "0.25x", "12x", "274x"]


def test_a_table_is_aligned_and_wraps_remarks() -> None:
    lines = report.table([("", "engine"), ("wall", "us")] + [("", "x")], [("a", "1,000", "2"), ("longer", "no " * 60)])
    assert lines[:3] == ["         wall", "engine     us  x", "a       1,000  2"]
    assert len(lines) == 5 and lines[4].startswith(" " * 8 + "no") and max(map(len, lines)) <= 110


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    report.save(tmp_path / "x.json", {"a": [math.nan, (math.inf, 1.5)], "b": None})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, [None, 1.5]], "b": None}
    with pytest.raises(ConfigError, match="choose another"):
        report.save(tmp_path, {})
    with pytest.raises(ConfigError, match="expected a folder"):
        report.writable(tmp_path / "none" / "x.json")


def test_the_widest_table_fits_110_columns() -> None:
    titles = ["captured inference", "torch CUDA", "torch CUDA graph", "torch CPU", "tinygrad WEBGPU"]
    rows = [
        compare.Row(Fake(Label(t, t, "train", ("torch", "graph")), 274_000.0 if n else 100.0), n > 0, 1e-4)
        for n, t in enumerate(titles)
    ]
    for row in rows:
        compare.compare(row, LOSSES)
        row.facts = Facts(launches=156, submits=156, device_us=274_000.0)
    compare.time_rows(rows, 1, 1)
    times = {"import_s": 0.5, "device_s": 1.0, "step_s": 12.0}
    found = {
        "environment": {"adapter": {"name": "GPU", "kind": "k", "api": "a", "driver": ""}, "peers": {}},
        "settings": {"batch": 64},
        "first_call": {"as_found": times, "again": times},
        "rows": [step.described(row, rows, 64) for row in rows],
        "absent": {"jax": "needs " + "packages " * 30},
    }
    lines = step.lines(found, rows, True)
    assert max(map(len, lines)) <= 110 and any(line.count("2740x") == 4 for line in lines)
    short = step.markdown(found, rows)
    assert short[0].startswith("| engine ") and len({len(line) for line in short[:7]}) == 1 and "jax" not in short[7]
    groups = step.chart(found).groups
    assert [(g.title, [b.engine for b in g.bars]) for g in groups] == [("training", titles), ("inference", [])]
    assert [b.peer for b in groups[0].bars] == [False, True, True, True, True]
