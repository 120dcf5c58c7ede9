"""``pydamon generations`` on a copy of the kernel's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.linux.test_lru_gen import TEXT

from pydamon.cli import main

Capsys = pytest.CaptureFixture[str]
SHOWN = """\
idle, by the kernel's generations (four at most: a page's time is known between two of them)
idle for   at least    at most
all       112.2 MiB  112.2 MiB
>= 1 s    100.4 MiB  112.2 MiB
>= 2 s    100.4 MiB  112.2 MiB
>= 5 s    100.4 MiB  112.2 MiB
>= 10 s   100.4 MiB  112.2 MiB
>= 20 s   100.4 MiB  112.2 MiB
>= 30 s   100.4 MiB  112.2 MiB
>= 1 min        0 B  100.4 MiB

cgroup                        node        last accessed  anonymous  of files
/system.slice/my app.service     0      0 s to 31 s ago   10.0 MiB   1.0 MiB
/system.slice/my app.service     0  31 s ago or earlier  100.0 MiB       0 B
/system.slice/my app.service     1      0 s to 31 s ago  800.0 KiB       0 B
/system.slice/my app.service     1  31 s ago or earlier  400.0 KiB       0 B
"""


@pytest.fixture
def copy(tmp_path: Path) -> str:
    path = tmp_path / "lru_gen"
    path.write_text(TEXT + "memcg 9 /e\x1b[31mvil\n node 0\n 1 5 1 1\n")
    return str(path)


def test_one_cgroup_by_node_and_generation(copy: str, capsys: Capsys) -> None:
    assert main(["generations", "-i", copy, "--cgroup", "/system.slice"]) == 0
    assert capsys.readouterr().out == SHOWN


def test_all_of_them_the_largest_first_and_nothing_drives_the_terminal(copy: str, capsys: Capsys) -> None:
    assert main(["generations", "-i", copy]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("cgroup"))
    assert [line.split()[0] for line in lines[at + 1 :]] == ["/system.slice/my", "/", "/e\\x1b[31mvil"]
    assert "\x1b" not in told


def test_json_has_every_generation(copy: str, capsys: Capsys) -> None:
    assert main(["generations", "-i", copy, "--json", "--node", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["idle"][0] == {"idle_at_least_s": 0, "least_bytes": 300 * 4096, "most_bytes": 300 * 4096}
    (part,) = told["parts"]
    assert (part["path"], part["node"]) == ("/system.slice/my app.service", 1)
    assert part["generations"][0] == {
        "number": 0,
        "low_ms": 31000,
        "high_ms": None,
        "anon_bytes": 100 * 4096,
        "file_bytes": 0,
    }


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        (["--cgroup", "/sys"], 2, "--cgroup: '/sys' has no generations; name it from the root"),
        (["--node", "7"], 2, "--node: 7 has no generations"),
        (["-i", "/no/such"], 2, "/no/such: cannot be read"),
        (["-i", "/etc/passwd"], 2, "/etc/passwd: has no generations in it"),
    ],
)
def test_what_there_is_not_is_one_line(options: list[str], status: int, why: str, copy: str, capsys: Capsys) -> None:
    given = options if "-i" in options else ["-i", copy, *options]
    assert main(["generations", *given]) == status
    said = capsys.readouterr().err.strip().split("\n")
    assert why in said[-1]


@pytest.mark.parametrize("text", ["", "\n \n"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--cgroup", "/"]])
def test_an_empty_copy_holds_no_generations(tmp_path: Path, text: str, options: list[str], capsys: Capsys) -> None:
    path = tmp_path / "copy"
    path.write_text(text)
    assert main(["generations", "-i", str(path), *options]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == f"pydamon: {path}: is empty: it holds no generations; debugfs has them in lru_gen\n"
