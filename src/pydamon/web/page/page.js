// The page: which recordings are shown, and what they share: times, cursor, colours, how long cold is.

import { Addresses } from "./axis.js";
import { drawLegend, palette } from "./colours.js";
import { Curves } from "./curves.js";
import { Details, panelWords, schemesTable } from "./details.js";
import { duration, element, percent, size } from "./format.js";
import { Heatmap } from "./heatmap.js";
import { InFile, Server } from "./source.js";
import { WhatIf } from "./whatif.js";

const byId = (id) => document.getElementById(id);
const held = byId("held"), source = held ? new InFile(JSON.parse(held.textContent)) : new Server(JSON.parse(byId("first").textContent));
const LOOK_MS = 2000, CALM_MS = 250, FRAME_MS = 250;

const scene = {
  from: 0, to: 1, end: 1, cursor: null, palette: null, cold: 4, shown: [], ramp: [],

  show(from, to) {
    const length = Math.min(Math.max(to - from, 1e-6), this.end), middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - length / 2, 0), this.end - length);
    this.to = this.from + length;
    for (const one of this.shown) { one.map.redraw(); one.curves.follow(); }
  },
  showAll() { this.show(0, this.end); },
  moved() { calmly(tellAll); },
  point(seconds) {
    this.cursor = seconds;
    for (const one of this.shown) { one.map.redraw(); one.curves.point(seconds); }
    calmly(tellCold, "cold");
  },
};

const waiting = new Map();
function calmly(act, key = "all") {
  clearTimeout(waiting.get(key));
  waiting.set(key, setTimeout(act, CALM_MS));
}

const nextFrame = () => new Promise((resolve) => {
  setTimeout(resolve, FRAME_MS);  // a page that nobody sees has no frames
  requestAnimationFrame(() => setTimeout(resolve));
});

function say(text) { byId("said").textContent = text; }

class Shown {
  constructor(recording, target, summary, told) {
    Object.assign(this, { recording, target, summary, told });
    this.addresses = new Addresses(told);
    const title = summary.targets.find((one) => one.target === target)?.title ?? "";
    const tile = (...place) => source.tile(recording, target, ...place);
    const label = `Heatmap of ${title}: time to the right, addresses upwards. The table below tells the same in numbers.`;
    this.map = new Heatmap(scene, tile, source.finer, told, this.addresses, label);
    this.curves = new Curves(scene, told);
    this.details = new Details();
    this.whatIf = new WhatIf(() => source.whatIf(recording, target), () => this.tellCold());
    this.about = element("p");
    this.cold = element("p");
    this.notes = element("p", { className: "warning" });
    this.status = element("pre", { tabIndex: 0, "aria-label": "Status of the kdamond" });
    this.status.hidden = true;
    this.box = element("section", { className: "recording", "aria-label": `${summary.name}: ${title}` },
      element("h2", { textContent: title || summary.name }), this.about, this.notes, this.#tools(), this.map.box,
      this.map.under, this.cold, this.curves.box, this.details.box, this.status);
    this.describe(summary);
  }

  // Until the heatmap is there: it comes first.
  async begin() {
    await this.map.begin((level) => source.plane(this.recording, this.target, level));
    await this.map.painted;
  }

  describe(summary) {
    this.summary = summary;
    const left = summary.left_out ? `; ${summary.left_out} smaller targets are not drawn` : "";
    const when = summary.wall_ms === null ? "" : `, since ${new Date(summary.wall_ms).toLocaleString()}`;
    this.about.textContent = `${summary.name}: ${duration(summary.span_ns / 1e9)}${when}, ${summary.source}${left}`
      + (summary.growing ? "; still being recorded" : "");
    this.notes.textContent = [summary.error, ...summary.warnings].filter(Boolean).join("; ");
  }

  async tellStatus() {
    const { lines } = await source.status(this.recording);
    this.status.textContent = lines.join("\n");
    this.status.hidden = !lines.length;
  }

  #tools() {
    const middle = () => [this.map.canvas.clientWidth / 2, this.map.canvas.clientHeight / 2];
    const button = (text, label, act) => element("button", { type: "button", textContent: text, title: label, "aria-label": label, onclick: act });
    return element("div", { className: "tools", role: "group", "aria-label": "Zoom and move" },
      button("+", "zoom in", () => this.map.zoom(0.6, ...middle())),
      button("−", "zoom out", () => this.map.zoom(1 / 0.6, ...middle())),
      button("◀", "earlier", () => this.map.pan(-0.25, 0)), button("▶", "later", () => this.map.pan(0.25, 0)),
      button("▲", "higher addresses", () => this.map.pan(0, 0.25)), button("▼", "lower addresses", () => this.map.pan(0, -0.25)),
      button("all", "show everything", () => this.map.whole()));
  }

  async tell() {
    const { from, to } = scene, low = this.addresses.address(this.map.low), high = this.addresses.address(this.map.high);
    const between = [Math.max(Math.round(from * 1e9), 0), Math.max(Math.round(to * 1e9), 1)];
    await this.details.show(() => source.window(this.recording, this.target, ...between, low, high), from, to, low, high);
  }

  async tellCold() {
    const when = Math.min(scene.cursor ?? scene.to, this.told.end_ns / 1e9), bound = this.told.curves.cold_s[scene.cold];
    const words = bound ? `for at least ${duration(bound)}` : "in the snapshot";
    const bytes = this.curves.coldAt(when);
    this.cold.textContent = `At ${duration(when)}: ${size(bytes)} not accessed ${words}${panelWords(this.told.panel, bound)}${this.whatIf.wordsAt(bound)}`;
    this.whatIf.mark(bound);
    const ns = Math.max(Math.round(when * 1e9) - 1, 0);
    let cold = [];
    try {
      const { regions } = await source.at(this.recording, this.target, ns);
      cold = regions.filter(([, , , idle]) => idle >= bound).map(([low, high]) => [BigInt(low), BigInt(high)]);
    } catch { /* nothing is marked */ }
    this.map.markCold(cold);
  }

  async renew(summary) {
    this.describe(summary);
    this.told = await source.target(this.recording, this.target);
    this.addresses = new Addresses(this.told);
    this.map.update(this.told, this.addresses);
    this.curves.update(this.told);
    this.whatIf.renew(summary.growing);
  }
}

function tellAll() { for (const one of scene.shown) { one.tell(); one.tellCold(); } }
function tellCold() { for (const one of scene.shown) one.tellCold(); }

function setColours() {
  const top = (byId("top").value / 100) ** 2;
  byId("top-words").textContent = percent(top);
  scene.palette = palette(scene.ramp, top);
  drawLegend(byId("legend"), scene.palette);
  for (const one of scene.shown) one.map.recolour();
}

function setCold() {
  scene.cold = Number(byId("cold").value);
  const bound = scene.shown[0]?.told.curves.cold_s[scene.cold] ?? 0, words = bound ? duration(bound) : "a snapshot";
  byId("cold-words").textContent = words;
  byId("cold").setAttribute("aria-valuetext", words);
  for (const one of scene.shown) one.curves.refresh();
  tellCold();
}

function fill(select, rows, chosen) {
  select.replaceChildren(...rows.map(([value, text]) => element("option", { value, textContent: text })));
  select.value = chosen;
  select.parentElement.hidden = rows.length < 2;
}

function targetRows(summary) {
  return summary.targets.map((one) => [String(one.target), `${one.title}: ${size(one.bytes)}`]);
}

let recordings = [], opening = 0;

async function open() {
  const mine = ++opening, first = Number(byId("recording").value), second = byId("beside").value;
  const wanted = [[first, Number(byId("target").value)]];
  if (second !== "") wanted.push(second.split("/").map(Number));
  const found = [];
  for (const [recording, target] of wanted) {
    found.push(new Shown(recording, target, recordings[recording], await source.target(recording, target)));
  }
  if (mine !== opening) return;
  scene.shown = found;
  scene.end = Math.max(...found.map((one) => one.told.end_ns / 1e9), 1e-6);
  byId("shown").replaceChildren(...found.map((one) => one.box));
  byId("cold").max = found[0].told.curves.cold_s.length - 1;
  scene.showAll();
  setColours();
  await Promise.all(found.map((one) => one.begin()));
  await nextFrame();  // what was drawn is on the screen then
  performance.mark("heatmap");
  if (mine !== opening) return;
  for (const one of found) one.curves.rebuild();
  setCold();
  tellAll();
  for (const one of found) {
    await one.tellStatus();
    const { schemes } = await source.schemes(one.recording);
    if (schemes.length) one.box.append(schemesTable(schemes));
    one.box.append(one.whatIf.box);
    one.whatIf.watch();
  }
}

function choose() {
  const at = Number(byId("recording").value);
  fill(byId("target"), targetRows(recordings[at]), String(recordings[at].targets[0].target));
  const others = recordings.flatMap((one, place) => one.targets.map((target) => [`${place}/${target.target}`, `${one.name}: ${target.title}`]));
  fill(byId("beside"), [["", "nothing"], ...others], "");
  byId("pick-beside").hidden = others.length < 2;
}

// Until something can be shown, and then while recordings grow.
async function look() {
  const known = recordings;
  const told = await source.list();
  scene.ramp = told.ramp;
  recordings = told.recordings;
  const ready = recordings.some((one) => one.targets.length && one.version > 0);
  const opened = !scene.shown.length && ready;
  if (opened) {
    say("");
    const rows = recordings.map((one, at) => [String(at), one.name]).filter(([at]) => recordings[at].targets.length);
    fill(byId("recording"), rows, rows[0][0]);
    byId("pick-recording").hidden = rows.length < 2;
    choose();
    await open();
  } else if (!ready) {
    const read = recordings.reduce((sum, one) => sum + one.progress, 0) / Math.max(recordings.length, 1);
    const wrong = recordings.map((one) => one.error).filter(Boolean).join("; ");
    say(wrong || (read < 1 ? `reading: ${percent(read)}` : "nothing was recorded yet"));
  }
  for (const one of opened ? [] : scene.shown) {
    const now = recordings[one.recording], before = known[one.recording];
    if (before && now.version !== before.version) await renew(one, now);
    if (now.growing) await one.tellStatus();
  }
  return !ready || recordings.some((one) => one.growing || one.progress < 1);
}

async function renew(one, summary) {
  const atEnd = scene.to >= scene.end * 0.999, all = atEnd && scene.from <= 0, length = scene.to - scene.from;
  await one.renew(summary);
  scene.end = Math.max(...scene.shown.map((shown) => shown.told.end_ns / 1e9), scene.end);
  if (all) scene.showAll(); else if (atEnd) scene.show(scene.end - length, scene.end); else scene.show(scene.from, scene.to);
  scene.moved();
}

async function keepLooking() {
  let more = true;
  try { more = await look(); } catch (error) { say(`the server does not answer: ${error.message}`); }
  if (more && !held) setTimeout(keepLooking, scene.shown.length ? LOOK_MS : 300);
}

byId("recording").addEventListener("change", () => { choose(); open(); });
byId("target").addEventListener("change", open);
byId("beside").addEventListener("change", open);
byId("cold").addEventListener("input", setCold);
byId("top").addEventListener("input", setColours);
for (const id of ["choice", "controls"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const one of scene.shown) { one.curves.rebuild(); one.whatIf.rebuild(); one.map.redraw(); }
});
globalThis.pydamon = { scene };  // for who drives the page: tests, and curious people
keepLooking();
