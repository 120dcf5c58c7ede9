"""Which container a process is in: paths as runtimes make them, and what they wrote down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pydamon.linux.containers import Container, cgroup_of, named, parse

ID = "0123456789abcdef" * 4
POD = "1f4bfa85-0a0b-4c0d-8e0f-000000000001"
SLICED = POD.replace("-", "_")
BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice"


@pytest.mark.parametrize(
    ("path", "container", "pod"),
    [
        (f"{BURSTABLE}/cri-containerd-{ID}.scope", ID, POD),
        (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-{ID}.scope", ID, POD),
        (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-{ID}.scope/container", ID, POD),
        (f"/kubepods/burstable/pod{POD}/{ID}", ID, POD),
        (f"/kubepods/pod{POD}/crio-{ID}", ID, POD),
        (f"/kubelet.slice/kubelet-{BURSTABLE[1:]}/cri-containerd-{ID}.scope", ID, POD),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod{SLICED}.slice:cri-containerd:{ID}", ID, POD),
        (f"/kubepods/besteffort/pod{'0f' * 16}/{ID}", ID, "0f" * 16),  # a static pod
        (f"/system.slice/docker-{ID}.scope", ID, None),
        (f"/docker/{ID}", ID, None),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, None),
        (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-conmon-{ID}.scope", None, POD),
        ("/system.slice/nginx.service", None, None),
        (f"/user.slice/{ID[:40]}", None, None),
        ("", None, None),
    ],
)
def test_paths_of_both_cgroup_drivers(path: str, container: str | None, pod: str | None) -> None:
    assert parse(path) == Container(path, container, pod)


def write(root: Path, path: str, told: Any) -> str:
    file = root / path.format(id=ID).lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return str(root)


CONTAINERD = {
    "annotations": {
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.container-name": "nginx",
    }
}
LABELS = {
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.container.name": "nginx",
}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json", CONTAINERD),
        ("/run/containers/storage/overlay-containers/{id}/userdata/config.json", {"annotations": LABELS}),
        ("/var/lib/docker/containers/{id}/config.v2.json", {"Name": "/k8s_nginx_web-0", "Config": {"Labels": LABELS}}),
    ],
)
def test_names_are_those_that_the_runtime_wrote_down(tmp_path: Path, path: str, told: Any) -> None:
    root = write(tmp_path, path, told)
    found = named(parse(f"/docker/{ID}"), roots=["/nowhere", root])
    assert (found.namespace, found.pod, found.container) == ("shop", "web-0", "nginx")
    assert found.id == ID


def test_a_container_of_docker_has_its_own_name(tmp_path: Path) -> None:
    root = write(tmp_path, "/var/lib/docker/containers/{id}/config.v2.json", {"Name": "/cache", "Config": {}})
    found = named(parse(f"/docker/{ID}"), roots=[root])
    assert (found.namespace, found.pod, found.container) == (None, None, "cache")


@pytest.mark.parametrize(
    "told",
    [
        "", "{", "[]", "null", '"x"', "[" * 100_000, '{"annotations": [1], "Config": 3, "Name": 4}',
        '{"annotations": {"io.kubernetes.pod.name": 7}}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_leaves_the_ids(tmp_path: Path, told: str) -> None:
    root = write(tmp_path, "/var/lib/docker/containers/{id}/config.v2.json", told)
    assert named(parse(f"/docker/{ID}"), roots=[root]) == parse(f"/docker/{ID}")
    assert named(parse("/system.slice/x.service"), roots=[root]).container is None


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / f"var/lib/docker/containers/{ID}/config.v2.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert named(parse(f"/docker/{ID}"), roots=[str(tmp_path)]).container is None


def test_long_names_are_cut(tmp_path: Path) -> None:
    root = write(tmp_path, "/var/lib/docker/containers/{id}/config.v2.json", {"Name": "/" + "n" * 9999})
    assert named(parse(f"/docker/{ID}"), roots=[root]).container == "n" * 253


def test_a_process_has_a_cgroup_and_one_that_has_ended_has_none() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    assert any(line.endswith(f":{cgroup_of(os.getpid())}") for line in lines)
    assert cgroup_of(1 << 22) == ""
