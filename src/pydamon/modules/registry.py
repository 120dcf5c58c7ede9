"""All modules, by name; their notation ``reclaim min_age=30s quota=128MiB/1s``; and what they make of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from pydamon.errors import RequestError, located
from pydamon.modules import meeting
from pydamon.modules.autoscale import AUTOSCALE
from pydamon.modules.base import Facts, Module, Target, Use
from pydamon.modules.etmem import ETMEM
from pydamon.modules.lru_sort import LRU_SORT
from pydamon.modules.protect import PROTECT
from pydamon.modules.reclaim import RECLAIM
from pydamon.modules.stat import STAT
from pydamon.modules.thp import THP
from pydamon.modules.tier import TIER
from pydamon.modules.zram_writeback import ZRAM_WRITEBACK
from pydamon.spec import Context, Spec
from pydamon.spec.forms.scheme_short import guess, shown
from pydamon.spec.schemes import Scheme

_ALL = (
    RECLAIM,
    LRU_SORT,
    PROTECT,
    ZRAM_WRITEBACK,
    STAT,
    THP,
    TIER,
    ETMEM,
    AUTOSCALE,
)
MODULES: Mapping[str, Module] = {module.name: module for module in _ALL}
_LONGEST = 4096  # characters


class _HasScheme(Protocol):
    @property
    def scheme(self) -> Scheme: ...


_State = TypeVar("_State", bound=_HasScheme)


def parse(given: str | Mapping[str, Any]) -> Use:
    """A module from its text, or from an object with its ``name`` and knobs. Raises RequestError naming both."""
    if isinstance(given, str):
        if len(given) > _LONGEST:
            raise RequestError(f"is longer than {_LONGEST} characters")
        name, *words = given.split() or [""]
        pairs = [word.partition("=")[::2] for word in words]
    else:
        name = str(given.get("name", ""))
        pairs = [(str(key), value) for key, value in given.items() if key != "name"]
    if not name:
        raise RequestError(f"names no module; write it like 'reclaim min_age=30s'{guess('', MODULES)}")
    if name not in MODULES:
        raise RequestError(f"{shown(name)} is no module{guess(name, MODULES)}")
    module = MODULES[name]
    with located(name):
        return Use(module, _knobs(module, pairs))


def _knobs(module: Module, pairs: list[tuple[str, Any]]) -> Any:
    table, values = module.table, {}
    for key, value in pairs:
        if not table:
            raise RequestError(f"has no knobs, and so not {shown(key)}")
        if key not in table:
            raise RequestError(f"there is no knob {shown(key)}{guess(key, table)}")
        field, knob = table[key]
        with located(key):
            if field in values:
                raise RequestError("was given before")
            if value == "" or isinstance(value, bool):
                raise RequestError(f"needs a value, like {key}={knob.write(getattr(module.knobs(), field))}")
            values[field] = knob.parse(str(value))
    return module.knobs(**values)


def uses(spec: Spec) -> list[Use]:
    """The modules of the first kdamond, in order. Raises RequestError, also for one that is there twice."""
    found: list[Use] = []
    for index, given in enumerate(spec.kdamonds[0].modules if spec.kdamonds else ()):
        with located(f"kdamonds[0].modules[{index}]"):
            use = parse(given)
            if use.module in [other.module for other in found]:
                raise RequestError(f"{use.module.name} is there twice; a target has each module once")
            found.append(use)
    with located("kdamonds[0].modules"):
        meeting.check(found)
    return found


def fitted(spec: Spec, facts: Facts) -> Spec:
    """The same with the modules as they are on a machine; not expanded. Raises RequestError."""
    found = []
    for given, use in zip(spec.kdamonds[0].modules, uses(spec), strict=True):
        with located(f"modules {use.module.name}"):
            fits = use.fitted(facts)
        found.append(given if fits == use else fits.write())
    first = msgspec.structs.replace(spec.kdamonds[0], modules=tuple(found))
    return msgspec.structs.replace(spec, kdamonds=(first, *spec.kdamonds[1:]))


def target_of(context: Context) -> Target:
    """What kind of target the context has; a simulated process is in a cgroup of its own."""
    if context.ops == "paddr":
        return "physical"
    return "cgroup" if context.ops == "sim" or context.cgroup is not None else "process"


def expand(spec: Spec) -> Spec:
    """The same with the schemes of its modules behind its own; doing it twice changes nothing. Raises RequestError.

    Schemes of these names are the modules' own.
    """
    used = uses(spec)
    if not used:
        return spec
    context = spec.context
    added: tuple[Scheme, ...] = ()
    for index, use in enumerate(used):
        with located(f"kdamonds[0].modules[{index}]"), located(use.module.name):
            added += use.schemes(target_of(context))
    names = {scheme.name for scheme in added}
    if context.ops == "reported":
        raise RequestError("act on memory; reported accesses have none", where="kdamonds[0].modules")
    own = tuple(scheme for scheme in context.schemes if scheme.name not in names)
    return spec.with_context(msgspec.structs.replace(context, schemes=own + added))


def schemes_of(module: str, states: Sequence[_State]) -> list[_State]:
    """The states of the schemes that the module of this name has made: these bear its name."""
    return [state for state in states if (state.scheme.name or "").split("-")[0] == module]
