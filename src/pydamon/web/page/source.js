// Where the data comes from: the server, or this file itself.

export const TILE = 256;

// The tile of a plane: all cells of a level, as many in each column.
function cut(plane, cells, column, row) {
  const found = new Uint8Array(TILE * TILE), count = Math.min(TILE, cells - row * TILE);
  const columns = Math.min(TILE, plane.length / cells - column * TILE);
  if (count <= 0 || columns <= 0) throw new Error("there is no such tile");
  for (let at = 0; at < columns; at++) {
    const from = (column * TILE + at) * cells + row * TILE;
    found.set(plane.subarray(from, from + count), at * TILE);
  }
  return found;
}

// All tiles of a plane, with their places.
export function tilesOf(plane, cells) {
  const found = [];
  for (let column = 0; column * TILE < plane.length / cells; column++) {
    for (let row = 0; row * TILE < cells; row++) found.push([column, row, cut(plane, cells, column, row)]);
  }
  return found;
}

export class Server {
  finer = true;
  #first;

  // `first`: what stands in the page, so that it need not be asked for.
  constructor(first) { this.#first = first; }

  async #get(path, kind) {
    const answer = await fetch(`api/${path}`, { credentials: "same-origin" });
    if (!answer.ok) throw new Error((await answer.text()).slice(0, 300).trim() || `status ${answer.status}`);
    return answer[kind]();
  }

  async list() {
    const { recordings, ramp } = this.#first;
    this.#first.recordings = null;
    return recordings ? { recordings, ramp } : this.#get("recordings", "json");
  }

  async target(recording, target) {
    const { shown, told } = this.#first;
    this.#first.shown = null;
    if (shown && shown[0] === recording && shown[1] === target) return told;
    return this.#get(`${recording}/${target}`, "json");
  }

  async plane(recording, target, level) {
    return new Uint8Array(await this.#get(`${recording}/${target}/plane/${level}`, "arrayBuffer"));
  }

  status(recording) { return this.#get(`${recording}/status`, "json"); }
  schemes(recording) { return this.#get(`${recording}/schemes`, "json"); }
  whatIf(recording, target) { return this.#get(`${recording}/${target}/what-if`, "json"); }
  at(recording, target, ns) { return this.#get(`${recording}/${target}/at?ns=${ns}`, "json"); }

  window(recording, target, from, to, low, high) {
    return this.#get(`${recording}/${target}/window?from=${from}&to=${to}&low=${low}&high=${high}`, "json");
  }

  async tile(recording, target, level, shrink, column, row) {
    const place = `${level}/${shrink}/${column}/${row}`;
    return new Uint8Array(await this.#get(`${recording}/${target}/tile/${place}`, "arrayBuffer"));
  }
}

export class InFile {
  finer = false;
  #held;
  #levels = new Map();

  constructor(held) { this.#held = held; }

  async list() { return { recordings: [this.#held.summary], ramp: this.#held.ramp }; }
  async target(_, target) { return this.#held.targets[target]; }
  async status() { return { lines: [] }; }
  async whatIf(_, target) { return this.#held.what_if[target]; }
  async schemes() { return { schemes: this.#held.schemes }; }

  async at(_, target, ns) {
    const moments = this.#held.moments[target];
    return moments.findLast((moment) => moment.start_ns <= ns) ?? moments[0];
  }

  async window(_, target, from, to, low, high) {
    const all = this.#held.moments[target], inside = all.filter((one) => one.end_ns > from && one.start_ns < to);
    const moments = inside.length ? inside : [await this.at(0, target, from)];
    const mappings = this.#held.targets[target].mappings;
    return { snapshots: moments.length, named: mappings.length > 0,
      mappings: heldByMapping(moments, mappings, low, high) };
  }

  async tile(_, target, level, shrink, column, row) {
    if (shrink !== 0) throw new Error("there is no such tile");
    return cut(await this.plane(_, target, level), this.#held.targets[target].cells, column, row);
  }

  async plane(_, target, level) {
    const key = `${target}/${level}`;
    if (!this.#levels.has(key)) this.#levels.set(key, inflated(this.#held.levels[target][level]));
    return this.#levels.get(key);
  }
}

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const WARM_S = 10;

// As `held_by_mapping` of the server: what lies in [low, high) of each mapping, the mean over the moments.
function heldByMapping(moments, mappings, low, high) {
  const spans = mappings.map(([start, end, name]) => [BigInt(start), BigInt(end), name]), sums = new Map();
  const add = (name, kind, bytes) => {
    const sum = sums.get(name) ?? { name, kind: "", hot: 0, warm: 0, cold: 0, unknown: 0 };
    sum[kind] += bytes / moments.length;
    sums.set(name, sum);
  };
  for (const { regions } of moments) {
    for (const [from, to, , idle, bytes] of regions) {
      const start = BigInt(from), end = BigInt(to), kind = idle < 0 ? "hot" : idle < WARM_S ? "warm" : "cold";
      const cut = (first, last) => {
        const a = first > low ? first : low, b = last < high ? last : high;
        return b > a ? Number(b - a) / Number(end - start) * bytes : 0;
      };
      let left = cut(start, end);
      for (const [first, last, name] of spans) {
        if (last <= start || first >= end) continue;
        const part = cut(first > start ? first : start, last < end ? last : end);
        if (part > 0) { add(name, kind, part); left -= part; }
      }
      if (left > 1) add("(not mapped any more)", kind, left);
    }
  }
  return [...sums.values()].sort((a, b) => b.hot + b.warm + b.cold - (a.hot + a.warm + a.cold));
}
