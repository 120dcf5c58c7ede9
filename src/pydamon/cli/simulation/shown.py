"""What ``simulate`` prints and draws."""

from __future__ import annotations

from collections.abc import Sequence

from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.plain import printable
from pydamon.run.simulation.results import THRASHING, Result
from pydamon.run.simulation.runs import Setting
from pydamon.spec.units import format_duration_ns, format_size


def text(results: Sequence[Result], setting: Setting, screen: Screen) -> list[str]:
    """Lines: who ran on what, the runs side by side, then what is behind it."""
    who = ", ".join(program.name for program in setting.programs)
    lines = [styled(screen.fit(f"{printable(who)}, simulated"), BOLD, screen)]
    lines.append(styled(screen.fit(machine_words(results[0], setting)), DIM, screen))
    rows = [_row(result) for result in results]
    lines += table(["", "used", "saved", "refaults", "slowdown", "waiting", "CPU"], rows, screen)
    lines += ["", *_details(results, screen)]
    lines += _warnings(results)
    return lines


def machine_words(result: Result, setting: Setting) -> str:
    """How long it ran, and on what."""
    machine = setting.machine
    nodes = " + ".join(map(format_size, machine.node_bytes)) if machine.node_bytes else "as much as is needed"
    if machine.swap_bytes == 0:
        swap = "no swap"
    else:
        size = "" if machine.swap_bytes is None else f" of {format_size(machine.swap_bytes)}"
        swap = f"swap{size} in zram" if machine.swap == "zram" else f"swap{size} on an SSD"
    return f"{format_duration_ns(result.duration_ns)}, memory {nodes}, {swap}, reclaim {machine.reclaim}"


def _row(result: Result) -> list[str]:
    saved = f"{100 * result.saved_bytes / max(result.used_bytes + result.saved_bytes, 1):.1f} %"
    return [
        printable(result.label),
        format_size(result.used_bytes),
        saved,
        f"{format_size(round(result.refaults_per_minute))}/min",
        _percent(result.slowdown),
        _percent(result.psi["memory some"]),
        _percent(result.scheme_share + result.monitor_share + result.reclaim_share),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _details(results: Sequence[Result], screen: Screen) -> list[str]:
    """What is not the same as without a policy, or not zero."""
    lines = []
    for result in results:
        lines.append(screen.fit(f"{printable(result.label)}:"))
        parts = ", ".join(f"{name} {_percent(value)}" for name, value in result.parts.items() if abs(value) >= 5e-5)
        lines.append(screen.fit(f"  slowdown: {parts or 'none'}"))
        cpu = {"monitoring": result.monitor_share, "schemes": result.scheme_share, "reclaim": result.reclaim_share}
        lines.append(screen.fit("  CPU: " + ", ".join(f"{name} {_percent(share)}" for name, share in cpu.items())))
        for scheme in result.schemes:
            stats = scheme.stats
            words = f"tried {format_size(stats['sz_tried'])}, applied {format_size(stats['sz_applied'])}"
            words += f" in {stats['nr_applied']} regions" + (
                f", quota exceeded {stats['qt_exceeds']} times" if stats["qt_exceeds"] else ""
            )
            lines.append(screen.fit(f"  scheme {printable(scheme.name)}: {words}"))
        if len(result.processes) > 1:
            for process in result.processes:
                words = f"{format_size(process.resident_bytes)} in memory, slowdown {_percent(process.slowdown)}"
                lines.append(screen.fit(f"  {printable(process.name)}: {words}"))
        counted = ", ".join(f"{name} {value:,}" for name, value in result.counters.items() if value)
        lines.append(screen.fit(f"  counted: {counted or 'nothing'}"))
    return lines


def _warnings(results: Sequence[Result]) -> list[str]:
    lines = []
    for result in results:
        if result.slowdown > THRASHING:
            lines.append(
                f"{printable(result.label)}: with a slowdown of {_percent(result.slowdown)} the programs would access "
                "their memory later than is simulated: take it as thrashing, not as a number"
            )
    return lines
