"""Makes of a profile's launches a table by kernel, and a trace file that Perfetto and Chrome open; runs no script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpu_nn.bench import report
from wgpu_nn.errors import ConfigError
from wgpu_nn.gpu import Kernel, Launched, Profile
from wgpu_nn.kernels.source import sizes

NAME = 24  # letters of a kernel's name in the table
SIZES = 36
# Words that say where elements lie, not how many there are.
PLACES = (
    *(
        "stride",
        "start",
        "offset",
        "_step",
        "number",
        "_row",
        "_inner",
        "_column",
        "_batch",
        "a_",
        "b_",
        "leaf",
        "size",
    ),
    *("total", "pad_", "per_", "sums_"),
)
HEADS = (
    ("", "kernel"), ("", "launches"), ("total", "us"), ("one", "us"), ("share", "of GPU"), ("bytes", "bound"),
    ("GB", "/s"), ("of band-", "width"),
)  # fmt: skip


@dataclass(slots=True)
class Entry:
    """All launches of a kernel at the same sizes."""

    name: str
    sizes: str
    launches: int = 0
    seconds: float = 0.0
    nbytes: int = 0

    def described(self, total: float, bandwidth: float) -> dict[str, Any]:
        """Return what JSON says of it; ``total`` seconds of all, and the bytes a second of a copy."""
        speed = self.nbytes / self.seconds if self.seconds else None
        return {
            "kernel": self.name,
            "sizes": self.sizes,
            "launches": self.launches,
            "total_us": self.seconds * 1e6,
            "share": self.seconds / total if total else None,
            "bytes": self.nbytes,
            "bytes_per_s": speed,
            "share_of_bandwidth": None if speed is None else speed / bandwidth,
        }


def shape_of(launch: Launched) -> str:
    """Return the sizes that a launch's kernel was given, ones left out: rows=64 columns=512 inner=1024."""
    found = sizes(launch.kernel.code, launch.params).items()
    return " ".join(f"{name}={n}" for name, n in found if n != 1 and not any(part in name for part in PLACES))


def entries(launched: Sequence[Launched]) -> list[Entry]:
    """Return launches by kernel and sizes, those that take the most time first.

    Kernels of one name may differ: eager ones have sizes as parameters, captured ones as constants, and do more at once.
    """
    found: dict[tuple[Kernel, str], Entry] = {}
    for launch in launched:
        shape = shape_of(launch)
        entry = found.setdefault((launch.kernel, shape), Entry(launch.kernel.name, shape))
        entry.launches += 1
        entry.seconds += max(launch.end - launch.start, 0.0)
        entry.nbytes += launch.nbytes
    return sorted(found.values(), key=lambda e: -e.seconds)


def summary(profile: Profile, bandwidth: float) -> dict[str, Any]:
    """Return what was found, as JSON has it."""
    found = entries(profile.launched)
    total = sum(entry.seconds for entry in found)
    return {
        "launches": len(profile.launched),
        "submits": len(profile.submits),
        "gpu_us": total * 1e6,
        "host_us": sum(s.end - s.start for s in profile.submits) * 1e6,
        "bandwidth": bandwidth,
        "kernels": [entry.described(total, bandwidth) for entry in found],
    }


def lines(found: Mapping[str, Any], adapter: str, most: int) -> list[str]:
    """Return the report: the ``most`` kernels that take the most time."""
    kernels = found["kernels"]
    rows = [
        [
            f"{_cut(k['kernel'], NAME):<{NAME}}  {_cut(k['sizes'], SIZES)}",
            report.count(k["launches"]),
            report.count(k["total_us"]),
            report.count(k["total_us"] / k["launches"]),
            report.share(k["share"]),
            report.count(k["bytes"] / k["launches"]),
            report.count(None if k["bytes_per_s"] is None else k["bytes_per_s"] / 1e9),
            report.share(k["share_of_bandwidth"]),
        ]
        for k in kernels[:most]
    ]
    left = kernels[most:]
    if left:
        us, launches = sum(k["total_us"] for k in left), sum(k["launches"] for k in left)
        share = report.share(us / found["gpu_us"] if found["gpu_us"] else None)
        rest = [report.count(launches), report.count(us), report.count(us / launches), share]
        rows.append([f"{len(left)} more", *rest, *[report.NONE] * 3])
    return [
        f"{found['launches']:,} launches in {found['submits']:,} submits on {adapter}",
        f"GPU {found['gpu_us'] / 1e3:,.1f} ms by timestamps, a pass for each launch; host {found['host_us'] / 1e3:,.1f} ms "
        "encoding and submitting, timestamps included",
        "",
        *report.table(HEADS, rows),
        "",
        f"bytes: of the buffers bound, read or not; a copy of this adapter moves {found['bandwidth'] / 1e9:,.3g} GB/s",
    ]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def trace(profile: Profile) -> dict[str, Any]:
    """Return Chrome's trace format: a track of the GPU's kernels and one of the host's submits, in microseconds.

    The two clocks are put together so that no kernel starts before its submit does.
    """
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "wgpu_nn"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "host: submits"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 2, "args": {"name": "GPU: kernels"}},
    ]
    if not profile.submits:
        return {"traceEvents": events, "displayTimeUnit": "ns"}
    origin = profile.submits[0].start
    ahead = max((profile.submits[x.submit].start - x.start for x in profile.launched), default=0.0)
    for n, s in enumerate(profile.submits):
        name = f"submit {s.launches} launches" if s.launches else "submit copies"
        args = {"submit": n, "launches": s.launches}
        events.append(_event(name, "submit", 1, s.start - origin, s.end - s.start, args))
    for x in profile.launched:
        args = {
            "submit": x.submit,
            "workgroups": list(x.grid),
            "bytes bound": x.nbytes,
            "file": x.kernel.source,
            **sizes(x.kernel.code, x.params),
        }
        events.append(_event(x.kernel.name, "kernel", 2, x.start + ahead - origin, max(x.end - x.start, 0.0), args))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _event(name: str, kind: str, track: int, start: float, seconds: float, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "cat": kind,
        "ph": "X",
        "pid": 1,
        "tid": track,
        "ts": round(start * 1e6, 3),
        "dur": round(seconds * 1e6, 3),
        "args": args,
    }


def save_trace(path: Path, profile: Profile) -> None:
    """Write the trace."""
    try:
        path.write_text(json.dumps(trace(profile)) + "\n")
    except OSError as error:
        raise ConfigError(f"profile: cannot write {path}: {error.strerror}; choose another --trace file") from error
