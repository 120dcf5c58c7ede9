// What taking idle memory would save and bring back, over the idle time. It costs a pass over the recording: it is
// asked for when somebody scrolls to it.

import { BYTE_STEPS, colourOf, duration, element, fainter, percent, size, table } from "./format.js";

const GRAPH_HEIGHT = 190, TICK_WIDTH = 64, FRESH_MS = 30000;
const AGE_TICKS = [1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800, 43200, 86400, 604800];
const LINEAR_BELOW = 65536;  // bytes a minute; above it each step of the scale is 16 times the one before
const RETURN_TICKS = [0, ...Array.from({ length: 10 }, (_, at) => LINEAR_BELOW * 16 ** at)];

let whatIfs = 0;

export class WhatIf {
  #told = null;
  #plots = [];
  #asked_ms = 0;
  #idle_s = 0;
  #key = `what-if ${whatIfs += 1}`;  // of those whose cursors are one

  // `ask` fetches the answer; `changed` is called when there is one.
  constructor(ask, changed) {
    Object.assign(this, { ask, changed });
    this.words = element("p", { role: "status" });
    this.charts = element("div", { className: "what-if" });
    this.numbers = element("div");
    this.box = element("section", {}, element("h3", { textContent: "What if idle memory were taken" }),
      this.words, this.charts, this.numbers);
    new ResizeObserver(() => {
      for (const plot of this.#plots) plot.setSize({ width: this.charts.clientWidth, height: GRAPH_HEIGHT });
    }).observe(this.charts);
  }

  // From now on it is loaded as soon as it is seen.
  watch() {
    const observer = new IntersectionObserver((seen) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      observer.disconnect();
      this.#load();
    });
    observer.observe(this.box);
  }

  // The recording has more than before: `growing` says whether still more will come.
  renew(growing) {
    if (this.#told && (!growing || performance.now() - this.#asked_ms > FRESH_MS)) this.#load();
  }

  async #load() {
    this.#asked_ms = performance.now();
    if (!this.#told) this.words.textContent = "This is being worked out …";
    try { this.#told = await this.ask(); } catch (error) { this.words.textContent = error.message; return; }
    this.words.textContent = sentences(this.#told);
    this.rebuild();
    this.#tabulate();
    this.changed();
  }

  // What comes back of memory that is taken after so many seconds.
  wordsAt(seconds) {
    const told = this.#told, at = told ? told.age_s.findLastIndex((age) => age <= seconds * (1 + 1e-9)) : -1;
    if (at < 0 || seconds > told.age_s.at(-1) * 1.5) return "";
    return `; if it were taken then, ${returning(told, at)} a minute would come back${bracket(told, at)}`;
  }

  // The idle time that is asked about elsewhere on the page.
  mark(seconds) {
    this.#idle_s = seconds;
    for (const plot of this.#plots) plot.redraw(false);
  }

  rebuild() {
    for (const plot of this.#plots) plot.destroy();
    this.#plots = [];
    if (!this.#told || this.#told.age_s.length < 2) return;
    const { age_s: ages, saved, back, least, most } = this.#told, used = colourOf("--used");
    const value = (_, bytes) => size(bytes), line = { value, points: { show: false }, width: 2 };
    const thin = { ...line, stroke: used, width: 0.5 };
    this.#draw([ages, saved], [{ ...line, label: "saved", stroke: colourOf("--cold") }], {
      scale: { range: (_, low, high) => [0, (high || 1) * 1.05] },
      axis: { incrs: BYTE_STEPS },
    });
    const top = Math.max(...back, ...most.map((bytes) => bytes ?? 0), LINEAR_BELOW) * 1.5;
    this.#draw([ages, back, least, most], [{ ...line, label: "comes back a minute", stroke: used },
      { ...thin, label: "at least" }, { ...thin, label: "at most" }], {
      scale: { distr: 4, asinh: LINEAR_BELOW / 8, range: () => [0, top] },
      axis: { splits: () => RETURN_TICKS.filter((bytes) => bytes <= top), filter: (_, found) => found },
      bands: [{ series: [3, 2], fill: fainter(used) }],
    });
  }

  #draw(data, series, { scale, axis, bands }) {
    const ages = data[0], low = ages[0], high = ages.at(-1), front = colourOf("--front");
    const grid = { stroke: colourOf("--line"), width: 1 };
    const width = this.charts.clientWidth || 600;
    this.#plots.push(new uPlot({
      width, height: GRAPH_HEIGHT, bands,
      series: [{ label: "idle for", value: (_, seconds) => (seconds === null ? "–" : duration(seconds)) }, ...series],
      scales: { x: { time: false, distr: 3, range: () => [low, high] }, y: scale },
      axes: [
        { stroke: front, grid, splits: (plot) => ageTicks(low, high, plot.width), filter: (_, found) => found,
          values: (_, found) => found.map(duration) },
        { stroke: front, grid, size: 70, values: (_, found) => found.map(size), ...axis },
      ],
      cursor: { drag: { x: false, y: false }, sync: { key: this.#key } },
      hooks: { draw: [(plot) => this.#mark(plot)] },
    }, data, this.charts));
  }

  #mark(plot) {
    const { lowest, age_s: ages } = this.#told;
    if (lowest) vertical(plot, ages[lowest.at], colourOf("--mark"), [], duration(ages[lowest.at]));
    if (this.#idle_s >= ages[0] && this.#idle_s <= ages.at(-1)) vertical(plot, this.#idle_s, colourOf("--cold"), [4, 4], "");
  }

  #tabulate() {
    const told = this.#told;
    const rows = told.age_s.map((age, at) => [duration(age), size(told.saved[at]), size(told.back[at]), size(told.least[at]),
      size(told.most[at]), told.working_set ? percent(told.back[at] / told.working_set) : "–"]);
    const headings = ["idle for", "saved", "back a minute", "at least", "at most", "of the working set"];
    const open = this.numbers.querySelector("details")?.open ?? false;
    this.numbers.replaceChildren(element("details", { open }, element("summary", { textContent: "In numbers" }),
      element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "What if idle memory were taken, in numbers" },
        table("Memory that would be saved, and come back, by the idle time after which it is taken", headings, rows))));
  }
}

function returning(told, at) {
  return `${told.most[at] === null ? "at least " : ""}${size(told.back[at])}`;
}

function bracket(told, at) {
  return told.most[at] === null ? "" : ` (${size(told.least[at])} to ${size(told.most[at])})`;
}

function sentences(told) {
  if (told.age_s.length < 2) return "The recording is too short to tell.";
  const { lowest } = told, found = [];
  const goal = `For at most ${percent(told.goal)} of the working set (${size(told.working_set)}, used within ${duration(told.window_s)}) a minute`;
  if (lowest) {
    found.push(`${goal}: take what is idle for ${duration(told.age_s[lowest.at])} (the green line): saves ${size(told.saved[lowest.at])} of `
      + `${size(told.resident)}, ${returning(told, lowest.at)} a minute come back${bracket(told, lowest.at)}`
      + `${lowest.few ? "; by a few returns only: record longer, or take a larger page panel" : ""}.`);
  } else found.push(`${goal} no idle time that was seen is long enough.`);
  if (!told.panel_pages) found.push("There is no page panel: this is what regions say, who miss most of the single pages that come back.");
  if (told.acted.length) {
    found.push(`Schemes acted while it was recorded (${told.acted.join(", ")}): idle times of what they took are of their making.`);
  }
  return found.join(" ");
}

// Of the round times those that have room.
function ageTicks(low, high, width) {
  const found = [];
  let end = -Infinity;
  for (const age of AGE_TICKS) {
    const place = Math.log(age / low) / Math.log(high / low) * (width - TICK_WIDTH);
    if (age < low || age > high || place - end < TICK_WIDTH) continue;
    found.push(age);
    end = place;
  }
  return found;
}

function vertical(plot, age, colour, dash, text) {
  const { ctx, bbox } = plot, x = Math.round(plot.valToPos(age, "x", true)), dense = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = 2 * dense;
  ctx.setLineDash(dash.map((length) => length * dense));
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.font = `${12 * dense}px system-ui, sans-serif`;
  const atRight = x > bbox.left + bbox.width / 2;
  ctx.textAlign = atRight ? "right" : "left";
  ctx.textBaseline = "top";
  ctx.fillText(text, x + (atRight ? -5 : 5) * dense, bbox.top + 3 * dense);
  ctx.restore();
}
