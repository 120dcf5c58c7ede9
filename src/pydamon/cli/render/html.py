"""A heatmap as one HTML file that zooms without a server.

The heat travels as a grey picture (PNG, one byte a cell: 0 not monitored or unknown, else the heat); the script colours
and magnifies it. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pydamon.cli.render.axes import Scale
from pydamon.cli.render.heat_panel import HeatPanel
from pydamon.cli.render.output import write_whole
from pydamon.markup import RAMP, png

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader


_BETWEEN = [-1] * 3  # rows between two segments


def write_page(
    path: str, title: str, panels: list[HeatPanel], scale: Scale, made_from: AnyReader, rest: str = ""
) -> None:
    """Write the page, as `write_whole`; nothing is left of it if that fails. Raises PydamonError naming the file."""
    page = render(title, panels, scale, rest).encode("utf-8", "replace")
    write_whole(path, lambda file: file.write(page), made_from)


def render(title: str, panels: list[HeatPanel], scale: Scale, rest: str = "") -> str:
    """The page as text. What it is about is data in it: it runs the script below, and no other."""
    values = {
        "TITLE": escape(title),
        "REST": f"<p>{escape(rest)}</p>\n" if rest else "",
        "POLICY": f"default-src 'none'; img-src data:; script-src '{_hash(_SCRIPT)}'; style-src '{_hash(_STYLE)}'; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": _STYLE,
        "SCRIPT": _SCRIPT,
        "DATA": _inert(
            {"panels": [_data(panel, scale) for panel in panels], "ramp": [list(colour) for colour in RAMP]}
        ),
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


def _data(panel: HeatPanel, scale: Scale) -> dict[str, object]:
    heatmap = panel.heatmap
    segments = [
        {"from": part.start, "to": part.stop, "name": name}
        for part, name in zip(heatmap.segments(), panel.names, strict=True)
    ]
    cells = np.where(np.isnan(heatmap.heat), 0.0, 1.0 + 254.0 * np.nan_to_num(heatmap.heat) / scale.top)
    grey = np.clip(np.round(cells), 0, 255).astype(np.uint8)
    return {
        "title": panel.title,
        "details": panel.details,
        "note": panel.note,
        "legend": f"{scale.words()} of the samples found an access",
        # Times as seconds: a float64 is exact enough for the eye. Addresses do not fit one: they stay text.
        "time_s": ((heatmap.time_ns - panel.origin_ns) / 1e9).round(6).tolist(),
        "address": [hex(value) for value in heatmap.address.tolist()],
        "top": scale.top,
        "cut": scale.cut,
        "segments": segments,
        "row": _rows(panel),
        "image": base64.b64encode(png(grey.T[::-1])).decode("ascii"),
    }


def _rows(panel: HeatPanel) -> list[int]:
    """The cell that each row of the picture shows, from the lowest up; -1 for rows between two segments.

    Each segment has as many rows as `HeatPanel.heights` gives it, and each cell at least one.
    """
    segments = panel.heatmap.segments()
    cells = np.array([segment.stop - segment.start for segment in segments])
    shares = np.array(panel.heights(1.0))
    counts = np.maximum(np.rint(shares * (cells / shares).max()).astype(np.int64), cells).tolist()
    rows: list[int] = []
    for segment, own, count in zip(segments, cells.tolist(), counts, strict=True):
        rows += [*(_BETWEEN if rows else []), *(segment.start + row * own // count for row in range(count))]
    return rows


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="@POLICY@"><title>@TITLE@</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>@STYLE@</style></head><body>
<h1>@TITLE@</h1>
<p>Time to the right, addresses upwards.</p>
<p>Wheel: zoom. Shift and wheel: time only. Alt and wheel: addresses only. Drag: move. Double click: everything.</p>
<div id="maps"></div>
@REST@<script type="application/json" id="data">@DATA@</script>
<script>@SCRIPT@</script></body></html>
"""

_STYLE = """
 body { font: 14px system-ui, sans-serif; margin: 1.5em; background: #fff; color: #222; }
 h1 { font-size: 1.2em; } h2 { font-size: 1.05em; margin: 1.2em 0 .2em; } p { margin: .2em 0; color: #555; }
 .map { position: relative; } canvas { display: block; width: 100%; height: 60vh; cursor: grab; }
 canvas.bar { display: inline-block; width: 200px; height: 10px; cursor: auto; }
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
const GREY = [232, 232, 236];              // not monitored or unknown
function legend(panel) {
  const line = document.createElement("p"), bar = document.createElement("canvas"); bar.className = "bar";
  bar.width = 254; bar.height = 1;
  const g = bar.getContext("2d"), d = g.createImageData(254, 1);
  for (let i = 0; i < 254; i++) { d.data.set([...colour(i + 1), 255], 4 * i); }
  g.putImageData(d, 0, 0);
  line.append(bar, " " + panel.legend + "; grey: not monitored or unknown");
  return line;
}
function show(panel) {
  const box = document.createElement("div"); box.className = "map";
  const head = document.createElement("h2"); head.textContent = panel.title;
  const details = document.createElement("p"); details.textContent = panel.details;
  const canvas = document.createElement("canvas"), tip = document.createElement("div"); tip.className = "tip";
  const note = document.createElement("p"); note.textContent = panel.note;
  box.append(head, details, legend(panel), canvas, note, tip); document.getElementById("maps").append(box);
  const columns = panel.time_s.length - 1, cells = panel.address.length - 1, rows = panel.row.length;
  let view = { x: 0, y: 0, w: columns, h: rows }, picture = null, heat = null;
  const grey = new Image();
  grey.onload = () => {
    const c = document.createElement("canvas"); c.width = columns; c.height = cells;
    const s = c.getContext("2d"); s.drawImage(grey, 0, 0);
    const from = s.getImageData(0, 0, columns, cells).data;
    c.height = rows; const g = c.getContext("2d"), d = g.createImageData(columns, rows), p = d.data;
    heat = new Uint8Array(columns * rows);
    for (let y = 0; y < rows; y++) {
      const cell = panel.row[rows - 1 - y];
      for (let x = 0; x < columns; x++) {
        const i = y * columns + x, v = heat[i] = cell < 0 ? 0 : from[4 * ((cells - 1 - cell) * columns + x)];
        const rgb = cell < 0 ? [255, 255, 255] : v ? colour(v) : GREY;
        p[4 * i] = rgb[0]; p[4 * i + 1] = rgb[1]; p[4 * i + 2] = rgb[2]; p[4 * i + 3] = 255;
      }
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
      const a = panel.row[rows - 1 - Math.min(Math.floor(view.y + view.h * i / 8), rows - 1)];
      if (a >= 0) label(panel.address[a], 4, 12 * devicePixelRatio + (canvas.height - 30) * i / 8);
    }
    g.textAlign = "right";                  // what is mapped, in the middle of what is seen of each segment
    for (const part of panel.segments) {
      const first = rows - panel.row.lastIndexOf(part.to - 1) - 1, last = rows - panel.row.indexOf(part.from);
      const low = Math.max(first, view.y), high = Math.min(last, view.y + view.h);
      if (low < high) label(part.name, canvas.width - 4, ((low + high) / 2 - view.y) / view.h * canvas.height + 4);
    }
    g.textAlign = "left";
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
    const y = Math.min(Math.floor(view.y + e.offsetY / canvas.clientHeight * view.h), rows - 1);
    const at = panel.row[rows - 1 - y];
    if (at < 0) { tip.style.display = "none"; return; }
    const v = heat[y * columns + x], part = panel.segments.find(s => at >= s.from && at < s.to);
    tip.textContent = panel.time_s[x].toFixed(3) + " .. " + panel.time_s[x + 1].toFixed(3) + " s\\n"
      + panel.address[at] + " .. " + panel.address[at + 1] + (part && part.name ? "  " + part.name : "") + "\\n"
      + (v ? "accessed in " + (v == 255 && panel.cut ? "at least " : "")
         + ((v - 1) / 254 * panel.top * 100).toFixed(1) + " % of the samples" : "not monitored or unknown");
    tip.style.left = Math.min(e.offsetX + 14, canvas.clientWidth - 320) + "px";
    tip.style.top = canvas.offsetTop + e.offsetY + 14 + "px"; tip.style.display = "block";
  });
  window.addEventListener("resize", draw);
}
DATA.forEach(show);
"""
