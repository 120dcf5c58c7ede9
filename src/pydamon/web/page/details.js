// What is seen, in words and tables: what the mappings held in the window, what the schemes did.

import { duration, element, percent, size, table, tick } from "./format.js";

export class Details {
  #asked = 0;

  constructor() {
    this.box = element("section", {}, element("h3", { textContent: "What is seen" }));
    this.words = element("p");
    this.held = element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "What the mappings hold" });
    this.box.append(this.words, this.held);
  }

  // `ask` fetches the window; of answers that overtake each other the last question's counts.
  async show(ask, from, to, low, high) {
    const mine = ++this.#asked;
    let found;
    try { found = await ask(); } catch (error) {
      if (mine === this.#asked) { this.words.textContent = error.message; this.held.replaceChildren(); }
      return;
    }
    if (mine !== this.#asked) return;
    const step = (to - from) / 100, sums = { hot: 0, warm: 0, cold: 0, unknown: 0 };
    for (const one of found.mappings) for (const key of Object.keys(sums)) sums[key] += one[key];
    const memory = sums.hot + sums.warm + sums.cold;
    this.words.textContent = `${tick(from, step)} to ${tick(to, step)}, 0x${low.toString(16)} to 0x${high.toString(16)}: `
      + `${size(memory)} of memory, of which ${size(sums.hot)} hot, ${size(sums.warm)} warm (accessed within 10 s), `
      + `${size(sums.cold)} cold${sums.unknown ? `; of ${size(sums.unknown)} more it is not known` : ""}`
      + `${found.named ? "" : "; the recording has no mappings of it"}`;
    const rows = found.mappings.slice(0, 40).map((one) => {
      const all = one.hot + one.warm + one.cold;
      return [one.name, one.kind, size(all), size(one.hot), size(one.warm), size(one.cold), all ? percent(one.hot / all) : "–"];
    });
    const rest = found.mappings.length - rows.length;
    const caption = `Memory by mapping, the mean of ${found.snapshots} snapshots${rest > 0 ? `; ${rest} smaller ones left out` : ""}`;
    this.held.replaceChildren(table(caption, ["mapping", "kind", "memory", "hot", "warm", "cold", "hot share"], rows));
  }
}

export function schemesTable(schemes) {
  const rows = schemes.map((one) => [one.name, one.action, one.active ? "yes" : "no", size(one.tried_bytes),
    size(one.applied_bytes), String(one.quota_exceeded ?? "–"), size(one.quota_bytes)]);
  const headings = ["scheme", "action", "active", "tried", "applied", "quota exceeded", "effective quota"];
  return element("section", {}, element("h3", { textContent: "Schemes" }),
    element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Schemes" }, table("Since the start", headings, rows)));
}

// What the page panel says at its last look of memory that is idle for so long, with its error.
export function panelWords(panel, seconds) {
  const row = panel?.idle.findLast(([bound]) => bound <= Math.max(seconds, 1));
  return row ? `; by the page panel at the end ${size(row[1])} ± ${size(row[2])} (≥ ${duration(row[0])})` : "";
}
