"""``wgpu-nn train CONFIG.json``: a run from its config and flags, in a folder that resume, eval, predict and report read."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wgpu_nn.cli.command import Command
from wgpu_nn.errors import ConfigError

if TYPE_CHECKING:
    from wgpu_nn.runs import RunConfig

EXIT = """exit status:
  0    done, or there was nothing to do
  1    failed: the message says why; a run can be resumed from its last checkpoint
  2    bad usage or config: the message names the flag or the field, and nothing was changed
  130  stopped by Ctrl-C, or by q on the dashboard; a run that had begun is saved: wgpu-nn resume RUN
"""
EXAMPLES = """examples:
  wgpu-nn train --init mnist > config.json         # a config to start from; also csv, images, own
  wgpu-nn train config.json --epochs 5 --optimizer.lr 3e-4
  wgpu-nn train --data csv --data.path flowers.csv --data.target species --device numpy
  wgpu-nn train config.json --model net:NetConfig --model.fields '{"width": 32}'
  wgpu-nn train --schema > config.schema.json      # for editors that complete and check JSON

Lists are written with commas, or as JSON; null takes a value away. Relative paths start from the current folder.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn train``: its own, and a flag for each field of a run's config."""
    from wgpu_nn.cli.flags import add_flags, flags_of
    from wgpu_nn.cli.starters import STARTERS
    from wgpu_nn.runs import RunConfig

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "wgpu-nn train [CONFIG.json] [--run FOLDER] [--overwrite] [--FIELD VALUE ...]"
    parser.epilog = f"{EXAMPLES}\n{EXIT}"
    parser.add_argument("config", nargs="?", metavar="CONFIG.json", help="the run's config; flags override its fields")
    parser.add_argument(
        "--run", dest="folder", type=Path, metavar="FOLDER", help="where the run is written (runs/<name of the config>)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--init", choices=sorted(STARTERS), help="print a config to start from, and do nothing else")
    instead.add_argument("--schema", action="store_true", help="print the JSON schema of configs, and do nothing else")
    instead.add_argument(
        "--show", action="store_true", help="print the config with the flags in it, and do nothing else"
    )
    add_flags(parser, list(flags_of(RunConfig)))


def run(args: argparse.Namespace) -> int:
    """Train, or print what was asked for."""
    from wgpu_nn.cli.flags import given, overridden, read_values
    from wgpu_nn.cli.starters import STARTERS
    from wgpu_nn.runs import RunConfig

    if args.schema:
        print(json.dumps(RunConfig.model_json_schema(), indent=2))
        return 0
    if args.init:
        print(STARTERS[args.init], end="")
        return 0
    changes = given(args)
    if args.config is None and not changes:
        raise ConfigError("train: expected a config or flags, got neither; wgpu-nn train --init mnist > config.json")
    values = {} if args.config is None else read_values(args.config)
    config = RunConfig.of(f"train: {args.config or 'flags'}", overridden(RunConfig, values, changes))
    if args.show:
        print(config.to_json(), end="")
        return 0
    name = config.data.kind if args.config is None else Path(args.config).stem
    return begin(config, args.folder or Path("runs") / name, overwrite=args.overwrite)


def begin(config: RunConfig, folder: Path, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train a run in ``folder``, and say what becomes of it; the exit status says it too."""
    from wgpu_nn.runs import run_of
    from wgpu_nn.train import holds_run, progress

    if not resume and not overwrite and holds_run(folder):
        raise ConfigError(
            f"train: --run: expected a new folder, got {folder}, which has a run in it; wgpu-nn resume {folder} goes on "
            "with it, --overwrite replaces it"
        )
    prepared = run_of(config, folder if resume else None)
    facts, model = prepared.data.facts, prepared.learner.model
    valid = "none" if prepared.valid is None else f"{prepared.valid.items:,}"
    outputs = f"{facts.outputs} {'numbers' if config.loss.numbers else 'classes'}"
    print(f"device: {prepared.learner.device.inner()}")
    print(f"data: {prepared.train.items:,} items to train, {valid} to validate; {list(facts.inputs)} -> {outputs}")
    print(f"{model}\n", flush=True)
    result = prepared.fit(folder, resume=resume, overwrite=overwrite, show=progress())
    best = result.best
    if best is not None:
        values = {f"valid {k}": v for k, v in best.valid.items()} or {f"train {k}": v for k, v in best.train.items()}
        print(f"best epoch {best.epoch}: {', '.join(f'{name} {value:.6g}' for name, value in values.items())}")
    if result.interrupted:
        print(f"stopped at step {result.step}, and saved; wgpu-nn resume {folder} goes on", file=sys.stderr)
        return 130
    print(f"{f'ended early: {result.reason}; ' if result.reason else ''}the run is in {folder}")
    return 0


COMMAND = Command(
    name="train",
    help="train a model by a config, in a folder",
    description="Train a model on MNIST, tables, images or arrays by a JSON config. Every field has a flag, which\n"
    "overrides it. The run is written to a folder: config, log, checkpoints, model.",
    arguments=arguments,
    run=run,
)
