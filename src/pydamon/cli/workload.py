"""``pydamon workload``: a process whose memory accesses are known."""

from __future__ import annotations

import click

from pydamon.cli.completion.values import workloads
from pydamon.cli.help.classes import Verb


@click.command("workload", cls=Verb)
@click.argument("workload", metavar="NAME|FILE", shell_complete=workloads)
@click.option(
    "--mapping",
    type=click.Choice(["separate", "one"]),
    default="separate",
    show_default=True,
    help="Each region a mapping of its own, or all side by side in one.",
)
@click.option("--repeat", type=int, default=1, show_default=True, metavar="N", help="Play N times; 0: for ever.")
@click.option(
    "--time-scale", type=float, default=1.0, show_default=True, metavar="F", help="Multiply all durations by F."
)
@click.option("--json", "as_json", is_flag=True, help="Print what is touched, and when, as JSON lines.")
def command(workload: str, mapping: str, repeat: int, time_scale: float, as_json: bool) -> None:
    """Run a known access pattern, and print what it touches and when.

    NAME is stairs, zigzag, hotspots or random; FILE is in the format of the masim access simulator: a paragraph of
    regions ("name, bytes[, init file]"), then a paragraph for each phase (its name, its milliseconds, and lines
    "region, random 0/1, stride, probability[, ro|wo|rw]").
    """
    import os
    import sys

    # NumPy's linear algebra would start threads and take memory for them; the process is to be small and one thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pydamon.workload import builtin, runner

    runner.check_options(repeat, time_scale)
    loaded = builtin.load(workload)
    try:
        runner.run(
            loaded,
            sys.stdout,
            title=workload,
            mapping=mapping,
            repeat=repeat,
            time_scale=time_scale,
            as_json=as_json,
        )
    except BrokenPipeError:
        # The reader has seen enough. Caught here because click would make it exit status 1; and what is still buffered
        # must go somewhere, or the interpreter complains about it at exit.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
