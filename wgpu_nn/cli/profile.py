"""``wgpu-nn profile script.py``: runs a script here and says which kernels took the GPU's time."""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from pathlib import Path

from wgpu_nn.cli.command import Command
from wgpu_nn.errors import ConfigError, DeviceError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn profile``; what follows the script is the script's."""
    parser.add_argument("--device", default="wgpu", help="the device that the script uses (the best adapter)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="save a trace, to be opened at ui.perfetto.dev")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the table")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="kernels to show (20)")
    parser.add_argument("script", type=Path, help="a Python file")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its own arguments")


def run(args: argparse.Namespace) -> int:
    """Run the script and report; the exit status is the script's."""
    from wgpu_nn.bench import profile, report, roofline
    from wgpu_nn.gpu import Profile
    from wgpu_nn.tensor import Device

    if not args.script.is_file():
        raise ConfigError(f"profile: expected a Python file, got {args.script}, which is none; check the path")
    for option in ("trace", "json"):
        report.writable(getattr(args, option), f"--{option}", "profile")
    device = Device(args.device)
    gpu = device.gpu
    with Profile(gpu):  # raises where there are no timestamps, before anything is measured
        pass
    bandwidth = roofline.measure(device).bandwidth
    gpu.stream.trim()
    with Profile(gpu) as found:
        status = run_script(args.script, args.args)
    if not found.launched and not status:
        raise DeviceError(
            f"profile: expected launches on {gpu.adapter}, got none from {args.script}; name its device with --device"
        )
    summary = profile.summary(found, bandwidth)
    report.show(["", *profile.lines(summary, str(gpu.adapter), args.most)])
    if args.json is not None:
        report.save(args.json, summary)
    if args.trace is not None:
        profile.save_trace(args.trace, found)
    return status


def run_script(script: Path, args: list[str]) -> int:
    """Run a file as Python runs one, and return its exit status; an exception is printed as Python prints it."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *args]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as done:
        if isinstance(done.code, int) or done.code is None:
            return done.code or 0
        print(done.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.argv, sys.path[:] = argv, path
    return 0


COMMAND = Command(
    name="profile",
    help="run a script and show which kernels take the time",
    description="Run a script in this process, time every launch of its device by timestamps, and show them by kernel.",
    arguments=arguments,
    run=run,
)
