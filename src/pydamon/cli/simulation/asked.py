"""What is asked for on the command line of ``simulate``, as programs, a machine and policies."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from pydamon.cli.files import load_costs, read_text, schemes_in, schemes_of
from pydamon.errors import RequestError, located
from pydamon.run.simulation import programs
from pydamon.run.simulation.runs import Policy, Setting
from pydamon.spec import Intervals, NrRegions, Scheme
from pydamon.spec.costs import Costs
from pydamon.spec.machine import MachineSpec, load_machine, parse_machine


class Asked(msgspec.Struct, frozen=True):
    """A comparison, and where it goes: ``picture`` and ``record`` are files, or empty; ``paths`` are those it is of.

    ``remarks`` are to be said before.
    """

    setting: Setting
    policies: tuple[Policy, ...]
    picture: str
    record: str
    paths: list[str]
    remarks: list[str]


def understand(names: tuple[str, ...], options: dict[str, Any]) -> Asked:
    """Raises RequestError naming the option, the program or the file."""
    machine = _machine(options["machine"], options["costs"])
    policies = _policies(options["schemes"], options["scheme"], options["modules"])
    picture, record = _outputs(options["output"], policies)
    try:
        # What is only recorded again is to be what the regions say: without the accesses that have no place in them.
        found = programs.gather(names, options["target"], hidden=bool(policies) or not record)
    except RequestError as error:
        if error.where == "target":
            raise RequestError(error.message, where="--target") from None
        raise
    if options["repeat"] == 0 and options["duration"] is None:
        raise RequestError("0 is for ever; give --duration, too", where="repeat")
    setting = Setting(
        programs=found.programs,
        machine=machine,
        intervals=_intervals(options, found.intervals),
        nr_regions=_regions(options, found.nr_regions),
        duration_ns=options["duration"],
        repeat=options["repeat"],
        seed=options["seed"],
    )
    files = [options["machine"], options["costs"], *options["schemes"]]
    paths = [*found.paths, *(file for file in files if file is not None and os.path.isfile(file))]
    return Asked(setting, policies, picture, record, paths, found.remarks)


def _machine(text: str | None, costs_file: str | None) -> MachineSpec:
    costs = None if costs_file is None else load_costs(costs_file)
    if text is None or "=" in text:
        with located("--machine" if text else "", ": "):
            return parse_machine(text or "", costs)
    raw = read_text(text, "--machine")
    with located(f"--machine {text}", ": "):
        machine, file = load_machine(raw)
    if costs is None:
        return machine
    if file.costs != Costs():
        raise RequestError("does not go with a machine that says its costs itself", where="--costs")
    import dataclasses

    return dataclasses.replace(machine, costs=costs)


def _policies(files: tuple[str, ...], texts: tuple[str, ...], modules: tuple[str, ...]) -> tuple[Policy, ...]:
    """Each file, text and module is one of its own."""
    found = [Policy(_short(os.path.basename(file)), schemes_in(file, "sim")) for file in files]
    for text in texts:
        found.append(Policy(_short(text), _scheme(text)))
    for text in modules:
        _check_module(text)
        found.append(Policy(_short(text), modules=(text,)))
    return tuple(found)


def _scheme(text: str) -> tuple[Scheme, ...]:
    from pydamon.spec.schemes import validate_scheme

    schemes = schemes_of(text, "sim")
    with located("--scheme", ": "):
        for scheme in schemes:
            validate_scheme(scheme, ops="sim")
    return schemes


def _check_module(text: str) -> None:
    from pydamon.modules.registry import parse

    try:
        parse(text)
    except RequestError as error:
        raise RequestError(error.message, where=f"--module {error.where or ''}".rstrip()) from None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _outputs(output: str | None, policies: tuple[Policy, ...]) -> tuple[str, str]:
    if output is None:
        return "", ""
    from pydamon.cli.render.picture import check_picture, is_picture

    if is_picture(output):
        check_picture(output)
        return output, ""
    if len(policies) > 1:
        raise RequestError(f"a record holds one run; {len(policies)} policies were given", where="-o")
    return "", "/dev/stdout" if output == "-" else output


def _intervals(options: dict[str, Any], usual: Intervals) -> Intervals:
    """20 samples per aggregation, if not all is as usual."""
    sample_us, aggr_us = options["sample"], options["aggr"]
    if sample_us is None and aggr_us is None:
        return usual
    if sample_us is None:
        sample_us = max(aggr_us // 20, 1)
    if aggr_us is None:
        aggr_us = 20 * sample_us
    return programs.every(sample_us, aggr_us)


def _regions(options: dict[str, Any], usual: NrRegions) -> NrRegions:
    low, high = options["min_regions"], options["max_regions"]
    return NrRegions(min=usual.min if low is None else low, max=usual.max if high is None else high)
