"""``wgpu-nn bench``: one subcommand per benchmark; what these measure, their modules know."""

from __future__ import annotations

import argparse
import functools

from wgpu_nn.bench import accuracy, learner, ops, step
from wgpu_nn.cli.command import Command

BENCHMARKS: tuple[Command, ...] = (
    Command(
        name="step",
        help="a training step of a small CNN",
        description="Time a training step of the spec page's CNN: captured, without fusion, eager, and by peers. Peers "
        "run in the same run, by turns, in processes of their own, and on the devices that they choose.",
        arguments=step.arguments,
        run=step.run,
    ),
    Command(
        name="learner",
        help="the Learner against a loop written by hand",
        description="Time epochs of the Learner, its dashboard on, and of a captured loop written by hand, by turns.",
        arguments=learner.arguments,
        run=learner.run,
    ),
    *(
        Command(
            name=b.name,
            help=", ".join(b.kinds),
            description=f"Time {', '.join(b.kinds)}: ours as one captured function, and peers in the same run, by turns, in "
            "processes of their own. Results are compared with NumPy in double precision first.",
            arguments=functools.partial(ops.arguments, b),
            run=functools.partial(ops.run, b),
        )
        for b in ops.BENCHMARKS
    ),
    Command(
        name="accuracy",
        help="errors of elementary functions",
        description="Measure the largest errors of elementary functions over all exponents of f32, in units in the last "
        "place, on an adapter and on NumPy. It fails if one is beyond its documented bound.",
        arguments=accuracy.arguments,
        run=accuracy.run,
    ),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add a parser for each benchmark; the one chosen is kept in ``benchmark``."""
    subparsers = parser.add_subparsers(metavar="benchmark", required=True)
    for benchmark in BENCHMARKS:
        sub = subparsers.add_parser(benchmark.name, help=benchmark.help, description=benchmark.description)
        benchmark.arguments(sub)
        sub.set_defaults(benchmark=benchmark)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was chosen."""
    return args.benchmark.run(args)


COMMAND = Command(
    name="bench",
    help="measure, side by side with other engines",
    description="Measure what this machine makes of wgpu_nn, and of other engines on the same work.",
    arguments=arguments,
    run=run,
)
