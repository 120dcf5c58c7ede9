"""What is answered over HTTP: the page, the data that it draws, of a list of recordings, and kdamonds' metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pydamon import messages
from pydamon.analysis.pyramid import FINER
from pydamon.errors import PydamonError
from pydamon.markup import RAMP
from pydamon.plain import json_text, printable
from pydamon.service.metrics import OfKdamonds, Rendered
from pydamon.web.files import PAGE, inert, served, text
from pydamon.web.recording import MOST_COLUMNS, Missing, Recording

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_THREADS = 8  # that work at a time: each takes memory for itself, and more than there are CPUs only wait
_U64 = 2**64 - 1
_I64 = 2**63 - 1
_MARGINS = 32  # pixels beside the picture, see page.css


class Wrong(PydamonError):
    """A request that cannot be meant."""


def number(given: str | None, low: int, high: int, usual: int | None = None) -> int:
    """The whole number in a request; `Wrong` if it is none, or not in [low, high]."""
    if given is None and usual is not None:
        return usual
    if given is None or not _NUMBER.fullmatch(given) or not low <= int(given) <= high:
        raise Wrong(f"a whole number between {low} and {high} is missing in the request")
    return int(given)


def application(recordings: Sequence[Recording]) -> Starlette:
    """The application; `guard.Guard` stands before it."""
    files = served()

    pages: dict[tuple[object, ...], str] = {}  # the last one

    def page(_: Request) -> Response:
        state = tuple((one.version, one.progress, one.growing) for one in recordings)
        if (found := pages.get(state)) is None:
            first = _first(recordings)
            data = f'<script type="application/json" id="first">{inert(first)}</script>\n</head>'
            found = text(PAGE).replace("</title>", f"</title>\n{_ahead(first)}", 1).replace("</head>", data, 1)
            pages.clear()
            pages[state] = found
        return Response(found, media_type="text/html")

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(found[0], media_type=found[1])

    def one(request: Request) -> Recording:
        at = number(request.path_params["recording"], 0, _I64)
        if at >= len(recordings):
            raise Missing("there is no such recording")
        return recordings[at]

    def target(request: Request) -> int:
        return number(request.path_params["target"], 0, _I64)

    def listed(_: Request) -> Any:
        return _listed(recordings)

    def told(request: Request) -> Any:
        return one(request).target(target(request))

    kdamonds = [one.kdamond for one in recordings if one.kdamond is not None]
    rendered = Rendered(OfKdamonds(lambda: kdamonds))

    def metrics(request: Request) -> Response:
        if not kdamonds:
            raise Missing("recordings have no metrics; those of a kdamond in the background are here if it is served")
        asked = request.headers
        text, headers = rendered.answer(asked.get("accept"), asked.get("accept-encoding"))
        return Response(text, headers=headers)

    def plane(request: Request) -> Any:
        return one(request).plane(target(request), number(request.path_params["level"], 0, 64)).tobytes()

    def tile(request: Request) -> Any:
        place = [number(request.path_params[name], -64, 64) for name in ("level", "shrink")]
        place += [number(request.path_params[name], 0, 1 << 40) for name in ("column", "row")]
        return one(request).tile(target(request), *place).tobytes()

    def at(request: Request) -> Any:
        return one(request).at(target(request), number(request.query_params.get("ns"), 0, 1 << 62))

    def window(request: Request) -> Any:
        query = request.query_params
        between = number(query.get("from"), 0, 1 << 62), number(query.get("to"), 0, 1 << 62)
        low, high = number(query.get("low"), 0, _U64, 0), number(query.get("high"), 0, _U64, _U64)
        if between[0] >= between[1] or low >= high:
            raise Wrong("a window must end after it begins")
        return one(request).window(target(request), between, low, high)

    def schemes(request: Request) -> Any:
        return {"schemes": one(request).schemes()}

    def status(request: Request) -> Any:
        return {"lines": one(request).status()}

    def what_if(request: Request) -> Any:
        return one(request).what_if(target(request))

    limiter = CapacityLimiter(_THREADS)

    def answering(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        return _answering(answer, limiter)

    of_target = "/api/{recording}/{target}"
    return Starlette(
        routes=[
            Route("/", answering(page)),
            Route("/metrics", answering(metrics)),
            Route("/page/{name:path}", file),
            Route("/api/recordings", answering(listed)),
            Route("/api/{recording}/schemes", answering(schemes)),
            Route("/api/{recording}/status", answering(status)),
            Route(of_target, answering(told)),
            Route(of_target + "/plane/{level}", answering(plane)),
            Route(of_target + "/tile/{level}/{shrink}/{column}/{row}", answering(tile)),
            Route(of_target + "/at", answering(at)),
            Route(of_target + "/window", answering(window)),
            # A pass over the record: one at a time, and who asks for the same waits for it without a thread.
            Route(of_target + "/what-if", _answering(what_if, CapacityLimiter(1))),
        ]
    )


def _listed(recordings: Sequence[Recording]) -> dict[str, Any]:
    return {"recordings": [recording.summary() for recording in recordings], "ramp": RAMP}


def _first(recordings: Sequence[Recording]) -> dict[str, Any]:
    """What the page asks for first of all, so that it need not ask: the list, and what it shows of it."""
    found = _listed(recordings)
    for at, (recording, summary) in enumerate(zip(recordings, found["recordings"], strict=True)):
        if summary["targets"] and summary["version"]:
            target = summary["targets"][0]["target"]
            return found | {"shown": [at, target], "told": recording.target(target)}
    return found


def _ahead(first: Mapping[str, Any]) -> str:
    """What the browser is to ask for while it still reads the page: the picture that a window of its width shows first.

    As `resolution` of heatmap.js has it, of a screen without a scale; who is wrong here asks once more.
    """
    if "shown" not in first:
        return ""
    told, (at, target) = first["told"], first["shown"]
    columns, links = told["end_ns"] / told["column_ns"], ""
    for level in range(told["levels"]):
        if told["columns"] >> level > MOST_COLUMNS:
            continue
        least = int(columns / 2 ** (level + 1)) + 1 if level < told["levels"] - 1 else 1
        most = int(columns / 2**level if level else columns * 2 ** (FINER - 1))
        widths = f"(min-width: {least + _MARGINS}px) and (max-width: {most + _MARGINS}px) and (max-resolution: 1dppx)"
        place = f'href="api/{at}/{target}/plane/{level}" media="{widths}"'
        links += f'<link rel="preload" as="fetch" crossorigin {place}>\n'
    return links


def _answering(answer: Callable[[Request], Any], limiter: CapacityLimiter) -> Callable[[Request], Any]:
    """A handler that works on one of the threads, and answers JSON or bytes; what cannot be is one line."""

    async def handler(request: Request) -> Response:
        try:
            found = await to_thread.run_sync(answer, request, limiter=limiter)
        except Wrong as error:
            return PlainTextResponse(f"{error.message}\n", 400)
        except Missing as error:
            return PlainTextResponse(f"{error.message}\n", 404)
        except PydamonError as error:
            return PlainTextResponse(f"{printable(error.message)}\n", 500)
        except Exception as error:  # whoever asks for something else is still answered
            messages.tell(f"serve: {request.url.path}: {type(error).__name__}: {error}")
            return PlainTextResponse("this failed in the server; it has said what\n", 500)
        if isinstance(found, Response):
            return found
        if isinstance(found, bytes):
            return Response(found, media_type="application/octet-stream")
        return Response(json_text(found), media_type="application/json")

    return handler
