"""Where the server's memory comes from and when it goes, in a process of its own: it cannot be changed back."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("processes")


def test_the_server_takes_arrows_memory_from_the_c_library_and_looks_for_garbage_as_python_does() -> None:
    code = "import gc, pyarrow; from pydamon import lean; lean.begin(); from pydamon.web.server import keep_little; "
    code += "keep_little(); print(pyarrow.default_memory_pool().backend_name, gc.get_threshold()[0] <= 2000)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout == "system True\n"
