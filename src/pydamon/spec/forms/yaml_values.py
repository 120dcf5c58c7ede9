"""YAML as plain values, and back. Only what JSON has as well: no tags, no merging, no two equal keys.

Plain words are read as in YAML 1.2: ``yes`` and ``on`` are text, ``1:30`` is no number of base 60, ``2024-01-01`` no
date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from pydamon.errors import RequestError
from pydamon.spec.forms.scheme_short import shown


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    depth = max_depth = 0
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (that of the base class is to be left as it is)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > self.max_depth:
            raise RequestError(f"is nested more than {self.max_depth} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RequestError("is YAML with a key that is not text", where=f"line {line}")
            key = self.construct_object(key_node)
            if key in found:
                raise RequestError(f"has the key {shown(str(key))} twice in one object", where=f"line {line}")
            if key == "<<":
                raise RequestError("merges objects (<<), which is not supported", where=f"line {line}")
            found[key] = self.construct_object(value_node, deep=deep)
        return found


_DIGITS = list("-+0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"), _DIGITS)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)(?:[eE][-+]?[0-9]+)?$"), _DIGITS
)


def decode_yaml(text: str, max_depth: int) -> Any:
    """The value that YAML text stands for; the same object where an alias stands. Raises RequestError.

    May raise RecursionError, too, where scanning goes deeper than the values do.
    """
    loader = None
    try:
        loader = _Loader(text)
        loader.max_depth = max_depth
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise RequestError(
            f"is not YAML: {_line(error.problem or error.context or 'it cannot be read')}{where}"
        ) from None
    except yaml.YAMLError as error:
        raise RequestError(f"is not YAML: {_line(str(error))}") from None
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"is not YAML: {_line(str(error)).partition(';')[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def encode_yaml(data: Any) -> str:
    """YAML text of plain values, without aliases, in the order that they have."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=110
    )
    return text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        # Line breaks of Unicode are escaped only within double quotes; elsewhere a reader folds them.
        style = '"' if _BREAKS.intersection(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_BREAKS = frozenset("\x85\u2028\u2029")
_Dumper.add_representer(str, _Dumper.represent_str)


def _line(text: str) -> str:
    return " ".join(text.split())[:160]
