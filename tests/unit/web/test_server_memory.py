"""Where the server's memory comes from, in a process of its own: it cannot be changed back."""

from __future__ import annotations

import subprocess
import sys


def test_the_server_takes_arrows_memory_from_the_c_library() -> None:
    code = "import pyarrow; from pydamon.web.server import keep_little; keep_little(); "
    code += "print(pyarrow.default_memory_pool().backend_name)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "system\n"
