"""The workloads that come with pydamon, and ``load``, which finds a workload by name or path."""

from __future__ import annotations

import os

from pydamon.errors import RequestError
from pydamon.workload import model
from pydamon.workload.model import Workload

_MIB = 1 << 20
_WAYS = (("low", "a"), ("high", "b"))


def _text(title: str, regions: list[tuple[str, int]], phases: list[tuple[str, int, list[str]]]) -> str:
    lines = [f"# {title}", "#regions: name, bytes"]
    lines += [f"{name}, {size_bytes}" for name, size_bytes in regions]
    for name, duration_ms, accesses in phases:
        lines += ["", name, str(duration_ms), *accesses]
    return "\n".join(lines) + "\n"


def _stairs() -> str:
    names = [f"s{step}" for step in range(10)]
    return _text(
        "Ten ranges of 10 MiB, each hot for 5 s in turn.",
        [(name, 10 * _MIB) for name in names],
        [
            ("warm-up", 1000, [f"{name}, 0, 4096, 1" for name in names]),
            *((f"step {step}", 5000, [f"{name}, 0, 4096, 1"]) for step, name in enumerate(names)),
        ],
    )


def _zigzag() -> str:
    turns = [(f"{way} {turn}", 5000, [f"{name}, 0, 4096, 1"]) for turn in range(5) for way, name in _WAYS]
    return _text(
        "Two ranges of 100 MiB, each hot for 5 s in turn, five times.",
        [("a", 100 * _MIB), ("b", 100 * _MIB)],
        [("warm-up", 1000, ["a, 0, 4096, 1", "b, 0, 4096, 1"]), *turns],
    )


def _hotspots() -> str:
    # Hot spots of different sizes, at irregular distances, so that no fixed grid of regions fits them by luck.
    sizes_mib = [120, 4, 260, 16, 90, 32, 300, 8, 114, 20, 60]
    regions = [(f"{'hot' if i % 2 else 'cold'}{i // 2}", size * _MIB) for i, size in enumerate(sizes_mib)]
    hot = [f"{name}, 0, 4096, 1" for name, _ in regions if name.startswith("hot")]
    warm_up = [f"{name}, 0, 4096, 1" for name, _ in regions]
    return _text(
        "Five hot spots of 4 to 32 MiB in 1 GiB that is otherwise cold.",
        regions,
        [("warm-up", 1000, warm_up), ("hot spots", 30000, hot)],
    )


def _random() -> str:
    return _text(
        "Random accesses to the 64 MiB in the middle of 256 MiB.",
        [("low", 96 * _MIB), ("middle", 64 * _MIB), ("high", 96 * _MIB)],
        [
            ("warm-up", 1000, ["low, 0, 4096, 1", "middle, 0, 4096, 1", "high, 0, 4096, 1"]),
            ("random", 30000, ["middle, 1, 4096, 1"]),
        ],
    )


TEXTS = {"stairs": _stairs(), "zigzag": _zigzag(), "hotspots": _hotspots(), "random": _random()}
"""Name to text in masim's format; ``masim`` itself runs these too."""


def load(name_or_path: str) -> Workload:
    """The built-in workload of that name, else the one in the file of that path. Raises RequestError.

    A file whose name is that of a built-in one is reached as ``./NAME``.
    """
    if name_or_path in TEXTS:
        return model.parse(TEXTS[name_or_path], source=name_or_path)
    if "\0" not in name_or_path and not os.path.lexists(name_or_path):
        names = ", ".join(TEXTS)
        raise RequestError(
            f"neither a built-in workload ({names}) nor an existing file; give one of these names or a path",
            where=f"workload {name_or_path!r}",
        )
    return model.read(name_or_path)
