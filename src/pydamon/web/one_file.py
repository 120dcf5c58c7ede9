"""The page as one file that needs no server: the same scripts, with what a recording holds as data in it.

Time is coarser than on the server where the recording is long (4,096 columns at most), and what is told of moments and
windows comes from 60 of its snapshots. Nothing is loaded, and the scripts in it are the only ones that may run.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from typing import Any

from pydamon.markup import RAMP
from pydamon.web.files import CHARTS, PAGE, STYLE, inert, scripts, text
from pydamon.web.recording import Recording
from pydamon.web.target import moments

_COLUMNS = 4096  # of the finest level, for one target; of many each has less
_MOMENTS = 60
_HEAD = re.compile(r'<link rel="stylesheet".*</script>\n(?=</head>)', re.DOTALL)


def page(recording: Recording) -> bytes:
    """The file. The recording was read (`Recording.read_now`)."""
    charts, style = (text(name) for name in CHARTS)
    script, styles = scripts(), style + text(STYLE)
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(charts)}' '{_hash(script)}'; "
        f"style-src '{_hash(styles)}'; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{styles}</style>\n'
        f'<script type="application/json" id="held">{inert(_held(recording))}</script>\n'
        f'<script>{charts}</script>\n<script type="module">{script}</script>\n'
    )
    return _HEAD.sub(lambda _: head, text(PAGE)).encode("utf-8")


def _held(recording: Recording) -> dict[str, Any]:
    """What the page would ask the server for, of all targets."""
    drawn = recording.drawn
    most = max(_COLUMNS // len(drawn), 256)
    held: dict[str, Any] = {"targets": {}, "levels": {}, "moments": {}, "what_if": {}}
    for number, one in drawn.items():
        pyramid = one.pyramid
        left_out = next((at for at, level in enumerate(pyramid.levels) if len(level) <= most), len(pyramid.levels) - 1)
        told = recording.target(number)
        told["column_ns"] <<= left_out
        told["columns"] >>= left_out
        told["levels"] -= left_out
        held["targets"][number] = told
        held["what_if"][number] = recording.what_if(number)
        held["levels"][number] = [_packed(level.tobytes()) for level in pyramid.levels[left_out:]]
        span = (0, pyramid.end_ns - pyramid.start_ns)
        found = (recording.at(number, low) for low, _ in moments(span, max(_MOMENTS // len(drawn), 4)))
        held["moments"][number] = list({moment["start_ns"]: moment for moment in found}.values())
    return held | {"summary": recording.summary(), "schemes": recording.schemes(), "ramp": RAMP}


def _packed(cells: bytes) -> str:
    return base64.b64encode(zlib.compress(cells, 9)).decode("ascii")


def _hash(text: str) -> str:
    """How a content security policy names a script or style that stands in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
