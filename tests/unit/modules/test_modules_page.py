"""The examples of docs/modules.md that are no command lines do what is said there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.command import pydamon

PAGE = (Path(__file__).parents[3] / "docs" / "modules.md").read_text()


@pytest.mark.usefixtures("processes")
def test_the_example_of_the_library_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"reclaim: [1-9]\d* MiB paged out\n", done.stdout)


@pytest.mark.usefixtures("processes")
def test_the_service_file_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(monitors:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (said,) = re.findall(r"^\$ pydamon service check web.yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "web.yaml"
    file.write_text(example)
    assert pydamon("service", "check", str(file)).stdout == said
