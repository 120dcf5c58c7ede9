"""The examples of docs/library.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "library.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SAID = [
    r"^10 MB were accessed",  # stairs: one of ten regions of 10 MB is hot at any time
    r"^1[89]|20 snapshots",  # 2 s of 100 ms; one may be cut off by the end
    r"^\d+ MiB paged out, .*\n10 MiB hot",
    r"^effective quota: \d+ bytes",
    r"^\d+ snapshots until",
    r"^5\.0 s, \d+ regions, columns target, start_ns, end_ns, sample_us, aggr_us, start, end, nr_accesses, age",
    r"^working set: \d+ MiB at the 25th percentile, median 10 MiB",
    r"0x10000000",
    r"^2 1$",
]


@pytest.mark.parametrize(("number", "said"), list(enumerate(SAID)))
@pytest.mark.usefixtures("processes")
def test_an_example_of_the_page_runs(number: int, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXAMPLES[number]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout), done.stdout


def test_each_example_is_run() -> None:
    assert len(EXAMPLES) == len(SAID)


def test_what_there_is_can_be_listed() -> None:
    import pydamon

    assert dir(pydamon) == sorted(pydamon.__all__)
    assert all(hasattr(pydamon, name) for name in dir(pydamon))
