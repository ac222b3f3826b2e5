"""``wgpu-nn bench matmul`` and its like: single ops, ours and the peers', numerics first, then shares of the roofline."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from wgpu_nn.bench import report
from wgpu_nn.bench.compare import Row, compare, peers_of, positive, time_rows
from wgpu_nn.bench.engine import Engine
from wgpu_nn.bench.peers import Peer, PeerError, opened
from wgpu_nn.bench.plot import Bar, Chart, Group
from wgpu_nn.bench.work import Item, Sizes
from wgpu_nn.tensor import Device

PEERS = {
    peer.name: peer
    for peer in (
        Peer("numpy", ("numpy",), "pip install numpy", "wgpu_nn.bench.ops_numpy"),
        Peer("torch", ("torch",), "pip install torch", "wgpu_nn.bench.ops_torch"),
        Peer("tinygrad", ("tinygrad", "pydawn"), "pip install tinygrad dawn-python", "wgpu_nn.bench.ops_tinygrad"),
        Peer("onnxruntime", ("onnxruntime", "onnx"), "pip install onnxruntime onnx", "wgpu_nn.bench.ops_onnxruntime"),
    )
}
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``kinds`` of work, each on all shapes: ``gpu`` unless asked for others, smaller ones on a software adapter.

    ``axes`` names what ``--shape`` takes; names in brackets may be left out.
    """

    name: str
    kinds: tuple[str, ...]
    axes: str
    gpu: tuple[Sizes, ...]
    software: tuple[Sizes, ...]
    eager: bool = False

    def sizes(self, text: str) -> Sizes:
        """Return one shape as ``--shape`` has it: 1024x1024x1024."""
        most = len(self.axes.split("x"))
        fewest = most - self.axes.count("[")
        try:
            found = [int(n) for n in text.lower().split("x")]
        except ValueError:
            found = [0]
        padded = "[pad]" in self.axes
        if padded and len(found) >= fewest:
            found += [0, 1][len(found) - fewest :]
        positive = [n for i, n in enumerate(found) if not (padded and i == fewest)]
        if not fewest <= len(found) <= most or min(positive, default=0) < 1 or min(found) < 0:
            raise argparse.ArgumentTypeError(f"expected {self.axes}, all at least 1, got {text!r}")
        if padded:
            _, channels, height, width, out, kernel, pad, groups = found
            if not pad < kernel <= min(height, width) + 2 * pad:
                raise argparse.ArgumentTypeError(
                    f"expected a kernel within the padded image, and a smaller pad, got {text!r}"
                )
            if channels % groups or out % groups:
                raise argparse.ArgumentTypeError(f"expected channels and filters that groups divide, got {text!r}")
        return tuple(found)

    def shapes(self, text: str) -> tuple[Sizes, ...]:
        """Return a list of shapes, divided by commas."""
        return tuple(self.sizes(part.strip()) for part in text.split(","))

    def items(self, software: bool, wanted: Sequence[Sizes]) -> tuple[Item, ...]:
        """Return the pieces of work."""
        shapes = wanted or (self.software if software else self.gpu)
        return tuple(Item(kind, sizes) for sizes in dict.fromkeys(shapes) for kind in self.kinds)


BENCHMARKS = (
    Benchmark(
        "matmul",
        ("matmul",),
        "[batch]xMxKxN",
        ((4096,) * 3, (1024,) * 3, (512,) * 3, (64, 128, 128, 128), (1, 4096, 4096)),
        ((1024,) * 3, (512,) * 3, (256,) * 3, (1, 1024, 1024)),
    ),
    Benchmark(
        "conv",
        ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d"),
        "NxCxHxWxOUTxKERNELx[pad]x[groups]",
        ((64, 64, 56, 56, 64, 3, 1, 1), (32, 128, 28, 28, 128, 3, 1, 1), (32, 128, 56, 56, 128, 3, 1, 128)),
        ((64, 8, 28, 28, 16, 3, 0, 1), (8, 32, 28, 28, 32, 3, 1, 32)),
    ),
    Benchmark("map", ("scale", "add"), "N", ((1 << 26,),), ((1 << 22,),)),
    Benchmark("reduce", ("sum all", "sum rows", "sum columns"), "ROWSxCOLUMNS", ((8192, 8192),), ((2048, 2048),)),
    Benchmark(
        "rows",
        ("softmax", "log_softmax", "layer_norm", "rms_norm", "softmax, forward and backward"),
        "ROWSxCOLUMNS",
        ((8192, 4096),),
        ((1024, 1024),),
    ),
    Benchmark(
        "attention",
        ("attention", "attention, forward and backward"),
        "BATCHxHEADSxLENGTHxDEPTH",
        ((8, 16, 2048, 64),),
        ((1, 4, 256, 64),),
    ),
    Benchmark("order", ("sort", "argsort", "topk", "cumsum", "nonzero"), "N", ((1 << 22,),), ((1 << 18,),)),
    Benchmark("launch", ("add one",), "COUNTxN", ((25, 64), (100, 64)), ((25, 64), (100, 64)), eager=True),
    Benchmark("memory", ("upload", "download"), "N", ((1,), (1 << 18,), (1 << 26,)), ((1,), (1 << 18,), (1 << 22,))),
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its head in two lines, its text, and its head in the short table, if it is in that."""

    head: tuple[str, str]
    text: Callable[[Mapping[str, Any]], str]
    short: str = ""


def _count(key: str, unit: float = 1.0) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: report.count(None if row[key] is None else row[key] / unit)


# Columns without a value in any row are left out.
COLUMNS = (
    Column(("", "launches"), _count("launches")),
    Column(("", "submits"), _count("submits")),
    Column(("host", "us"), _count("host_us")),
    Column(("device", "us"), _count("device_us")),
    Column(("wall", "us"), _count("wall_us"), "us"),
    Column(("us a", "launch"), _count("us_per_launch"), "us a launch"),
    Column(("GFLOP", "/s"), _count("flops_per_s", 1e9), "GFLOP/s"),
    Column(("of", "peak"), lambda row: report.share(row["share_of_peak"]), "of peak"),
    Column(("GB", "/s"), _count("bytes_per_s", 1e9), "GB/s"),
    Column(("of band-", "width"), lambda row: report.share(row["share_of_bandwidth"]), "of bandwidth"),
    Column(("", "error"), lambda row: report.NONE if row["error"] is None else f"{row['error']:.0e}"),
    Column(("numer-", "ics"), lambda row: "ok" if row["ok"] else "FAILED", "numerics"),
    Column(("ours", "faster"), lambda row: report.ratio(row["ours_times_faster"])),
)


def arguments(benchmark: Benchmark, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of one of them."""
    parser.add_argument(
        "--shape",
        type=benchmark.shapes,
        default=(),
        metavar="SHAPES",
        help=f"{benchmark.axes}, several divided by commas (a few that are usual)",
    )
    parser.add_argument(
        "--against",
        type=lambda text: peers_of(PEERS, text),
        default=(),
        metavar="PEERS",
        help=f"peers to run, of {','.join(PEERS)} (none)",
    )
    parser.add_argument("--device", default="wgpu", help="our device: wgpu, wgpu:<index or name> (the best adapter)")
    parser.add_argument(
        "--rounds", type=positive, default=ROUNDS, metavar="N", help=f"rounds of each engine ({ROUNDS})"
    )
    report.arguments(parser)


def run(benchmark: Benchmark, args: argparse.Namespace) -> int:
    """Compare, time and report; 1 if a result is not NumPy's in double precision, or ours cannot be had, else 0."""
    from wgpu_nn.bench import roofline

    report.check_outputs(args)
    device = Device(args.device)
    environment = report.environment(device)
    items = benchmark.items(device.gpu.software, args.shape)
    name = f"bench {benchmark.name}"
    report.progress(f"{name}: bandwidth and peak of {device.gpu.adapter}")
    roof = roofline.measure(device)
    absent: dict[str, str] = {}
    about: dict[str, str] = {}
    found: list[tuple[Item, list[Row]]] = []
    with ExitStack() as stack:
        others: dict[str, list[Engine]] = {}
        for peer in args.against:
            try:
                engines, about[peer.name] = stack.enter_context(opened(peer, items))
            except PeerError as error:
                absent[peer.name] = str(error)
                continue
            for engine in engines:
                others.setdefault(engine.label.work, []).append(engine)
        for item in items:
            rows = measured(name, device, item, benchmark.eager, others.get(item.key, []), args.rounds)
            found.append((item, rows))
    saved = {
        "benchmark": benchmark.name,
        "environment": {**environment, "peers": about},
        "settings": {"rounds": args.rounds},
        "roofline": {"bytes_per_s": roof.bandwidth, "flops_per_s": roof.flops, "copied_bytes": roof.copied},
        "items": [described(item, rows, roof) for item, rows in found],
        "absent": absent,
    }
    report.deliver(args, saved, lines(saved), markdown(saved), lambda: chart(saved))
    return 0 if all(row.good for _, rows in found for row in rows) else 1


def measured(name: str, device: Device, item: Item, eager: bool, others: Sequence[Engine], rounds: int) -> list[Row]:
    """Return what is found out about one item; its memory is given back."""
    from wgpu_nn.bench import ops_ours

    report.progress(f"{name}: {item.title}")
    ours = ops_ours.engines(device, item, eager)
    rows = [Row(engine, False, item.tolerance) for engine in ours]
    rows += [Row(engine, True, item.tolerance) for engine in others]
    reference, scale = item.reference(item.draw())
    for row in rows:
        compare(row, reference, scale)
    time_rows(rows, rounds, None)
    for engine in ours:
        engine.release()
    device.gpu.stream.trim()
    return rows


def described(item: Item, rows: Sequence[Row], roof: Any) -> dict[str, Any]:
    """Return what JSON says of an item."""
    ours = rows[0]
    return {
        "key": item.key,
        "kind": item.kind,
        "title": item.title,
        "sizes": item.sizes,
        "flops": item.flops,
        "bytes": item.moved,
        "tolerance": item.tolerance,
        "rows": [_row(item, row, ours, roof) for row in rows],
    }


def _row(item: Item, row: Row, ours: Row, roof: Any) -> dict[str, Any]:
    wall, label = row.wall_us, row.engine.label
    speed: dict[str, float | None] = dict.fromkeys(
        ("flops_per_s", "bytes_per_s", "share_of_peak", "share_of_bandwidth", "us_per_launch")
    )
    if wall:
        seconds = wall * 1e-6
        if item.row.chain:
            speed["us_per_launch"] = wall / item.sizes[0]
        else:
            speed["bytes_per_s"] = item.moved / seconds
        if not item.row.chain and not item.row.host:
            peak, bandwidth = roof.shares(item.flops, item.moved, seconds)
            if item.flops:
                speed |= {"flops_per_s": item.flops / seconds}
            if not row.peer:  # a peer may run elsewhere
                speed |= {"share_of_peak": peak if item.flops else None, "share_of_bandwidth": bandwidth}
    return {
        "key": label.key,
        "title": label.title,
        "peer": row.peer,
        **asdict(row.facts),
        "host_us": row.host_us,
        "wall_us": wall,
        **speed,
        "ours_times_faster": ours.over(row) if row is not ours else None,
        "error": row.difference,
        "ok": row.agrees,
        "failure": row.failure,
        "rounds": [asdict(r) for r in row.rounds],
    }


def columns(found: Mapping[str, Any], short: bool) -> list[Column]:
    """Return the columns in which a row has something to say."""
    rows = [row for item in found["items"] for row in item["rows"] if row["failure"] is None]
    return [c for c in COLUMNS if (c.short or not short) and any(c.text(row) != report.NONE for row in rows)]


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the report for a terminal."""
    adapter, roof = found["environment"]["adapter"], found["roofline"]
    wanted = columns(found, short=False)
    rows: list[list[str]] = []
    for item in found["items"]:
        rows.append([item["title"]])
        for row in item["rows"]:
            said = [f"not available: {row['failure']}"] if row["failure"] else [c.text(row) for c in wanted]
            rows.append([f"  {row['title']}", *said])
    rows += [[name, f"not available: {why}"] for name, why in found["absent"].items()]
    return [
        f"{found['benchmark']} on {adapter['name']} ({adapter['kind']}, {adapter['api']}, "
        f"{adapter['driver'] or 'unknown driver'})",
        f"measured: {report.count(roof['bytes_per_s'] / 1e9)} GB/s by a copy of {roof['copied_bytes'] >> 20} MiB, "
        f"{report.count(roof['flops_per_s'] / 1e9)} GFLOP/s by multiply-adds in registers",
        *(f"against {about}" for about in found["environment"]["peers"].values()),
        "",
        *report.table([("", "engine"), *(c.head for c in wanted)], rows),
        "",
        "error: the largest of the elements compared with NumPy in double precision, relative to the magnitudes added up",
        "host: until a call returns, the GPU idle; device: sum of timestamps; wall: of one of many, with one wait",
    ]


def markdown(found: Mapping[str, Any]) -> list[str]:
    """Return the same in short, to be pasted into an issue: a line an item, ours beside the peers."""
    adapter, roof = found["environment"]["adapter"], found["roofline"]
    titles = list(dict.fromkeys(row["title"] for item in found["items"] for row in item["rows"][1:]))
    wanted = columns(found, short=True)
    heads = ["work", *(c.short for c in wanted), *(f"vs {title}" for title in titles)]
    table: list[list[str]] = []
    for item in found["items"]:
        ours, *others = item["rows"]
        faster = {row["title"]: report.ratio(row["ours_times_faster"]) for row in others}
        said = [report.NONE if ours["failure"] else c.text(ours) for c in wanted]
        table.append([item["title"], *said, *(faster.get(title, report.NONE) for title in titles)])
    return [
        *report.markdown(heads, table),
        "",
        f"{adapter['name']} ({adapter['driver'] or adapter['api']}): {report.count(roof['bytes_per_s'] / 1e9)} GB/s, "
        f"{report.count(roof['flops_per_s'] / 1e9)} GFLOP/s measured. "
        + "; ".join(found["environment"]["peers"].values()),
    ]


Value = Callable[[Mapping[str, Any]], float]


def chart(found: Mapping[str, Any]) -> Chart:
    """Return the picture of it."""
    unit, value, roof = _measure(found)
    groups: list[Group] = []
    for item in found["items"]:
        bars: list[Bar] = []
        for row in item["rows"]:
            faster = row["ours_times_faster"]
            notes = [f"ours {report.ratio(faster)}"] * bool(faster) + ["FAILED"] * (not row["ok"])
            if row["wall_us"]:
                bars.append(Bar(row["title"], value(row), row["peer"], "   ".join(notes)))
        groups.append(Group(item["title"], bars, None if roof is None else roof(item)))
    return Chart(f"{found['benchmark']} on {found['environment']['adapter']['name']}", unit, groups)


def _measure(found: Mapping[str, Any]) -> tuple[str, Value, Value | None]:
    """Return the unit, what a bar's length says of a row in it, and an item's roof: what the slower of two limits allows."""
    rows = [row for item in found["items"] for row in item["rows"] if row["wall_us"]]
    if any(row["us_per_launch"] is not None for row in rows):
        return "us a launch: shorter is better", (lambda row: row["us_per_launch"]), None
    peak, bandwidth = (found["roofline"][key] / 1e9 for key in ("flops_per_s", "bytes_per_s"))
    speed: Value = lambda row: row["bytes_per_s"] / 1e9
    if all(row["share_of_bandwidth"] is None for row in rows):
        return "GB/s: longer is better", speed, None
    computed = all(item["flops"] for item in found["items"])
    if computed and any(item["flops"] / peak > item["bytes"] / bandwidth for item in found["items"]):
        roof: Value = lambda item: min(peak, item["flops"] / item["bytes"] * bandwidth)
        return "GFLOP/s: longer is better", (lambda row: row["flops_per_s"] / 1e9), roof
    return "GB/s: longer is better", speed, lambda item: bandwidth
