"""``wgpu-nn bench step``: a training step of the spec page's CNN, ours in every mode and the peers', numerics first."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from wgpu_nn.bench import report
from wgpu_nn.bench.compare import Row, compare, peers_of, positive, time_rows
from wgpu_nn.bench.peers import Peer, PeerError, opened
from wgpu_nn.bench.plot import Bar, Chart, Group
from wgpu_nn.bench.step_work import CLASSES, DROPOUT, HIDDEN, IMAGE, INFER, RATE, STEPS, TRAIN
from wgpu_nn.tensor import Device

TORCH = Peer("torch", ("torch",), "pip install torch", "wgpu_nn.bench.step_torch")
TINYGRAD = Peer("tinygrad", ("tinygrad", "pydawn"), "pip install tinygrad dawn-python", "wgpu_nn.bench.step_tinygrad")
PEERS = {peer.name: peer for peer in (TORCH, TINYGRAD)}

TOLERANCE = 1e-4  # of a loss near 2.3: forty units in the last place of f32 for each of six steps
ROUNDS = 9
HEADS = (
    ("", "engine"), ("", "launches"), ("", "submits"), ("host", "us"), ("device", "us"), ("wall", "us"),
    ("images", "/s"), ("", "losses"),
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn bench step``."""
    parser.add_argument("--batch", type=positive, default=64, metavar="N", help="images of a step (64)")
    parser.add_argument(
        "--against", type=peers, default=(), metavar="PEERS", help=f"peers to run, of {','.join(PEERS)} (none)"
    )
    parser.add_argument("--device", default="wgpu", help="our device: wgpu, wgpu:<index or name> (the best adapter)")
    parser.add_argument("--steps", type=positive, metavar="N", help="steps of a round (as many as take 0.25 s)")
    parser.add_argument(
        "--rounds", type=positive, default=ROUNDS, metavar="N", help=f"rounds of each engine ({ROUNDS})"
    )
    parser.add_argument("--launches", action="store_true", help="show the GPU time of each launch of the captured step")
    report.arguments(parser)


def peers(text: str) -> tuple[Peer, ...]:
    """Return the peers that a list like ``torch,tinygrad`` names."""
    return peers_of(PEERS, text)


def run(args: argparse.Namespace) -> int:
    """Compare, time and report; 1 if an engine's losses are not NumPy's, else 0."""
    from wgpu_nn.bench import step_ours

    report.check_outputs(args)
    device = Device(args.device).autodiff()
    environment = report.environment(device)
    report.progress("bench step: first calls, in fresh interpreters")
    first = [step_ours.first_call(args.device, args.batch) for _ in range(2)]
    with ExitStack() as stack:
        rows = [Row(engine, False, TOLERANCE) for engine in step_ours.engines(device, args.batch)]
        absent: dict[str, str] = {}
        about: dict[str, str] = {}
        for peer in args.against:
            try:
                engines, about[peer.name] = stack.enter_context(opened(peer, args.batch))
            except PeerError as error:
                absent[peer.name] = str(error)
            else:
                rows += [Row(engine, True, TOLERANCE) for engine in engines]
        reference = step_ours.reference(args.batch)
        for row in rows:
            report.progress(f"bench step: {row.engine.label.title}: losses, counts")
            compare(row, reference)
        report.progress(f"bench step: {args.rounds} rounds")
        time_rows(rows, args.rounds, args.steps)
    found = {
        "benchmark": "step",
        "environment": {**environment, "peers": about},
        "settings": {
            "batch": args.batch,
            "image": IMAGE,
            "hidden": HIDDEN,
            "classes": CLASSES,
            "dropout": DROPOUT,
            "lr": RATE,
            "rounds": args.rounds,
        },
        "first_call": {"as_found": first[0], "again": first[1]},
        "numerics": {"steps": STEPS, "tolerance": TOLERANCE, "reference": reference},
        "rows": [described(row, rows, args.batch) for row in rows],
        "absent": absent,
    }
    report.deliver(args, found, lines(found, rows, args.launches), markdown(found, rows), lambda: chart(found))
    return 0 if all(row.good for row in rows) else 1


def described(row: Row, rows: list[Row], batch: int) -> dict[str, Any]:
    """Return what JSON says of a row."""
    wall, label = row.wall_us, row.engine.label
    return {
        "key": label.key,
        "title": label.title,
        "work": label.work,
        "peer": row.peer,
        **asdict(row.facts),
        "host_us": row.host_us,
        "wall_us": wall,
        "images_per_s": batch / wall * 1e6 if wall else None,
        "times_faster_than": {other.engine.label.key: row.over(other) for other in rows if other.peer},
        "losses": row.outcome,
        "difference": row.difference,
        "ok": row.agrees,
        "failure": row.failure,
        "rounds": [asdict(r) for r in row.rounds],
    }


def table(found: dict[str, Any], rows: list[Row]) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Return heads and cells; an engine that cannot be had is a name and a remark."""
    others = [row for row in rows if row.peer and row.rounds]
    heads = [*HEADS, *(row.engine.label.head for row in others)]
    cells: list[list[str]] = []
    for row, said in zip(rows, found["rows"]):
        if row.failure is not None:
            cells.append([said["title"], f"not available: {row.failure}"])
            continue
        numbers = [said[k] for k in ("launches", "submits", "host_us", "device_us", "wall_us", "images_per_s")]
        agrees = "ok" if row.agrees else "FAILED"
        ratios = [report.ratio(row.over(other)) for other in others]
        cells.append([said["title"], *(report.count(x) for x in numbers), agrees, *ratios])
    return heads, cells + [[name, f"not available: {why}"] for name, why in found["absent"].items()]


def markdown(found: dict[str, Any], rows: list[Row]) -> list[str]:
    """Return the table in short, to be pasted into an issue."""
    heads, cells = table(found, rows)
    adapter, versions = found["environment"]["adapter"], found["environment"]["peers"].values()
    full = [row for row in cells if len(row) == len(heads)]
    titles = [" ".join(part for part in head if part).replace("- ", "") for head in heads]
    about = f"training step, batch {found['settings']['batch']}, on {adapter['name']}"
    return [*report.markdown(titles, full), "", "; ".join([about, *versions])]


def chart(found: dict[str, Any]) -> Chart:
    """Return the picture of it: images a second, by the work that engines do."""
    works = {TRAIN: "training", INFER: "inference"}
    groups = [
        Group(
            title,
            [
                Bar(row["title"], row["images_per_s"], row["peer"], "" if row["ok"] else "FAILED")
                for row in found["rows"]
                if row["work"] == work and row["wall_us"]
            ],
        )
        for work, title in works.items()
    ]
    batch = found["settings"]["batch"]
    return Chart(
        f"the spec page's CNN, batch {batch}, on {found['environment']['adapter']['name']}",
        "images a second: longer is better",
        groups,
    )


def lines(found: dict[str, Any], rows: list[Row], launches: bool) -> list[str]:
    """Return the table and what belongs to it."""
    adapter, batch = found["environment"]["adapter"], found["settings"]["batch"]
    others = [row for row in rows if row.peer and row.rounds]
    largest = max((row.difference for row in rows if row.difference is not None), default=0.0)
    said = [
        f"training step of the spec page's CNN, batch {batch}, Adam, dropout {DROPOUT:g}",
        f"on {adapter['name']} ({adapter['kind']}, {adapter['api']}, {adapter['driver'] or 'unknown driver'})",
        *(f"against {about}" for about in found["environment"]["peers"].values()),
        "",
        *report.table(*table(found, rows)),
        "",
        f"losses: {STEPS} steps without dropout, against NumPy: largest difference {largest:.1e}, allowed {TOLERANCE:g}",
        "host: until a call returns, the GPU idle; device: sum of timestamps; wall: many steps, one wait, per step",
        *first_lines(found["first_call"]),
    ]
    if others:
        said.append("the columns at the right say how many times faster a row is than that peer")
    return [*said, "", *launch_lines(rows)] if launches else said


def first_lines(first: dict[str, dict[str, float]]) -> list[str]:
    """Return what was measured of the first call: fresh interpreters, the driver's cache as it was left by others."""
    title = {"as_found": "first step", "again": "once more"}
    return [
        f"{title[k]}: {t['step_s']:.2f} s from import (imported {t['import_s']:.2f}, device {t['device_s']:.2f}); fresh "
        f"interpreter, {'driver cache as found' if k == 'as_found' else 'driver cache warm'}"
        for k, t in first.items()
    ]


def launch_lines(rows: list[Row]) -> list[str]:
    """Return the lines about the launches of the first row, the captured step."""
    launches = rows[0].facts.launch_us
    if not launches:
        return ["launches: this adapter has no timestamps"]
    total = sum(us for _, us in launches)
    heads = [("launches of the", "captured step"), ("device", "us"), ("", "share")]
    cells = [[f"{n:>2} {name}", report.count(us), f"{us / total:.1%}"] for n, (name, us) in enumerate(launches)]
    return report.table(heads, cells)
