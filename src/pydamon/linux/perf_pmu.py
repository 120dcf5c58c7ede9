"""Which events sample addresses, by name: what /sys/bus/event_source/devices says of this machine's PMUs.

A PMU's folder has its ``type``, in ``events/`` the terms that a name stands for, and in ``format/`` which bits of which
number each term sets (Documentation/ABI/testing/sysfs-bus-event_source-devices-format and -events).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pydamon.errors import MachineError, RequestError
from pydamon.linux.perf_event import Event
from pydamon.linux.texts import read_text
from pydamon.linux.tiers import listed

DEVICES = Path("/sys/bus/event_source/devices")
WHERE = "event"
PAGE_FAULTS = Event("page-faults", type=1, config=2, period=1, tells_writes=False)

_IBS_PERIOD = 262_144  # micro-operations; what AMD's own examples use
_SPE_PERIOD = 65_536  # operations
_PEBS_HZ = 5_003  # a prime, so that it does not keep step with a loop
_CORES = ("cpu", "cpu_core")  # the second with processors that have two kinds of cores
_MEMORY = {"mem-loads": "load", "mem-stores": "store"}
_FORMAT = re.compile(r"(config|config1|config2):(\d{1,2})(?:-(\d{1,2}))?", re.ASCII)
_PMU = re.compile(r"([a-zA-Z0-9_]{1,64})/([^/]*)/?", re.ASCII)
_OWN_TERMS = ("config", "config1", "config2", "period", "freq", "precise")  # those that need no format file
_MOST_BYTES = 4096
_MOST_CPU = 1 << 16


def event(text: str = "", root: Path = DEVICES) -> Event:
    """What a user calls an event: nothing for the best here, a name, or ``PMU/term=value,…/``.

    Names are page-faults, mem-loads, mem-stores (PEBS), ibs_op and arm_spe. Raises RequestError for a name that is
    none, MachineError for what this machine does not have.
    """
    if text in ("", "mem"):
        return _best(root)
    if text == PAGE_FAULTS.name:
        return PAGE_FAULTS
    if text == "ibs_op":
        return _ibs(root)
    if text in _MEMORY:
        return _of_core(text, root)
    if re.fullmatch(r"arm_spe(_\d{1,4})?", text, re.ASCII):
        return _spe(text, root)
    found = _PMU.fullmatch(text)
    if found is None:
        raise RequestError(
            f"{text!r} is none; it is page-faults, mem-loads, mem-stores, ibs_op, arm_spe, or PMU/term=value,.../ as "
            f"in perf",
            where=WHERE,
        )
    return _spelt(found[1], found[2], text, root)


def _best(root: Path) -> Event:
    for name in ("ibs_op", "mem-loads", "arm_spe"):
        try:
            return event(name, root)
        except MachineError:
            continue
    pmus = ", ".join(sorted(path.name for path in root.glob("*"))[:20]) or "nothing"
    raise MachineError(
        f"neither this processor nor its hypervisor offers events that sample addresses (there is {pmus}); "
        f"page-faults works anywhere",
        where=WHERE,
    )


def _ibs(root: Path) -> Event:
    """AMD's: every so many micro-operations one is followed; it cannot leave out the kernel's."""
    return Event("ibs_op", _type("ibs_op", root), 0, period=_IBS_PERIOD, kernel=True)


def _spe(name: str, root: Path) -> Event:
    """Arm's: one in so many operations, of which loads and stores are kept; the buffer is one of its own (AUX)."""
    pmus = sorted(path.name for path in root.glob("arm_spe_*")) if name == "arm_spe" else [name]
    terms = f"load_filter=1,store_filter=1,jitter=1,period={_SPE_PERIOD}"
    return _spelt(pmus[0] if pmus else "arm_spe_0", terms, name, root)


def _of_core(name: str, root: Path) -> Event:
    """Intel's, by the terms that stand in ``events/``."""
    for core in _CORES:
        terms = _read(root / core / "events" / name)
        if terms:
            return _spelt(core, f"{terms},freq={_PEBS_HZ},precise=2", name, root)
    raise MachineError(
        f"this processor, or its hypervisor, does not sample the addresses of {_MEMORY[name]}s", where=name
    )


def _spelt(pmu: str, terms: str, name: str, root: Path) -> Event:
    """An event by its terms; the bits of each are those of ``format/``."""
    kind = _type(pmu, root)
    numbers = dict.fromkeys(_OWN_TERMS, 0)
    for term in filter(None, terms.split(",")):
        key, equals, value = term.strip().partition("=")
        number = _value(value if equals else "1", term)
        if key in _OWN_TERMS:
            numbers[key] = number
        else:
            target, shifted = _place(pmu, key, number, root)
            numbers[target] |= shifted
    if numbers["period"] and numbers["freq"]:
        raise RequestError("has both period and freq; give one of them", where=f"{WHERE} {name}")
    if numbers["precise"] > 3:
        raise RequestError(f"precise is {numbers['precise']}; it must be 0 to 3", where=f"{WHERE} {name}")
    aux = pmu.startswith("arm_spe")
    if aux and numbers["freq"]:
        raise RequestError("takes a period, and no freq", where=f"{WHERE} {name}")
    if aux:
        numbers["period"] = numbers["period"] or _SPE_PERIOD
    elif not numbers["period"]:
        numbers["freq"] = numbers["freq"] or _PEBS_HZ
    cpus = tuple(listed(root / pmu / "cpumask", _MOST_CPU) or ()) if aux else ()
    event = Event(name, kind, 0, kernel=pmu.startswith("ibs_"), aux=aux, cpus=cpus)
    return msgspec.structs.replace(event, **numbers)


def _place(pmu: str, key: str, number: int, root: Path) -> tuple[str, int]:
    """Which number a term is part of, and its bits there."""
    found = None
    if re.fullmatch(r"[a-zA-Z0-9_]{1,64}", key, re.ASCII):
        found = _FORMAT.fullmatch(_read(root / pmu / "format" / key))
    if found is None:
        raise RequestError(f"{key!r} is no term of {pmu} that is known here; see format/ there", where=f"{WHERE} {pmu}")
    low = int(found[2])
    high = int(found[3]) if found[3] else low
    if not low <= high < 64:
        raise MachineError(f"{key} says {found[0]!r}, which are no bits of a number", where=str(root / pmu / "format"))
    if number >> (high - low + 1):
        raise RequestError(f"{key}={number:#x} does not fit into {high - low + 1} bits", where=f"{WHERE} {pmu}")
    return found[1], number << low


def _value(text: str, term: str) -> int:
    try:
        number = int(text, 0) if text[:2].lower() in ("0x", "0b") else int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64 or len(text) > 20:
        raise RequestError(f"{term[:60]!r} is not a term with a number, like event=0xd1", where=WHERE)
    return number


def _type(pmu: str, root: Path) -> int:
    """The number by which the kernel knows a PMU."""
    text = _read(root / pmu / "type")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise MachineError(f"there is no {pmu} on this machine", where=pmu)
    return int(text)


def _read(path: Path) -> str:
    """A small file's text, or nothing."""
    try:
        return read_text(path)[:_MOST_BYTES].strip()
    except OSError:
        return ""
