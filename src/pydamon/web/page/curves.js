// Sizes over time beside the heatmap, with its cursor and its times.

import { BYTE_STEPS, colourOf, element, fainter, size, tick } from "./format.js";

const SYNC_HEIGHT = 220;

export class Curves {
  constructor(scene, told) {
    this.scene = scene;
    this.told = told;
    this.plot = null;  // until `rebuild`
    this.box = element("div", { className: "chart" });
    new ResizeObserver(() => this.plot?.setSize({ width: this.box.clientWidth, height: SYNC_HEIGHT })).observe(this.box);
  }

  update(told) {
    this.told = told;
    this.rebuild();
  }

  // uPlot has one list of times: what was measured at others is joined to it.
  #data() {
    const { curves, footprint, panel } = this.told;
    const cold = curves.cold[this.scene.cold] ?? [];
    const tables = [[curves.time_s, curves.used, curves.least, curves.most, cold]];
    if (this.#hasUnknown()) tables[0].push(curves.unknown);
    if (footprint.time_s.length) tables.push([footprint.time_s, footprint.resident]);
    if (panel) tables.push([panel.time_s, panel.used]);
    return uPlot.join(tables.filter((one) => one[0].length));
  }

  #hasUnknown() { return this.told.curves.unknown.some((bytes) => bytes > 0); }

  #series() {
    const value = (_, bytes) => size(bytes), line = { value, spanGaps: false, points: { show: false } };
    const used = colourOf("--used"), found = [
      { label: "at", value: (_, seconds) => (seconds === null ? "–" : tick(seconds, 0.1)) },
      { ...line, label: "working set", stroke: used, width: 2 },
      { ...line, label: "least", stroke: used, width: 0.5 },
      { ...line, label: "most", stroke: used, width: 0.5 },
      { ...line, label: "cold so long", stroke: colourOf("--cold"), width: 2 },
    ];
    if (this.#hasUnknown()) {
      found.push({ ...line, label: "unknown whether used", stroke: colourOf("--memory"), width: 0.75 });
    }
    if (this.told.footprint.time_s.length) {
      found.push({ ...line, label: "resident", stroke: colourOf("--memory"), width: 1.5, dash: [6, 3], spanGaps: true });
    }
    if (this.told.panel) {
      found.push({ ...line, label: `used in ${this.told.panel.window_s} s (panel)`, stroke: colourOf("--panel"),
        width: 1.5, dash: [2, 3], spanGaps: true });
    }
    return found;
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.told.curves.time_s.length) return;
    const front = colourOf("--front"), grid = { stroke: colourOf("--line"), width: 1 }, scene = this.scene;
    const options = {
      width: this.box.clientWidth || 600, height: SYNC_HEIGHT, series: this.#series(),
      scales: { x: { time: false, min: scene.from, max: scene.to, range: () => [scene.from, scene.to] },
        y: { range: (_, low, high) => [0, (high || 1) * 1.05] } },
      axes: [
        { stroke: front, grid, space: 90, values: (_, found) => found.map((at, place) => tick(at, Math.abs((found[1] ?? 1) - (found[0] ?? 0)))) },
        { stroke: front, grid, size: 70, incrs: BYTE_STEPS, values: (_, found) => found.map(size) },
      ],
      bands: [{ series: [3, 2], fill: fainter(colourOf("--used")) }],
      cursor: { drag: { x: true, y: false, setScale: false } },
      hooks: {
        setCursor: [(plot) => {
          if (!this.following && plot.cursor.left >= 0) scene.point(plot.posToVal(plot.cursor.left, "x"));
        }],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          if (width < 4) return;
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          scene.show(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
          scene.moved();
        }],
      },
    };
    this.plot = new uPlot(options, this.#data(), this.box);
  }

  refresh() { this.plot?.setData(this.#data()); }

  follow() { this.plot?.setScale("x", { min: this.scene.from, max: this.scene.to }); }

  point(seconds) {
    if (!this.plot) return;
    this.following = true;
    this.plot.setCursor(seconds === null ? { left: -10, top: -10 } : { left: this.plot.valToPos(seconds, "x"), top: 5 }, true);
    this.following = false;
  }

  // Bytes that were cold for so long at a time: of the column that it lies in.
  coldAt(seconds) {
    const { time_s: times, cold } = this.told.curves, row = cold[this.scene.cold] ?? [];
    let found = null;
    for (let at = 0; at < times.length && (found === null || times[at] <= seconds); at++) if (row[at] !== null) found = row[at];
    return found;
  }
}
