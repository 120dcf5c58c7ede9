"""Project files of openEuler's etmem (INI; its README-en.md and etmem/conf) as specs of ours. Pure.

A file has one ``[project]``, one ``[engine]`` and one ``[task]``. The slide engine becomes the module `etmem`, the
region scan of its damon engine a scheme, and cslide the module `tier`; the others do what is not for a spec.
"""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from pydamon.errors import RequestError, located
from pydamon.modules.chains import parse_chains
from pydamon.modules.etmem import MOST_LOOPS
from pydamon.modules.hmsdk import Converted
from pydamon.modules.registry import parse
from pydamon.spec import Context, Intervals, Kdamond, NrRegions, Spec, Target, units
from pydamon.spec.actions import ACTIONS
from pydamon.spec.forms.scheme_short import exact_size, guess, shown
from pydamon.spec.model import MAX_NR_REGIONS
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AgeRange, RateRange, Scheme, SizeRange
from pydamon.spec.units import U64_MAX

MOST_BYTES = 1 << 20  # of a file
_SECTIONS = ("project", "engine", "task")
_SECOND_US = 1_000_000
_WORDS_OF_ITS_OWN = {"memdcd": "sends pages to a remote memory", "thirdparty": "loads a library"}

Called = Callable[[str], Sequence[int]]  # the pids of processes of that name


class Section:
    """One section: values by key. What was read is noted; each error names section and key."""

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self._values = values
        self._read: set[str] = set()

    def text(self, key: str, usual: str | None = None) -> str:
        """Raises RequestError if it is needed and not there."""
        self._read.add(key)
        value = self._values.get(key, "").strip() or usual
        if value is None:
            raise RequestError("is missing", where=f"[{self.name}] {key}")
        return value

    def has(self, key: str) -> bool:
        """Whether it says something."""
        return bool(self._values.get(key, "").strip())

    def number(self, key: str, low: int, high: int, usual: int | None = None) -> int:
        """A whole number. Raises RequestError."""
        text = self.text(key, None if usual is None else str(usual))
        if not (text.isascii() and text.isdigit() and len(text) < 21) or not low <= int(text) <= high:
            where = f"[{self.name}] {key}"
            raise RequestError(f"is {shown(text)}; it must be a whole number from {low} to {high}", where=where)
        return int(text)

    def word(self, key: str, words: Sequence[str], usual: str | None = None) -> str:
        """One of some words. Raises RequestError."""
        text = self.text(key, usual)
        if text not in words:
            raise RequestError(
                f"is {shown(text)}; it must be {' or '.join(words)}{guess(text, words)}", where=f"[{self.name}] {key}"
            )
        return text

    def left(self) -> list[str]:
        """The keys that nobody has asked for."""
        return [key for key in self._values if key not in self._read]


def convert(text: str, called: Called) -> Converted:
    """A project as a spec; ``called`` finds processes by name. Raises RequestError naming section and key."""
    sections = _sections(text)
    project, engine, task = (sections[name] for name in _SECTIONS)
    name = project.text("name")
    for section in (engine, task):
        if section.text("project") != name:
            raise RequestError(f"is {shown(section.text('project'))}; the project is {shown(name)}",
                               where=f"[{section.name}] project")  # fmt: skip
    kind = engine.text("name")
    if kind in _WORDS_OF_ITS_OWN:
        raise RequestError(f"is {kind}, which {_WORDS_OF_ITS_OWN[kind]}; slide, damon and cslide are read",
                           where="[engine] name")  # fmt: skip
    if kind not in _ENGINES:
        raise RequestError(f"is {shown(kind)}; slide, damon and cslide are read{guess(kind, _ENGINES)}",
                           where="[engine] name")  # fmt: skip
    if task.text("engine", kind) != kind:
        raise RequestError(f"is {shown(task.text('engine'))}; the engine is {shown(kind)}", where="[task] engine")
    task.text("name", "")
    remarks: list[str] = []
    context, module = _ENGINES[kind](project, engine, task, _targets(task, called), remarks)
    for section in (project, engine, task):
        remarks += [f"[{section.name}] {key}: is not used" for key in section.left()]
    kdamond = Kdamond(contexts=(context,), modules=(module,) if module else ())
    return Converted(Spec(kdamonds=(kdamond,)), tuple(remarks))


def _sections(text: str) -> dict[str, Section]:
    if len(text) > MOST_BYTES:
        raise RequestError(f"has more than {MOST_BYTES >> 20} MiB; a project is a page of text")
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"), default_section="\0")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text, source="it")
    except configparser.DuplicateSectionError as error:
        raise RequestError(f"[{error.section}] is there twice; write one file for each task") from None
    except configparser.DuplicateOptionError as error:
        raise RequestError("is there twice", where=f"[{error.section}] {error.option}") from None
    except configparser.MissingSectionHeaderError as error:
        raise RequestError(f"line {error.lineno} stands in no section; it begins with [project]") from None
    except configparser.ParsingError as error:
        raise RequestError(f"line {error.errors[0][0]} is neither KEY=VALUE nor [SECTION]") from None
    for name in parser.sections():
        if name not in _SECTIONS:
            raise RequestError(f"[{name}] is none of [project], [engine] and [task]{guess(name, _SECTIONS)}")
    for name in _SECTIONS:
        if not parser.has_section(name):
            raise RequestError(f"has no [{name}]")
    return {name: Section(name, {key: value or "" for key, value in parser.items(name)}) for name in _SECTIONS}


def _targets(task: Section, called: Called) -> tuple[Target, ...]:
    if task.word("type", ("pid", "name")) == "pid":
        return (Target(pid=task.number("value", 1, 1 << 22)),)
    name = task.text("value")
    pids = called(name)
    if not pids:
        raise RequestError(f"no process is called {shown(name)} now; start it first, or write type=pid",
                           where="[task] value")  # fmt: skip
    return tuple(Target(pid=pid) for pid in pids)


Made = tuple[Context, str]


def _slide(project: Section, _: Section, task: Section, targets: tuple[Target, ...], remarks: list[str]) -> Made:
    """Page by page, or by regions; a threshold T."""
    knobs = _scan(project)
    loop = project.number("loop", 1, MOST_LOOPS, 1)
    threshold = task.number("T", 0, 3 * MOST_LOOPS)
    if project.has("sysmem_threshold"):
        knobs.append(f"sysmem_threshold={project.number('sysmem_threshold', 0, 100)}%")
    if task.has("dram_percent"):
        knobs.append(f"dram_percent={task.number('dram_percent', 1, 100)}%")
    if task.has("swap_threshold"):
        with located("[task] swap_threshold"):
            knobs.append(f"swap_threshold={exact_size(units.parse_size(_size(task.text('swap_threshold'))))}")
    if not threshold:
        raise RequestError("is 0: nothing would be cold; 1 takes what was not used at all", where="[task] T")
    if threshold > loop:
        remarks.append(f"[task] T: a write counts as 3 accesses there, and as one here; of {loop} at most {loop} count")
    knobs.append(f"T={min(threshold, loop)}" if "scan=page" in knobs else f"T={threshold}")
    if task.word("swap_flag", ("yes", "no"), "no") == "yes":
        remarks.append("[task] swap_flag: memory that the program has marked is not told apart: all of it may go")
    if task.number("max_threads", 1, 1 << 10, 1) > 1:
        remarks.append("[task] max_threads: one thread scans")
    context, text = Context(targets=targets, intervals=_intervals(project)), " ".join(("etmem", *knobs))
    use = parse(text)
    needed = use.module.monitoring(use.knobs)
    if needed is not None:
        context = msgspec.structs.replace(context, intervals=needed[0], nr_regions=needed[1])
    return context, text


def _scan(project: Section) -> list[str]:
    """How it looks: knobs of the module."""
    if project.word("scan_type", ("page", "region"), "page") == "region":
        return ["scan=region"]
    times = {"interval": project.number("interval", 1, 1200, 1), "sleep": project.number("sleep", 0, 1200, 1)}
    loop = project.number("loop", 1, MOST_LOOPS, 1)
    return ["scan=page", f"loop={loop}", *(f"{key}={value}s" for key, value in times.items())]


def _intervals(project: Section) -> Intervals:
    """Those of a region scan; the names of both of its versions are read."""
    usual = Intervals()
    names = {"sample_us": "sample_interval", "aggr_us": "aggr_interval", "ops_update_us": "update_interval"}
    told: dict[str, Any] = {
        field: project.number(key, 1, 10**10, getattr(usual, field)) for field, key in names.items()
    }
    return Intervals(**told)


def _damon(project: Section, _: Section, task: Section, targets: tuple[Target, ...], remarks: list[str]) -> Made:
    """A scheme of DAMON, as it is."""
    project.word("scan_type", ("region",), "region")
    regions = NrRegions(
        min=project.number("min_nr_regions", 3, MAX_NR_REGIONS, 10),
        max=project.number("max_nr_regions", 3, MAX_NR_REGIONS, 1000),
    )
    action: Any = task.word("action", tuple(ACTIONS), "pageout")
    low, high = (task.number(key, 0, U64_MAX, usual) for key, usual in (("min_acc", 0), ("max_acc", 0)))
    young, old = (task.number(key, 0, U64_MAX, usual) for key, usual in (("min_age", 0), ("max_age", U64_MAX)))
    pattern = AccessPattern(
        sz_bytes=SizeRange(
            min=task.number("min_size", 0, U64_MAX, 4096), max=task.number("max_size", 0, U64_MAX, U64_MAX)
        ),
        nr_accesses=RateRange(min=Rate(Fraction(low), "samples"), max=Rate(Fraction(high), "samples")),
        age=AgeRange(min=Age(Fraction(young), "aggrs"), max=Age(None if old >= U64_MAX else Fraction(old), "aggrs")),
    )
    scheme = Scheme(action=action, access_pattern=pattern, name="etmem-damon")
    return Context(targets=targets, intervals=_intervals(project), nr_regions=regions, schemes=(scheme,)), ""


def _cslide(project: Section, engine: Section, task: Section, targets: tuple[Target, ...], remarks: list[str]) -> Made:
    """Hot memory of virtual machines to the nodes of DRAM, the rest to the slow ones."""
    pairs = [pair.split(",") for pair in engine.text("node_pair").replace(" ", "").strip(";").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise RequestError("must be pairs of nodes, slow and fast, like 2,0;3,1", where="[engine] node_pair")
    tiers = "+".join(f"{fast}>{slow}" for slow, fast in pairs)
    with located("[engine] node_pair"):
        parse_chains(tiers)
    loop = project.number("loop", 1, MOST_LOOPS, 1)
    interval = project.number("interval", 1, 1200, 1)
    project.number("sleep", 0, 1200, 1)
    hot = min(engine.number("hot_threshold", 0, 1 << 20, 1), loop)
    knobs = [f"tiers={tiers}", f"hot={hot * 1000 // loop / 10:g}%", f"cold_age={loop * interval}s"]
    if engine.has("node_mig_quota"):
        knobs.append(f"quota={engine.number('node_mig_quota', 1, 1 << 30)}MiB/{loop * interval}s")
    for key in ("vm_flags", "anon_only", "ign_host"):
        if task.has(key):
            task.text(key)
            remarks.append(f"[task] {key}: all memory of the process is looked at")
    intervals = Intervals(
        sample_us=interval * _SECOND_US,
        aggr_us=loop * interval * _SECOND_US,
        ops_update_us=loop * interval * _SECOND_US,
    )
    return Context(targets=targets, intervals=intervals), " ".join(("tier", *knobs))


def _size(text: str) -> str:
    """``10g`` as we write it."""
    return text.strip().upper() if text.strip()[-1:].isalpha() else f"{text.strip()}B"


_ENGINES = {"slide": _slide, "damon": _damon, "cslide": _cslide}
