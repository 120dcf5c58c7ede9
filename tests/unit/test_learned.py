"""Types that several threads read: none is looked at by two at once, which crashes the process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pydamon

_MANY_AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
from pydamon.errors import PydamonError
from pydamon.views.live import read
began = threading.Barrier(16)

def refused():
    began.wait()
    try:
        read({"time_ns": 1})
    except PydamonError:
        pass

threads = [threading.Thread(target=refused) for _ in range(16)]
for one in threads:
    one.start()
for one in threads:
    one.join()
"""


@pytest.mark.usefixtures("processes")
def test_threads_that_read_a_type_for_the_first_time_at_once_live() -> None:
    for _ in range(6):  # without a lock one of three was ended by SIGSEGV
        assert subprocess.run([sys.executable, "-c", _MANY_AT_ONCE], timeout=120).returncode == 0


def test_all_that_is_read_as_a_type_is_learned_first() -> None:
    wrong = []
    for path in Path(pydamon.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            kinds = [each.value for each in node.keywords if each.arg == "type"]
            if called == "msgspec.convert":
                kinds = node.args[1:2]
            elif called != "msgspec.json.decode":
                continue
            wrong += [f"{path}:{node.lineno}" for kind in kinds if not ast.unparse(kind).startswith("learned(")]
    assert not wrong
