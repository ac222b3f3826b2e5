"""``wgpu-nn shader``: compiles WGSL files wherever they may run, runs one on .npy files, or runs the tests of shaders."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.cli.command import Command
from wgpu_nn.errors import ConfigError
from wgpu_nn.files import write_atomic

TYPES = {"f32": np.float32, "i32": np.int32, "u32": np.uint32, "f16": np.float16}


def run(args: argparse.Namespace) -> int:
    """Do what the second word says."""
    return {"check": check, "run": run_file, "test": test}[args.job](args)


# --- check -----------------------------------------------------------------------------------------------------------
def check(args: argparse.Namespace) -> int:
    """Print what compiles where; 0 if all files compile on some adapter and, where it is installed, under Tint."""
    from wgpu_nn.gpu import adapters, choose
    from wgpu_nn.testing import tint
    from wgpu_nn.testing.portability import check_on, check_with_tint

    if args.tint == "on":
        tint.open_device()
    second = args.tint != "off" and tint.available()
    found = adapters() or (choose()[0],)  # which says what to install
    failed = False
    for path in args.files:
        code = _text(path)
        verdicts = [check_on(a, path.name, code) for a in found]
        verdicts += [check_with_tint(path.name, code)] if second else []
        broken = [v for v in verdicts if v.error]
        failed = failed or bool(broken)
        needs = sorted({need for v in verdicts for need in v.needs})
        outcome = "does not compile" if broken else f"needs {', '.join(needs)}" if needs else "portable"
        print(f"{path}: {outcome}")
        for v in verdicts:
            print(f"  {v.where}: {'ok' if v.portable else v.error or 'with ' + ', '.join(v.needs)}")
    if not second:
        print("Tint was not asked; pip install 'wgpu-nn[dawn]' brings it")
    return int(failed)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"shader: expected a WGSL file in UTF-8, got {path}: {error}; is the path right?") from None


# --- run -------------------------------------------------------------------------------------------------------------
def run_file(args: argparse.Namespace) -> int:
    """Run a file on arrays from .npy files, and print its outputs or write them."""
    from wgpu_nn.gpu import Gpu, choose
    from wgpu_nn.testing import Out, Shader

    buffers: dict[str, Any] = {}
    for name, text in map(_pair, args.input):
        buffers[name] = _array(Path(text))
    targets: dict[str, str] = {}
    for name, text in map(_pair, args.output):
        match = re.fullmatch(r"(\w+)\[([\d,\s]+)\](?::(.+))?", text)
        if match is None or match[1] not in TYPES:
            raise ConfigError(
                f"--output: expected NAME=TYPE[SHAPE] or NAME=TYPE[SHAPE]:FILE.npy with one of {', '.join(TYPES)}, "
                f"got {name}={text}; for example c=f32[8,8]"
            )
        buffers[name] = Out(tuple(int(n) for n in match[2].split(",") if n.strip()), TYPES[match[1]])
        targets[name] = match[3] or ""
    constants = {name: _number(text) for name, text in map(_pair, args.constant)}
    groups = None if args.groups is None else _groups(args.groups)
    shader = Shader(Gpu(choose(args.adapter)[0]), args.file)
    if args.time:
        cost = shader.measure(buffers, groups, constants=constants, entry=args.entry)
        print(f"{cost.seconds * 1e6:.1f} us, {cost.nbytes:,} bytes, {cost.bandwidth / 1e9:.2f} GB/s")
    found = shader.run(buffers, groups, constants=constants, entry=args.entry)
    arrays = (found,) if len(targets) == 1 else found
    for (name, file), array in zip(targets.items(), arrays, strict=True):
        if file:
            write_atomic(file, lambda out, array=array: np.save(out, array, allow_pickle=False))
            print(f"{name}: {array.dtype}{list(array.shape)} in {file}")
        else:
            print(f"{name}: {array.dtype}{list(array.shape)}\n{array}")
    return 0


def _groups(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(x\d+){0,2}", text):
        raise ConfigError(f"--groups: expected workgroups like 8 or 8x8x1, got {text!r}")
    return tuple(int(n) for n in text.split("x"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ConfigError(f"shader run: expected NAME=VALUE, got {text!r}")
    return name, value


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"--input: expected a .npy file, got {path}: {error}; np.save writes one") from None


def _number(text: str) -> int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text, 0)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"--constant: expected a number, true or false, got {text!r}") from None


# --- test ------------------------------------------------------------------------------------------------------------
def test(args: argparse.Namespace) -> int:
    """Run pytest with the fixtures for shaders, installed or not."""
    try:
        import pytest
    except ImportError:
        from wgpu_nn.errors import missing_extra

        raise missing_extra("shader test", "pytest", "shaders") from None
    return int(pytest.main(["-p", "wgpu_nn.testing.plugin", *args.arguments]))


def arguments(parser: argparse.ArgumentParser) -> None:
    jobs = parser.add_subparsers(dest="job", metavar="check|run|test", required=True)
    one = jobs.add_parser("check", help="compile files on every adapter, by the standard's limits, and under Tint")
    one.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a complete WGSL text")
    one.add_argument("--tint", choices=("auto", "on", "off"), default="auto", help="the second compiler (extra dawn)")
    two = jobs.add_parser("run", help="run a file on .npy files")
    two.add_argument("file", type=Path)
    two.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    two.add_argument("--output", action="append", required=True, metavar="NAME=TYPE[SHAPE][:FILE.npy]")
    two.add_argument("--constant", action="append", default=[], metavar="NAME=VALUE", help="an override, or a const")
    two.add_argument("--groups", metavar="XxYxZ", help="workgroups; without it, from the first output's size")
    two.add_argument("--entry", default="", help="the entry point, if there are several")
    two.add_argument("--adapter", help="index or part of a name; default: the best one")
    two.add_argument("--time", action="store_true", help="measure it as well")
    # Nothing begins an option here, so that all of pytest's are handed on.
    three = jobs.add_parser("test", help="run pytest; what follows is pytest's", prefix_chars="+", add_help=False)
    three.add_argument("arguments", nargs=argparse.REMAINDER)


COMMAND = Command(
    "shader", "check, run and test WGSL files", "Checks, runs and tests anybody's WGSL files.", arguments, run
)
