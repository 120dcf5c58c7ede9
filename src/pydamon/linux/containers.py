"""Which container a process is in: by its cgroup's path, and by what the container's runtime wrote down of it.

Paths are as the runtimes make them, with both cgroup drivers: ``…-podUID.slice/crio-ID.scope`` (systemd),
``…/kubepods/burstable/podUID/ID`` (cgroupfs); without Kubernetes ``…/docker-ID.scope`` and ``…/docker/ID``.
Names come from files that only root can read on most machines; who cannot has the ids alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from pydamon.linux.texts import read_text

_ID = r"[0-9a-f]{64}"
_CONTAINER = re.compile(rf"(?:(?P<runtime>cri-containerd|crio|docker|libpod|nerdctl)[-:])?(?P<id>{_ID})(?:\.scope)?")
_POD = re.compile(r"(?:.*-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?")
_MOST_BYTES = 1 << 20  # of a runtime's description
_LONGEST = 253  # characters of a name: Kubernetes has no longer ones

# Where a runtime describes a container ({id}), and by which keys (containerd, CRI-O, docker).
_FILES = (
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
    "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
    "/run/containers/storage/overlay-containers/{id}/userdata/config.json",
    "/var/lib/docker/containers/{id}/config.v2.json",
)
_KEYS = {
    "namespace": ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
    "pod": ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
    "container": ("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
}
# The machine's own files, and, in a container that shares its process ids, those of the host.
ROOTS = ("", "/proc/1/root")


class Container(msgspec.Struct, frozen=True):
    """A process's place: the path of its ``cgroup`` (empty: not known); in a container, its ``id`` and its pod's.

    ``namespace``, ``pod`` and ``container`` are names, None where nobody told; docker's own have a ``container`` only.
    """

    cgroup: str = ""
    id: str | None = None
    pod_uid: str | None = None
    namespace: str | None = None
    pod: str | None = None
    container: str | None = None


def cgroup_of(pid: int) -> str:
    """The path of the process's cgroup (version 2; else that of its memory controller); empty if it has ended."""
    try:
        text = read_text(f"/proc/{pid}/cgroup")
    except OSError:
        return ""
    found = ""
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            found = path if not found or path != "/" else found
    return found


def parse(cgroup: str) -> Container:
    """What the path alone tells."""
    container = pod = None
    for part in re.split("[/:]", cgroup):  # a colon where containerd was told of the other cgroup driver
        if (match := _POD.fullmatch(part)) is not None:
            pod = match[1].replace("_", "-")
        if (match := _CONTAINER.fullmatch(part)) is not None:
            container = match["id"]
    return Container(cgroup, container, pod)


def named(found: Container, roots: Sequence[str] = ROOTS) -> Container:
    """The same with the names that the runtime wrote down, where they can be read."""
    if found.id is None:
        return found
    for root in roots:
        for path in _FILES:
            told = _described(root + path.format(id=found.id))
            if told is not None:
                return msgspec.structs.replace(found, **told)
    return found


def _described(path: str) -> dict[str, str | None] | None:
    """The names in a runtime's description; None if there is none that can be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # it may be a pipe
            described = msgspec.json.decode(file.read(_MOST_BYTES) or b"")
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(described, dict):
        return None
    labels: dict[str, Any] = {}
    config = described.get("Config")
    for more in (described.get("annotations"), config.get("Labels") if isinstance(config, dict) else None):
        labels |= more if isinstance(more, dict) else {}
    found = {name: _first(labels, keys) for name, keys in _KEYS.items()}
    if found["container"] is None and isinstance(own := described.get("Name"), str):
        found["container"] = own.lstrip("/")[:_LONGEST] or None
    return found


def _first(labels: dict[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        value = labels.get(key)
        if isinstance(value, str) and value:
            return value[:_LONGEST]
    return None
