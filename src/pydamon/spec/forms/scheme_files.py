"""Schemes and specs from the text of a file, whatever its form; found out by its content.

JSON and YAML, in our layout or one of ``damo``'s: a whole spec (``kdamonds``), an object with ``schemes``, a list of
schemes, or one scheme, where a scheme may also be text in the short form. And lines: the short form, ``damo``'s
one-line form and the numbers of the kernel's debugfs file (see `pydamon.spec.forms.scheme_text`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from pydamon.errors import RequestError, located
from pydamon.spec import modules, quantities
from pydamon.spec.forms import scheme_text
from pydamon.spec.forms.damo_layout import DamoReader
from pydamon.spec.forms.scheme_short import parse_short, shown
from pydamon.spec.model import Spec, only_context, read, validate_attrs, validate_parts
from pydamon.spec.schemes import MAX_SCHEMES, Scheme, validate_scheme, validate_schemes

Form = Literal["json", "yaml", "lines"]
MAX_BYTES = 16 << 20
MAX_YAML_BYTES = 512 << 10  # it is read by Python code, at about 200 KB/s
_MAX_DEPTH = 64
_MAX_VALUES = 400_000  # also counts what aliases of YAML repeat
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file holds. ``spec`` is None unless it is a whole one; ``paths`` (parallel to ``schemes``) says where each
    scheme stands: ``schemes[0]`` or ``line 3``. ``warnings`` are one line each."""

    form: Form
    schemes: tuple[Scheme, ...]
    paths: tuple[str, ...]
    spec: Spec | None = None
    warnings: tuple[str, ...] = field(default=())


def load(text: bytes | str, *, ops: str = "vaddr") -> Loaded:
    """What is in the text of a file, validated, but for the targets of a spec (which may come from elsewhere).

    ``ops`` is what schemes are checked against; a spec says its own. Raises RequestError; ``where`` is a field's path
    or ``line N``, or None if the error is of the whole file.
    """
    warnings: list[str] = []
    found = _load(_decoded(text), warnings.append, ops)
    if not found.schemes and found.spec is None:
        raise RequestError("has no scheme in it")
    return Loaded(found.form, found.schemes, found.paths, found.spec, tuple(dict.fromkeys(warnings)))


def values(text: bytes | str) -> Any:
    """The plain values of JSON or YAML text, bounded in depth and number. Raises RequestError."""
    decoded = _decoded(text)
    return _plain(_json(decoded) if decoded.lstrip()[0] in "{[" else _yaml(decoded))


def _decoded(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise RequestError(f"is larger than {MAX_BYTES >> 20} MiB")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RequestError(f"is not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise RequestError(f"is not text: it has a NUL byte (character {text.index(chr(0))})")
    if not text.strip():
        raise RequestError("is empty")
    return text


def _load(text: str, warn: Callable[[str], None], ops: str) -> Loaded:
    if text.lstrip()[0] in "{[":
        return _from_values(_json(text), "json", warn, ops)
    if not scheme_text.looks_like_lines(text):
        return _from_values(_yaml(text), "yaml", warn, ops)
    lines = scheme_text.parse_lines(text, warn)
    if len(lines) > MAX_SCHEMES:
        raise RequestError(f"has {len(lines)} schemes; the most is {MAX_SCHEMES}")
    for line in lines:
        with located(f"line {line.number}", ": "):
            validate_scheme(line.scheme, ops=ops)
    return Loaded("lines", tuple(line.scheme for line in lines), tuple(f"line {line.number}" for line in lines))


# -- values -------------------------------------------------------------------------------------------------------


def _from_values(data: object, form: Form, warn: Callable[[str], None], ops: str) -> Loaded:
    data = _plain(data)
    layout = DamoReader(warn)
    if isinstance(data, dict) and ("kdamonds" in data or "modules" in data):
        return _spec(layout, data, form, warn)
    if isinstance(data, list) and data and isinstance(data[0], dict) and "contexts" in data[0]:
        return _spec(layout, {"kdamonds": data}, form, warn)  # beside a record of damo, or told by its report damon
    path = "schemes"
    if isinstance(data, dict) and "schemes" in data:
        for name in data:
            if name != "schemes":
                raise RequestError("does not go with schemes: a whole spec begins with kdamonds", where=shown(name))
        data = data["schemes"]
    elif isinstance(data, dict):
        if "action" not in data:
            raise RequestError("has neither kdamonds, nor schemes, nor the action of a scheme")
        data = [data]
    schemes = tuple(
        _short(item, f"{path}[{index}]", warn) if isinstance(item, str) else read(item, Scheme, f"{path}[{index}]")
        for index, item in enumerate(layout.schemes(data, path))
    )
    validate_schemes(schemes, ops=ops, nr_targets=0)
    return Loaded(form, schemes, tuple(f"{path}[{index}]" for index in range(len(schemes))))


def _spec(layout: DamoReader, data: dict[str, Any], form: Form, warn: Callable[[str], None]) -> Loaded:
    for name in data:
        if name not in ("kdamonds", "modules"):
            raise RequestError("does not go with kdamonds", where=shown(name))
    values = layout.spec(data)
    schemes: list[Scheme] = []
    paths: list[str] = []
    for k, kdamond in enumerate(values["kdamonds"]):
        for c, context in enumerate(kdamond["contexts"]):
            where = f"kdamonds[{k}].contexts[{c}].schemes"
            for s, item in enumerate(context.get("schemes", [])):
                if isinstance(item, str):
                    context["schemes"][s] = to_builtins(_short(item, f"{where}[{s}]", warn))
    spec = read(values | {"modules": modules.exact(data.get("modules"))}, Spec)
    validate_parts(spec)
    for k, kdamond_read in enumerate(spec.kdamonds):
        with located(f"kdamonds[{k}]"):
            context_read = only_context(kdamond_read)
        path = f"kdamonds[{k}].contexts[0]"
        with located(path):
            validate_attrs(context_read.intervals, context_read.nr_regions)
            validate_schemes(context_read.schemes, ops=context_read.ops, nr_targets=len(context_read.targets))
        schemes += context_read.schemes
        paths += [f"{path}.schemes[{index}]" for index in range(len(context_read.schemes))]
    return Loaded(form, tuple(schemes), tuple(paths), spec)


def _short(text: str, path: str, warn: Callable[[str], None]) -> Scheme:
    with located(path):
        return parse_short(text, lambda remark: warn(f"{path}: {remark}"))


def to_builtins(scheme: Scheme) -> dict[str, Any]:
    """A scheme as plain values, in our layout."""
    result: dict[str, Any] = msgspec.to_builtins(scheme, enc_hook=quantities.encode)
    return result


def _plain(data: object) -> Any:
    """A copy of what a parser returned, checked: bounded in depth and number, keys are text, numbers are finite.

    Each value is copied where it stands, so that what aliases share is counted as often as it is meant.
    """
    left = _MAX_VALUES

    def copy(value: object, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise RequestError(f"holds more than {_MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            raise RequestError(f"is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            return {_key(key): copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [copy(item, depth + 1) for item in value]
        if isinstance(value, str):
            return _clean(value)
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            if value != value or abs(value) == float("inf"):
                raise RequestError(f"has {value}, which is no number that can be meant")
            return int(value) if value.is_integer() else value
        raise RequestError(f"has a value of the type {type(value).__name__}; put it into quotation marks")

    return copy(data, 0)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise RequestError(f"has the key {shown(repr(key))}, which is not text")
    return _clean(key)


def _clean(text: str) -> str:
    if "\0" in text or _SURROGATE.search(text):
        raise RequestError(f"has a character that is none in {shown(ascii(text))}")
    return text


# -- JSON ---------------------------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    # Not msgspec: of two equal keys it takes the last and says nothing.
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except ValueError as error:  # a number of thousands of digits
        problem = f"is not JSON: {str(error).partition(';')[0]}"
    except RecursionError:
        problem = f"is nested more than {_MAX_DEPTH} levels deep"
    raise RequestError(problem)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RequestError(f"has the key {shown(key)} twice in one object")
            seen.add(key)
    return found


def _constant(text: str) -> Any:
    raise RequestError(f"has {text}, which is no number that can be meant")


# -- YAML ---------------------------------------------------------------------------------------------------------


def _yaml(text: str) -> Any:
    if len(text) > MAX_YAML_BYTES:
        raise RequestError(f"is larger than {MAX_YAML_BYTES >> 10} KiB, the most for YAML; JSON may be larger")
    from pydamon.spec.forms.yaml_values import decode_yaml  # the library is loaded only when it is needed

    try:
        return decode_yaml(text, _MAX_DEPTH)
    except RecursionError:
        raise RequestError(f"is nested more than {_MAX_DEPTH} levels deep") from None
