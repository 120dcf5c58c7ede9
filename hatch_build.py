"""What is made while a wheel is built: the pages of the manual, from the definitions of the verbs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``share/man/man1/pydamon*.1`` into a wheel. An editable installation needs none."""

    _made: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or self.target_name != "wheel":
            return
        self._made = tempfile.mkdtemp(prefix="pydamon-man-")
        code = "import sys; from pydamon.cli import main; sys.exit(main(sys.argv[1:]))"
        # In a process of its own: the build's own is not to keep modules of ours.
        command = [sys.executable, "-c", code, "help", "--man", self._made]
        subprocess.run(command, check=True, cwd=Path(self.root, "src"))
        for page in sorted(Path(self._made).glob("*.1")):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)
