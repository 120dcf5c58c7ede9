// Numbers as people read them, and elements that hold texts and nothing else.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function size(bytes) {
  if (bytes === null || bytes === undefined || Number.isNaN(bytes)) return "–";
  let value = Number(bytes), unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? Number(value.toPrecision(value >= 100 ? 4 : 3)) : value} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds <= 0) return "0 s";
  if (seconds < 1e-6) return `${Number((seconds * 1e9).toPrecision(3))} ns`;
  if (seconds < 1e-3) return `${Number((seconds * 1e6).toPrecision(3))} us`;
  if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(4))} s`;
  const whole = Math.round(seconds), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = whole % 60;
  return [h && `${h} h`, m && `${m} min`, s && !(h > 9) && `${s} s`].filter(Boolean).join(" ");
}

export function percent(share) {
  return `${Number((share * 100).toPrecision(share >= 0.1 ? 3 : 2))} %`;
}

// A time on an axis whose ticks are `step` seconds apart.
export function tick(seconds, step) {
  if (step >= 1 || seconds <= 0) return duration(seconds);
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(step)), 0), 9);
  const rest = Number((seconds % 60).toFixed(digits)), minutes = Math.floor(seconds / 60);
  return minutes ? `${duration(minutes * 60)} ${rest} s` : `${rest} s`;
}

// Names are what programs, files and users call themselves: they are texts, never markup.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "role") made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function table(caption, headings, rows) {
  const cells = (kind, texts, extra = () => ({})) => texts.map((text, at) => element(kind, { textContent: text, ...extra(at) }));
  return element("table", { className: "told" },
    element("caption", { textContent: caption }),
    element("thead", {}, element("tr", {}, ...cells("th", headings, () => ({ scope: "col" })))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row)))));
}

// Between the ticks of an axis of bytes.
export const BYTE_STEPS = Array.from({ length: 56 }, (_, at) => 2 ** at);

// Of a band around a line of that colour.
export function fainter(colour) {
  return `color-mix(in srgb, ${colour} 18%, transparent)`;
}

export function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
