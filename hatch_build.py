"""What is made while a wheel is built, from the definitions of the verbs: the manual, and completion for shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_COMPLETION = {
    "bash": "share/bash-completion/completions/pydamon",
    "zsh": "share/zsh/site-functions/_pydamon",
    "fish": "share/fish/vendor_completions.d/pydamon.fish",
}


class ManualHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``share/man/man1/pydamon*.1`` and what shells look for into a wheel. An editable installation needs none."""

    _made: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or self.target_name != "wheel":
            return
        self._made = tempfile.mkdtemp(prefix="pydamon-man-")
        self._pydamon("help", "--man", self._made)
        for page in sorted(Path(self._made).glob("*.1")):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
        for shell, place in _COMPLETION.items():
            script = Path(self._made, shell)
            script.write_text(self._pydamon("completion", shell))
            build_data["shared_data"][str(script)] = place

    def _pydamon(self, *arguments: str) -> str:
        """What pydamon of this tree prints, in a process of its own: the build's own is not to keep modules of ours."""
        code = "import sys; from pydamon.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "--no-config", *arguments]
        source = Path(self.root, "src")
        return subprocess.run(command, check=True, cwd=source, stdout=subprocess.PIPE, text=True).stdout

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)
