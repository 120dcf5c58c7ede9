"""A heatmap as one HTML file that zooms without a server.

The heat travels as a grey picture (PNG, one byte a cell: 0 not monitored, 1 to 255 the heat); the page's script colours
and magnifies it. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pydamon.analysis.heatmap import Heatmap
from pydamon.cli.render.output import write_whole
from pydamon.markup import RAMP, png

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader


@dataclass(frozen=True, slots=True)
class Panel:
    """One target's heatmap and the words that go with it; times are shown since ``origin_ns``."""

    heatmap: Heatmap
    title: str
    details: str
    names: list[str]
    origin_ns: int


def write_page(path: str, title: str, panels: list[Panel], made_from: AnyReader, rest: str = "") -> None:
    """Write the page, as `write_whole`; nothing is left of it if that fails. Raises PydamonError naming the file."""
    page = render(title, panels, rest).encode("utf-8", "replace")
    write_whole(path, lambda file: file.write(page), made_from)


def render(title: str, panels: list[Panel], rest: str = "") -> str:
    """The page as text. What it is about is data in it: it runs the script below, and no other."""
    values = {
        "TITLE": escape(title),
        "REST": f"<p>{escape(rest)}</p>\n" if rest else "",
        "POLICY": f"default-src 'none'; img-src data:; script-src '{_hash(_SCRIPT)}'; style-src '{_hash(_STYLE)}'; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": _STYLE,
        "SCRIPT": _SCRIPT,
        "DATA": _inert({"panels": [_data(panel) for panel in panels], "ramp": [list(colour) for colour in RAMP]}),
    }
    # All at once: what is put in may look like a place to put something in.
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], _PAGE)


def _inert(data: object) -> str:
    """JSON that is nothing else wherever in a page it stands: no character of it begins or ends markup or a line."""
    text = json.dumps(data, separators=(",", ":"))  # escapes what is not ASCII, U+2028 too
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    """How a content security policy names a script or style that stands in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _data(panel: Panel) -> dict[str, object]:
    heatmap = panel.heatmap
    segments = [
        {"from": part.start, "to": part.stop, "name": name}
        for part, name in zip(heatmap.segments(), panel.names, strict=True)
    ]
    top = float(np.nanmax(heatmap.heat, initial=0.0)) or 1.0
    cells = np.where(np.isnan(heatmap.heat), 0.0, 1.0 + 254.0 * np.nan_to_num(heatmap.heat) / top)
    grey = np.clip(np.round(cells), 0, 255).astype(np.uint8)
    return {
        "title": panel.title,
        "details": panel.details,
        # Times as seconds: a float64 is exact enough for the eye. Addresses do not fit one: they stay text.
        "time_s": ((heatmap.time_ns - panel.origin_ns) / 1e9).round(6).tolist(),
        "address": [hex(value) for value in heatmap.address.tolist()],
        "top": top,
        "segments": segments,
        "image": base64.b64encode(png(grey.T[::-1])).decode("ascii"),
    }


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="@POLICY@"><title>@TITLE@</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>@STYLE@</style></head><body>
<h1>@TITLE@</h1>
<p>Wheel: zoom. Shift and wheel: time only. Alt and wheel: addresses only. Drag: move. Double click: everything.</p>
<div id="maps"></div>
@REST@<script type="application/json" id="data">@DATA@</script>
<script>@SCRIPT@</script></body></html>
"""

_STYLE = """
 body { font: 14px system-ui, sans-serif; margin: 1.5em; background: #fff; color: #222; }
 h1 { font-size: 1.2em; } h2 { font-size: 1.05em; margin: 1.2em 0 .2em; } p { margin: .2em 0; color: #555; }
 .map { position: relative; } canvas { display: block; width: 100%; height: 60vh; cursor: grab; }
 .tip { position: absolute; pointer-events: none; background: #fffd; border: 1px solid #888; padding: 2px 6px;
        font: 12px ui-monospace, monospace; white-space: pre; display: none; z-index: 1; }
"""

_SCRIPT = """
"use strict";
const { panels: DATA, ramp: RAMP } = JSON.parse(document.getElementById("data").textContent);
function colour(v) {                       // 1..255 -> one of the ramp's colours, in between mixed
  const x = (v - 1) / 254 * (RAMP.length - 1), i = Math.min(Math.floor(x), RAMP.length - 2), f = x - i;
  return RAMP[i].map((c, k) => Math.round(c + (RAMP[i + 1][k] - c) * f));
}
function show(panel) {
  const box = document.createElement("div"); box.className = "map";
  const head = document.createElement("h2"); head.textContent = panel.title;
  const details = document.createElement("p"); details.textContent = panel.details;
  const canvas = document.createElement("canvas"), tip = document.createElement("div"); tip.className = "tip";
  box.append(head, details, canvas, tip); document.getElementById("maps").append(box);
  const columns = panel.time_s.length - 1, rows = panel.address.length - 1;
  let view = { x: 0, y: 0, w: columns, h: rows }, picture = null, heat = null;
  const grey = new Image();
  grey.onload = () => {
    const c = document.createElement("canvas"); c.width = columns; c.height = rows;
    const g = c.getContext("2d"); g.drawImage(grey, 0, 0);
    const d = g.getImageData(0, 0, columns, rows), p = d.data;
    heat = new Uint8Array(columns * rows);
    for (let i = 0; i < heat.length; i++) {
      const v = heat[i] = p[4 * i], rgb = v ? colour(v) : [232, 232, 236];
      p[4 * i] = rgb[0]; p[4 * i + 1] = rgb[1]; p[4 * i + 2] = rgb[2]; p[4 * i + 3] = 255;
    }
    g.putImageData(d, 0, 0); picture = c; draw();
  };
  grey.src = "data:image/png;base64," + panel.image;
  function draw() {
    if (!picture) return;
    canvas.width = canvas.clientWidth * devicePixelRatio; canvas.height = canvas.clientHeight * devicePixelRatio;
    const g = canvas.getContext("2d"); g.imageSmoothingEnabled = false;
    g.drawImage(picture, view.x, view.y, view.w, view.h, 0, 0, canvas.width, canvas.height);
    g.font = 11 * devicePixelRatio + "px ui-monospace, monospace"; g.fillStyle = "#333"; g.strokeStyle = "#fff";
    g.lineWidth = 3 * devicePixelRatio;
    const label = (text, x, y) => { g.strokeText(text, x, y); g.fillText(text, x, y); };
    for (let i = 0; i <= 8; i++) {          // times along the bottom, addresses along the left edge
      const t = panel.time_s[Math.min(Math.round(view.x + view.w * i / 8), columns)];
      label(t.toPrecision(4) + " s", canvas.width * i / 8 * .93, canvas.height - 6);
      const a = panel.address[rows - Math.min(Math.round(view.y + view.h * i / 8), rows)];
      label(a, 4, 12 * devicePixelRatio + (canvas.height - 30) * i / 8);
    }
  }
  function clamp() {
    view.w = Math.min(Math.max(view.w, 4), columns); view.h = Math.min(Math.max(view.h, 4), rows);
    view.x = Math.min(Math.max(view.x, 0), columns - view.w); view.y = Math.min(Math.max(view.y, 0), rows - view.h);
  }
  canvas.addEventListener("wheel", e => {
    e.preventDefault();
    const fx = e.offsetX / canvas.clientWidth, fy = e.offsetY / canvas.clientHeight;
    const k = (e.deltaY || e.deltaX) > 0 ? 1.25 : 0.8, kx = e.altKey ? 1 : k, ky = e.shiftKey ? 1 : k;
    view.x += view.w * fx * (1 - kx); view.w *= kx; view.y += view.h * fy * (1 - ky); view.h *= ky;
    clamp(); draw();
  }, { passive: false });
  let held = null;
  canvas.addEventListener("mousedown", e => { held = [e.offsetX, e.offsetY, view.x, view.y]; });
  window.addEventListener("mouseup", () => { held = null; });
  canvas.addEventListener("dblclick", () => { view = { x: 0, y: 0, w: columns, h: rows }; draw(); });
  canvas.addEventListener("mouseleave", () => { tip.style.display = "none"; });
  canvas.addEventListener("mousemove", e => {
    if (held) {
      view.x = held[2] - (e.offsetX - held[0]) / canvas.clientWidth * view.w;
      view.y = held[3] - (e.offsetY - held[1]) / canvas.clientHeight * view.h;
      clamp(); draw();
    }
    if (!heat) return;
    const x = Math.min(Math.floor(view.x + e.offsetX / canvas.clientWidth * view.w), columns - 1);
    const y = Math.min(Math.floor(view.y + e.offsetY / canvas.clientHeight * view.h), rows - 1), at = rows - 1 - y;
    const v = heat[y * columns + x], part = panel.segments.find(s => at >= s.from && at < s.to);
    tip.textContent = panel.time_s[x].toFixed(3) + " .. " + panel.time_s[x + 1].toFixed(3) + " s\\n"
      + panel.address[at] + " .. " + panel.address[at + 1] + (part && part.name ? "  " + part.name : "") + "\\n"
      + (v ? "accessed in " + ((v - 1) / 254 * panel.top * 100).toFixed(1) + " % of the samples" : "not monitored");
    tip.style.left = Math.min(e.offsetX + 14, canvas.clientWidth - 320) + "px";
    tip.style.top = canvas.offsetTop + e.offsetY + 14 + "px"; tip.style.display = "block";
  });
  window.addEventListener("resize", draw);
}
DATA.forEach(show);
"""
