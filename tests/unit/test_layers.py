"""How the house is built: no circle of imports, and docs/architecture.md shows the layers of the contract.

That imports point downward only is checked by import-linter (``make lint``), from the contract in pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

# To be taken apart. Each must still be there: who removes it removes it here.
CIRCLES = [{"engines.kernel.engine", "engines.kernel.watch"}]


@pytest.fixture(name="graph", scope="module")
def graph_fixture() -> grimp.ImportGraph:
    """All imports, also those within functions and for types only."""
    return grimp.build_graph("pydamon", cache_dir=None)


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """The sets of modules each of which imports, over however many others, all of its set."""
    reached = {module: graph.find_upstream_modules(module) for module in graph.modules}
    found: list[set[str]] = []
    for module in sorted(graph.modules):
        circle = {module} | {other for other in reached[module] if module in reached[other]}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def test_a_circle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [{"a", "b", "c"}]


def test_there_are_no_circles_but_those_that_are_known(graph: grimp.ImportGraph) -> None:
    assert len(graph.modules) > 250
    assert [{name.removeprefix("pydamon.") for name in circle} for circle in circles(graph)] == CIRCLES


def test_the_picture_of_the_layers_is_the_contract() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract, *_ = config["tool"]["importlinter"]["contracts"]
    drawn = re.search(
        r"<!-- the contract -->\n\n```\n(.*?)```\n", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
    )
    assert drawn is not None
    assert drawn[1] == picture(contract["layers"])


def picture(layers: list[str]) -> str:
    """A line for each layer, the highest first; rooms that are not there yet are left out."""
    lines = []
    for layer in layers:
        rooms = [room.strip() for room in re.split(r"[:|]", layer)]
        there = [room for room in rooms if not room.startswith("(")]
        if there:
            lines.append(" · ".join(there))
    return "\n    ↓\n".join(lines) + "\n"
