"""What packaging/ holds, held against the tools that will read it, and the capabilities of the unit tried for real."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.helpers.command import PYDAMON
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError
from pydamon.primitives import bpf
from pydamon.records.reader import RecordReader
from pydamon.service.declared.file import load

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "systemd" / "pydamon@.service"
CAPABILITIES = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_NICE", "CAP_SYS_PTRACE"]
NOBODY = 65534


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, **options)


def tool(name: str) -> str:
    """Where it is: in the environment of these tests, or on the path."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(UNIT)
    return parsed


class TestUnit:
    def test_systemd_understands_all_of_it(self, tmp_path: Path) -> None:
        copy = tmp_path / UNIT.name
        copy.write_text(UNIT.read_text().replace("/usr/bin/pydamon", "/bin/true"))  # which is not installed here
        done = run(tool("systemd-analyze"), "verify", "--man=no", str(copy))
        assert (done.returncode, done.stderr) == (0, "")

    def test_its_exposure_is_low(self) -> None:
        done = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", str(UNIT))
        found = re.search(r"Overall exposure level.*: ([\d.]+)", done.stdout)
        assert found is not None, done.stderr
        assert float(found[1]) <= 3

    def test_it_has_the_least_capabilities_and_drop_ins_say_why_there_are_more(self) -> None:
        service = unit()["Service"]
        assert service["AmbientCapabilities"].split() == service["CapabilityBoundingSet"].split() == CAPABILITIES
        idle = (PACKAGING / "systemd/drop-ins/idle.conf").read_text()
        assert "#AmbientCapabilities=CAP_SYS_ADMIN" in idle
        assert not re.search("^Ambient", idle, re.MULTILINE)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user with capabilities")
    def test_with_exactly_these_an_ordinary_user_records_roots_process_through_bpf(self, tmp_path: Path) -> None:
        try:
            bpf.probe()
        except MachineError as error:
            pytest.skip(str(error))
        folder = Path(f"/tmp/pydamon-packaging-{os.getpid()}")  # which nobody may enter
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
        code = "print('ready', flush=True)\nx = bytearray(1 << 24)\nwhile True: x[::4096] = b'1' * len(x[::4096])"
        caps = ",".join(
            "+" + name.removeprefix("CAP_").lower() for name in unit()["Service"]["AmbientCapabilities"].split()
        )
        who = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
        limits = [f"--{kind}=-all,{caps}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
        try:
            with program(code) as pid:
                words = ["record", "--primitive", "bpf", "--duration", "1s", "--force", "-o", str(folder / "x.damon")]

                def accesses_are_seen() -> bool:
                    done = run(tool("setpriv"), *who, *limits, *PYDAMON, *words, str(pid), env=environment, cwd="/")
                    assert done.returncode == 0, done.stderr
                    with RecordReader(str(folder / "x.damon")) as reader:
                        return any(one.nr_accesses.any() for one in reader.snapshots())

                # Where the machine stalls for that second, there is nothing to see, so another is asked for.
                wait_until(accesses_are_seen)
        finally:
            shutil.rmtree(folder)


def test_the_dockerfile_passes_hadolint_and_its_sources_are_there() -> None:
    path = PACKAGING / "container" / "Dockerfile"
    done = run(tool("hadolint"), str(path))
    assert (done.returncode, done.stdout) == (0, "")
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())


class TestKubernetes:
    @pytest.mark.parametrize("name", ["namespace.yaml", "daemonset.yaml"])
    def test_each_resource_is_valid(self, name: str) -> None:
        done = run(tool("kubernetes-validate"), str(PACKAGING / "kubernetes" / name))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "passed" in done.stdout + done.stderr

    def test_each_privilege_has_its_reason(self) -> None:
        lines = (PACKAGING / "kubernetes/daemonset.yaml").read_text().splitlines()
        added = [line for line in lines if re.match(r" +- [A-Z_]+( |$)", line)]
        assert {f"CAP_{line.split()[1]}" for line in added} == {*CAPABILITIES, "CAP_DAC_READ_SEARCH"}
        assert all(" # " in line for line in added)
        spec = yaml.safe_load("\n".join(lines))["spec"]["template"]["spec"]
        assert spec["containers"][0]["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert "privileged" not in spec["containers"][0]["securityContext"]

    def test_the_base_is_built_with_the_service_file_in_it(self) -> None:
        done = run(tool("kubectl"), "kustomize", str(PACKAGING / "kubernetes"))
        assert done.returncode == 0, done.stderr
        kinds = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
        assert set(kinds) == {"Namespace", "ConfigMap", "DaemonSet"}
        (volume,) = (each for each in kinds["DaemonSet"]["spec"]["template"]["spec"]["volumes"] if "configMap" in each)
        assert volume["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]


@pytest.mark.parametrize("path", ["kubernetes/service.yaml", "debian/service.yaml"])
def test_the_service_files_that_are_shipped_are_valid(path: str) -> None:
    assert load(str(PACKAGING / path)).monitors


@pytest.mark.slow
def test_the_debian_package_is_built_and_runs_where_it_is_installed(tmp_path: Path) -> None:
    for needed in ("dpkg-deb", "unshare", "/usr/bin/python3"):
        tool(needed)
    if run("/usr/bin/python3", "-c", "import ensurepip").returncode or os.geteuid() != 0:
        pytest.skip("needs python3-venv, and root to mount what was unpacked")
    built = run(str(PACKAGING / "debian/build"))
    assert built.returncode == 0, built.stderr
    package = ROOT / built.stdout.splitlines()[-1]
    listed = run("dpkg-deb", "-c", str(package)).stdout
    names = [line.split(maxsplit=5)[5].partition(" -> ")[0] for line in listed.splitlines()]
    assert {"./usr/bin/pydamon", "./usr/lib/systemd/system/pydamon@.service", "./etc/pydamon/"} <= set(names)
    assert "./usr/share/man/man1/pydamon-service.1.gz" in names
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())
    assert not [line for line in listed.splitlines() if line[0] == "-" and line[8] == "w"]  # nothing that all may write
    assert not [name for name in names if "__pycache__" in name or name.startswith("./var")]
    control = run("dpkg-deb", "-f", str(package)).stdout
    assert re.search(r"^Depends: python3 \(>= 3\.\d+\), python3 \(<< 3\.\d+\)$", control, re.MULTILINE)
    assert run("dpkg-deb", "-x", str(package), str(tmp_path)).returncode == 0
    assert not list(tmp_path.rglob("direct_url.json"))
    script = 'mount --bind "$0/opt" /opt && exec /opt/pydamon/bin/pydamon --version'
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = run("unshare", "--mount", "sh", "-c", script, str(tmp_path), env=environment, cwd="/")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("pydamon ")
