"""What all questions have in common: which rows, how they are read, in what form the answer is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit, emit_json, warn
from pydamon.errors import RequestError
from pydamon.fleet.asking import Data, Found
from pydamon.fleet.engine import Means
from pydamon.fleet.where import Where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE = ("host", "host_class", "service", "cgroup", "start", "end")


@dataclass(frozen=True)
class Shown:
    """An answer in each of its forms, and what was read for it; ``remarks`` are said beside it."""

    text: Callable[[Screen], list[str]]
    values: Callable[[], dict[str, Any]]
    figure: Callable[[], Figure]
    title: str
    found: Found
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """What a picture is made from: it is as readable as that."""

    path: str


@dataclass(frozen=True)
class Asked:
    """The data set, the rows, and the form."""

    data: Data
    where: Where
    as_json: bool
    output: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Asked:
        """Of the options that all questions have. Raises RequestError."""
        where = Where(**{name: options[name] for name in _WHERE})
        if where.start is not None and where.end is not None and where.start >= where.end:
            raise RequestError("is not before --to", where="--from")
        if options["workers"] and options["cluster"] is not None:
            raise RequestError("goes without --workers: the cluster has its own", where="--cluster")
        means = Means(options["memory"], options["threads"])
        data = Data(options["path"], options["raw"], means, options["workers"], options["cluster"])
        return cls(data, where, options["as_json"], options["output"])

    def show(self, question: Callable[[Data, Where], Shown]) -> None:
        """Ask, and print or draw the answer; what was read and left out is said on standard error."""
        if self.output is not None:
            check_picture(self.output)
        shown = question(self.data, self.where)
        if self.as_json:
            emit_json({**shown.values(), "read": shown.found.about()})
        if self.output is not None:
            write_picture(self.output, shown.figure(), _Source(self.data.path), shown.title)
            emit("" if self.as_json else f"wrote {self.output}\n")
        elif not self.as_json:
            emit("\n".join(shown.text(current_screen())) + "\n")
        warn([*shown.remarks, *shown.found.left_out.lines(), shown.found.how()])
