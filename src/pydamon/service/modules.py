"""The kernel's special-purpose modules for the command: a spec's ``modules``, and those that this user has started."""

from __future__ import annotations

from pydamon.engines.kernel import modules
from pydamon.linux import damon_sysfs
from pydamon.linux.damon_sysfs import Roots, Thread
from pydamon.run.directory import RuntimeDirectory
from pydamon.spec import Spec
from pydamon.spec.modules import Value


def start(spec: Spec, roots: Roots | None = None) -> tuple[str, Thread]:
    """Set and enable the module of ``spec``; its name and its kdamond. It goes on when this process has ended.

    Raises as `modules.start`; all is as before then.
    """
    name, parameters = only(spec)
    with RuntimeDirectory() as directory:
        return name, modules.start(name, parameters, directory_fd=directory.fileno(), roots=roots)


def tune(spec: Spec, roots: Roots | None = None) -> str:
    """Give a module that this user has started the parameters of ``spec``; its name. Raises as `start`."""
    name, parameters = only(spec)
    with RuntimeDirectory() as directory:
        modules.tune(name, parameters, directory_fd=directory.fileno(), roots=roots)
    return name


def stop(name: str, roots: Roots | None = None) -> None:
    """Disable a module that this user has started. Raises MachineError if it is somebody else's."""
    with RuntimeDirectory() as directory:
        modules.stop(name, directory_fd=directory.fileno(), roots=roots)


def ours(roots: Roots | None = None) -> list[str]:
    """The modules that run and that this user has started (at most one)."""
    roots = roots if roots is not None else Roots()
    with RuntimeDirectory() as directory:
        fd = directory.fileno()
        found = [each for each in damon_sysfs.modules(roots) if each.state == "on"]
        return [
            each.what.removeprefix("module ") for each in found if modules.is_ours(each, directory_fd=fd, roots=roots)
        ]


def only(spec: Spec) -> tuple[str, dict[str, Value]]:
    """The one module of a validated spec for modules, and its parameters."""
    ((name, parameters),) = spec.modules.items()
    return name, parameters
