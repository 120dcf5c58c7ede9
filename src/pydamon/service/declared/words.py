"""A service file in plain words, and what of it this machine cannot do."""

from __future__ import annotations

from pydamon.errors import located
from pydamon.modules.registry import expand
from pydamon.run.directory import group_id
from pydamon.service.declared.file import Monitor, Recording, Service, load
from pydamon.service.shipping.settings import Shipping
from pydamon.spec.units import format_duration_ns, format_size


def describe(path: str) -> list[str]:
    """What the file declares. Raises RequestError naming the file and the field, also for a group that is not there."""
    service = load(path)
    if service.group is not None:
        with located(service.path.rpartition("/")[2], ": "):
            group_id(service.group)
    return [f"ok: service {service.name}, {_count(len(service.monitors), 'monitor')}", *_lines(service)]


def _lines(service: Service) -> list[str]:
    lines = [line for monitor in service.monitors for line in _monitor(monitor)]
    if service.group is not None:
        lines.append(f"the group {service.group} may look at them")
    if service.metrics is not None:
        lines.append(f"metrics: {service.metrics}")
    return lines if service.shipping is None else [*lines, *_shipping(service.shipping)]


def _shipping(shipping: Shipping) -> list[str]:
    host_class = "" if shipping.host_class is None else f", of the class {shipping.host_class}"
    every, most = format_duration_ns(shipping.every_s * 10**9), format_size(shipping.most_bytes)
    lines = [
        f"shipped to {shipping.where} as {shipping.host_name()}{host_class}, every {every}",
        f"  until then in {shipping.spool}, at most {most}",
    ]
    return lines if not shipping.regions else [*lines, f"  regions on one day of {shipping.regions}"]


def _monitor(monitor: Monitor) -> list[str]:
    context = expand(monitor.spec).context
    acts = [scheme.name or scheme.action for scheme in context.schemes]
    does = f"; schemes: {', '.join(acts)}{' (dry run)' if monitor.request.dry_run else ''}" if acts else ""
    lines = [f"{monitor.name}: {_who(monitor)}{does}"]
    if monitor.recording is not None:
        lines.append(f"  recorded in {monitor.recording.directory}/{monitor.name}, {_rotation(monitor.recording)}")
    return lines


def _who(monitor: Monitor) -> str:
    context = monitor.spec.context
    if context.ops == "paddr":
        return "physical memory"
    if context.ops == "sim":
        return f"the workload {monitor.request.workload}, simulated in real time"
    match = context.match
    if context.cgroup is not None:
        return f"the cgroup {context.cgroup}"
    if match is None:
        children = " and what they start" if context.include_children else ""
        return f"processes {', '.join(map(str, context.pids))}{children}"
    parts = [f"named {' or '.join(match.names)}"] if match.names else []
    parts += [f"in the cgroups {' or '.join(match.cgroups)}"] if match.cgroups else []
    return f"processes {' or '.join(parts)}, at most {match.most} at a time"


def _rotation(recording: Recording) -> str:
    size_bytes, time_ns = recording.rotate
    if size_bytes is not None:
        text = f"a new file after {format_size(size_bytes)}"
    else:
        text = f"a new file after {format_duration_ns(time_ns or 0)}"
    keep, kept = recording.keep, []
    if keep.files is not None:
        kept.append(_count(keep.files, "file"))
    if keep.size_bytes is not None:
        kept.append(format_size(keep.size_bytes))
    if keep.age_ns is not None:
        kept.append(format_duration_ns(keep.age_ns))
    return f"{text}, at most {' and '.join(kept)} kept" if kept else f"{text}, all kept"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
