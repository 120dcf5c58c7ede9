"""``pydamon doctor``: what this machine offers this user."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.config import config_in_force
from pydamon.cli.doctor_summary import summary
from pydamon.cli.help.classes import Verb
from pydamon.cli.render.screen import echo, emit_json
from pydamon.linux.texts import read_text
from pydamon.spec.primitives import seeing

if TYPE_CHECKING:
    from pydamon.linux.damon_sysfs import Roots

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HEADINGS = {
    "ops": "operations sets (--ops)",
    "primitives": f"primitives (--primitive; {', '.join(seeing('write'))}: --access write)",
    "sources": "sources (--source)",
    "actions": "actions of schemes, on other processes",
    "filters": "filters of pages in schemes, attributes for probes",
    "metrics": "metrics of schemes' goals and watermarks",
}


@click.command("doctor", cls=Verb)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show what can be used here, in five lines and then in all detail, and what would enable the rest.

    Nothing is changed on the machine: files are looked at, a program that walks this process's own page tables may be
    loaded and removed again, and perf, where it is installed, samples the command "true".
    """
    found = examine()
    if as_json:
        emit_json(found)
        return
    for line in summary(found):
        echo(line)
    echo(f"\ndefaults: {found['config'] or 'none'}")
    for kind in ("engines", "ops", "primitives", "sources", "facilities", "actions", "filters", "metrics"):
        echo(f"{_HEADINGS.get(kind, kind)}:")
        for item in found[kind]:
            mark = "yes" if item["usable"] else "no "
            echo(f"  {mark}  {item['name']:<13} {item['what']}")
            if item["reason"] or item.get("remark"):
                echo(f"{'':21}{item['reason'] or item['remark']}")
    echo(f"--primitive auto picks: {found['auto']['primitive'] or 'none'} ({found['auto']['reason']})")


def examine() -> dict[str, Any]:
    """The findings as plain data; the shape of ``doctor --json``."""
    from pydamon.engines.user.choose import choose, offers
    from pydamon.errors import MachineError

    primitives = [
        {"name": o.name, "usable": o.obstacle is None, "what": o.what, "reason": o.obstacle} for o in offers()
    ]
    for item in primitives:
        if item["name"] == "bpf" and item["usable"]:
            from pydamon.primitives.bpf_sampler import shortcoming

            if remark := shortcoming():
                item["remark"] = remark
    try:
        choice = choose("auto")
        auto: dict[str, Any] = {"primitive": choice.name, "reason": choice.reason}
    except MachineError as error:
        auto = {"primitive": None, "reason": error.message}
    usable = auto["primitive"] is not None
    engines = [
        {
            "name": "user",
            "usable": usable,
            "what": "pydamon's own monitoring in user space, through a primitive below",
            "reason": None if usable else auto["reason"],
        },
        _kernel_engine(),
        {"name": "sim", "usable": True, "what": "simulated workloads in virtual time", "reason": None},
    ]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "uid": os.geteuid(),
        "user": _user_name(),
        "engines": engines,
        "ops": _ops(None if usable else auto["reason"]),
        "primitives": primitives,
        "sources": _sources(),
        "facilities": _facilities(),
        **_schemes(),
        "auto": auto,
        "config": config_in_force(),
    }


def _item(name: str, what: str, probe: Callable[[], object] | None = None) -> dict[str, Any]:
    """One finding; ``probe`` raises MachineError with the reason why not, and what would help."""
    from pydamon.errors import MachineError

    reason = None
    try:
        if probe is not None:
            probe()
    except MachineError as error:
        # A file is worth naming; a name that stands beside it already is not.
        bare = error.where is None or error.where.split()[0].split("-")[0] in name
        reason = error.message if bare else str(error)
    return {"name": name, "usable": reason is None, "what": what, "reason": reason}


def _ops(no_primitive: str | None) -> list[dict[str, Any]]:
    """The operations sets; ``no_primitive`` says why no process can be asked, if that is so."""
    from pydamon.errors import MachineError
    from pydamon.ops import paddr

    def primitive() -> None:
        if no_primitive is not None:
            raise MachineError(no_primitive)

    return [
        _item("vaddr", "processes, a command, their children, a cgroup", primitive),
        _item("fvaddr", "fixed ranges of processes", primitive),
        _item("paddr", "physical memory", paddr.probe),
        _item("reported", "accesses that a source (below) or a program reports"),
        _item("sim", "simulated workloads in virtual time"),
    ]


def _sources() -> list[dict[str, Any]]:
    from pydamon.linux import perf_pmu
    from pydamon.ops.reported.sources import perf_event, perf_mem, valgrind

    live = _item("perf-event", "address samples of loads and stores, live, without perf", perf_event.probe)
    if live["usable"] and perf_pmu.event().aux:
        live["remark"] = "through Arm's SPE: decoded by its documents, not seen on such a machine so far"
    return [
        live,
        _item("page-faults", "first touches of pages, live: perf-event:page-faults", perf_event.probe_page_faults),
        _item("valgrind", "every access of a launched command, exactly, in instruction time", valgrind.probe),
        _item("perf-mem", "address samples of a command or of processes, live", perf_mem.probe),
        _item("lackey", "a trace that valgrind wrote to a file"),
        _item("perf-script", "address samples as perf script prints them"),
    ]


def _facilities() -> list[dict[str, Any]]:
    """What makes records richer, or can be named as a target."""
    from pydamon.linux import lru_gen, resctrl, user_events, userfaultfd
    from pydamon.ops import reverse_map

    return [
        _item("reverse map", "paddr: whose memory a physical range is", reverse_map.probe),
        _item("cgroup v2", "--cgroup: the processes of a cgroup as targets", _probe_cgroup),
        _item("generations", "pydamon generations: idle memory as the kernel's reclaim has sorted it", lru_gen.probe),
        _item("resctrl", "cache occupancy and memory bandwidth beside the accesses", resctrl.probe),
        _item("damonfs", "pydamon mount: DAMON's files, served by the user engine", _probe_mount),
        _item("user events", "--user-events: what is found as events for perf and trace-cmd", user_events.probe),
        _item(
            "own pages",
            "pydamon.OwnPages, GuestPages: each page that a program, or its guest, accesses",
            userfaultfd.probe,
        ),
        _item("huge pages", "a 2 MiB page that the kernel maps is checked as one page", _probe_huge_pages),
    ]


def _schemes() -> dict[str, list[dict[str, Any]]]:
    """What schemes may do here."""
    from pydamon.ops.actions import probe

    found = {"actions": probe.actions(), "filters": probe.filters(), "metrics": probe.metrics()}
    return {
        kind: [
            {"name": i.name, "usable": i.obstacle is None, "what": i.what, "reason": i.obstacle, "remark": i.remark}
            for i in items
        ]
        for kind, items in found.items()
    }


def _probe_cgroup() -> None:
    from pydamon.errors import MachineError
    from pydamon.linux.mounts import mounts

    if not mounts("cgroup2"):
        raise MachineError("is not mounted; as root: mount -t cgroup2 none /sys/fs/cgroup")


def _probe_huge_pages() -> None:
    from pydamon.errors import MachineError

    try:
        text = read_text(_HUGE_PAGES)
    except OSError:
        raise MachineError("the kernel has no transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE)") from None
    if "[never]" in text:
        raise MachineError(f"are off; as root: echo madvise > {_HUGE_PAGES}")


def _kernel_engine(roots: Roots | None = None) -> dict[str, Any]:
    """Whether the kernel's own DAMON can be used now; from reading only."""
    from pydamon.linux.damon_sysfs import Roots
    from pydamon.run.kernel import how_results_come, obstacle

    roots = roots if roots is not None else Roots()
    reason = obstacle(roots)
    item = {"name": "kernel", "usable": reason is None, "what": "the kernel's own DAMON, driven through its files"}
    return {**item, "reason": reason, **({} if reason else {"remark": how_results_come(roots)})}


def _probe_mount() -> None:
    from pydamon.damonfs.fuse import binding
    from pydamon.errors import MachineError

    binding()
    if not os.path.exists("/dev/fuse"):
        raise MachineError("there is no /dev/fuse; as root: modprobe fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MachineError("/dev/fuse is not for this user; run as root")


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
