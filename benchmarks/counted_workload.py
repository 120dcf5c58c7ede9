"""A built-in workload that waits for a line on standard input, and tells how many accesses it got done in each phase.

Run as ``python -m benchmarks.counted_workload NAME TIME_SCALE MAPPING``. Its output is that of ``pydamon workload
--json`` with lines ``{"event": "count", …}`` in between. Only the benchmarks use it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from pydamon.workload import runner
from pydamon.workload.builtin import load


def main() -> None:
    """Play the workload; each chunk of accesses is counted, which costs one addition for about 2,000 of them."""
    name, time_scale, mapping = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    done = 0
    play, play_phase = runner._play, runner._play_phase

    def counted(make: Any) -> Any:
        def make_counted(*arguments: Any) -> runner.Step:
            step = make(*arguments)

            def counting() -> int:
                nonlocal done
                count: int = step()
                done += count
                return count

            return counting

        return make_counted

    def count_phase(phase: Any, *rest: Any) -> None:
        nonlocal done
        done, began, cpu = 0, time.monotonic_ns(), time.process_time_ns()
        play_phase(phase, *rest)
        spent, cpu = time.monotonic_ns() - began, time.process_time_ns() - cpu
        event = {"event": "count", "name": phase.name, "accesses": done, "wall_ns": spent, "cpu_ns": cpu}
        print(json.dumps(event), flush=True)

    def play_when_told(*arguments: Any) -> None:
        sys.stdin.readline()
        play(*arguments)

    patched = vars(runner)
    patched["_sequential_step"] = counted(runner._sequential_step)
    patched["_random_step"] = counted(runner._random_step)
    patched["_play_phase"], patched["_play"] = count_phase, play_when_told
    runner.run(load(name), sys.stdout, mapping=mapping, time_scale=time_scale, as_json=True)


if __name__ == "__main__":
    main()
