// The heatmap of one target: tiles on a canvas that zooms and pans, names of mappings, what is under the pointer.

import { ticks } from "./axis.js";
import { heatOf } from "./colours.js";
import { colourOf, duration, element, percent, size, tick } from "./format.js";
import { TILE, tilesOf } from "./source.js";

const MOST_TILES = 400, AT_ONCE = 6, FINER = 3, FOOT = 20;

export class Heatmap {
  #tiles = new Map();
  #wanted = [];
  #busy = 0;
  #frame = 0;
  #pointers = new Map();
  #marked = null;
  #cold = [];
  coldRanges = [];
  #begun = false;
  #isPainted;
  painted = new Promise((resolve) => { this.#isPainted = resolve; });  // once all is there that is to be seen
  frames = [];

  // `scene` is what all pictures share: the times that are shown, the cursor, the palette.
  constructor(scene, fetchTile, finer, told, addresses, label) {
    Object.assign(this, { scene, fetchTile, finer, told, addresses });
    this.low = 0;
    this.high = addresses.cells;
    this.canvas = element("canvas", { role: "img", "aria-label": label, tabIndex: 0 });
    this.under = element("div", { className: "under" });
    this.box = element("div", { className: "map" }, this.canvas);
    this.context = this.canvas.getContext("2d", { alpha: true });
    this.#listen();
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
  }

  update(told, addresses) {
    const moved = told.column_ns !== this.told.column_ns || told.cells !== this.told.cells;
    if (moved) { this.low = 0; this.high = addresses.cells; }
    const from = this.told.end_ns;
    for (const [key, tile] of this.#tiles) if (moved || tile.end >= from) this.#tiles.delete(key);
    Object.assign(this, { told, addresses });
    this.markCold(this.coldRanges);
  }

  // Where ranges of addresses lie on the axis: once, not at each frame.
  markCold(ranges) {
    this.coldRanges = ranges;
    this.#cold = ranges.map((range) => range.map((address) => this.addresses.place(address)));
    this.redraw();
  }

  // What is seen first comes as one, where that can be, and not tile by tile; nothing is drawn before.
  async begin(fetchPlane) {
    const [level, shrink] = this.#fit() ? this.#resolution() : [-1, 0];
    try {
      if (level >= 0 && shrink === 0) {
        for (const [column, row, data] of tilesOf(await fetchPlane(level), this.addresses.cells)) {
          this.#tiles.set([level, 0, column, row].join("/"), { data, picture: null, end: this.#endOf(level, column) });
        }
      }
    } catch { /* each tile will be asked for */ }
    this.#begun = true;
    this.redraw();
  }

  #endOf(level, column) { return (column + 1) * this.told.column_ns * 2 ** level * TILE; }

  recolour() {
    for (const tile of this.#tiles.values()) tile.picture = null;
    this.redraw();
  }

  redraw() {
    if (!this.#frame && this.#begun) this.#frame = requestAnimationFrame(() => { this.#frame = 0; this.#draw(); });
  }

  get #columnS() { return this.told.column_ns / 1e9; }

  #resolution() {
    const { from, to } = this.scene, width = this.canvas.width, height = this.canvas.height - FOOT * devicePixelRatio;
    let level = Math.floor(Math.log2((to - from) / width / this.#columnS) + 1e-9);
    level = Math.min(level, this.told.levels - 1);
    const finest = this.finer ? Math.max(-20, -Math.floor(Math.log2(this.told.column_ns))) : 0;
    level = Math.max(level, finest);
    if (level < 0 && level > -FINER) level = 0;
    let shrink = Math.floor(Math.log2((this.high - this.low) / height) + 1e-9);
    shrink = Math.max(shrink, level < 0 ? -this.addresses.finest : 0);
    return [level, this.finer ? Math.min(shrink, 8) : 0];
  }

  // Give the canvas as many pixels as it has room for; whether there is any.
  #fit() {
    const width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    const height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    if (width && height && (this.canvas.width !== width || this.canvas.height !== height)) {
      Object.assign(this.canvas, { width, height });
    }
    return width > 0 && height > 0;
  }

  #draw() {
    const began = performance.now(), ratio = devicePixelRatio;
    if (!this.#fit()) return;
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    this.#drawTiles(width, height - FOOT * ratio);
    this.#drawPieces(width, height - FOOT * ratio, ratio);
    this.#drawTimes(width, height, ratio);
    this.#drawMarks(width, height - FOOT * ratio, ratio);
    if (this.settled) this.#isPainted();
    this.frames.push(performance.now() - began);
    if (this.frames.length > 600) this.frames.shift();
  }

  #drawTiles(width, height) {
    const [level, shrink] = this.#resolution(), { from, to } = this.scene;
    const tileS = this.#columnS * 2 ** level * TILE, tileCells = TILE * 2 ** shrink;
    const firstColumn = Math.max(Math.floor(from / tileS), 0), firstRow = Math.max(Math.floor(this.low / tileCells), 0);
    const endS = Math.min(to, this.told.end_ns / 1e9), endCell = Math.min(this.high, this.addresses.cells);
    this.context.imageSmoothingEnabled = (this.high - this.low) / 2 ** shrink > height * 1.01;
    this.#wanted = [];
    for (let column = firstColumn; column * tileS < endS; column++) {
      for (let row = firstRow; row * tileCells < endCell; row++) {
        const place = [level, shrink, column, row];
        if (!this.#drawTile(place, width, height) && level < this.told.levels - 1) this.#drawCoarser(place, width, height);
      }
    }
    this.#fetchSome();
  }

  // Until a tile is there: what is there of coarser ones, cut to its place.
  #drawCoarser([level, shrink, column, row], width, height) {
    const context = this.context, [x, y, w, h] = this.#place(level, shrink, column, row, width, height);
    for (let up = 1; level + up < this.told.levels; up++) {
      const coarser = level + up, other = coarser < 0 ? shrink : Math.max(shrink, 0);
      const at = [coarser, other, column >> up, Math.floor(row * 2 ** (shrink - other))];
      const tile = this.#tiles.get(at.join("/"));
      if (!tile?.data) continue;
      context.save();
      context.beginPath();
      context.rect(x, y, w, h);
      context.clip();
      this.#drawTile(at, width, height);
      context.restore();
      return;
    }
  }

  #place(level, shrink, column, row, width, height) {
    const tileS = this.#columnS * 2 ** level * TILE, tileCells = TILE * 2 ** shrink, { from, to } = this.scene;
    const x = (column * tileS - from) / (to - from) * width, w = tileS / (to - from) * width;
    const scale = height / (this.high - this.low), top = height - ((row + 1) * tileCells - this.low) * scale;
    return [x, top, w, tileCells * scale];
  }

  #drawTile(place, width, height) {
    const key = place.join("/"), tile = this.#tiles.get(key);
    if (!tile) {
      this.#wanted.push(place);
      return false;
    }
    if (!tile.data) return tile.missing === true;
    this.#tiles.delete(key);
    this.#tiles.set(key, tile);  // the one that was used last goes last
    if (!tile.picture) tile.picture = this.#painted(tile.data);
    const [x, y, w, h] = this.#place(...place, width, height);
    this.context.drawImage(tile.picture, x, y, w, h);
    return true;
  }

  #painted(data) {
    const picture = new OffscreenCanvas(TILE, TILE), context = picture.getContext("2d");
    const image = context.createImageData(TILE, TILE), words = new Uint32Array(image.data.buffer);
    const colours = this.scene.palette;
    for (let column = 0; column < TILE; column++) {
      for (let cell = 0; cell < TILE; cell++) words[(TILE - 1 - cell) * TILE + column] = colours[data[column * TILE + cell]];
    }
    context.putImageData(image, 0, 0);
    return picture;
  }

  #fetchSome() {
    while (this.#busy < AT_ONCE && this.#wanted.length) {
      const place = this.#wanted.shift(), key = place.join("/");
      if (this.#tiles.has(key)) continue;
      const tile = { data: null, picture: null, end: this.#endOf(place[0], place[2]) };
      this.#tiles.set(key, tile);
      this.#busy += 1;
      this.fetchTile(...place).then((data) => { tile.data = data; }, () => { tile.missing = true; }).then(() => {
        this.#busy -= 1;
        for (const [old] of this.#tiles) {
          if (this.#tiles.size <= MOST_TILES) break;
          this.#tiles.delete(old);
        }
        this.redraw();
      });
    }
  }

  get settled() { return this.#begun && this.#busy === 0 && this.#wanted.length === 0 && this.#frame === 0; }

  #text(text, x, y, ratio, align = "left") {
    const context = this.context;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.textAlign = align;
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "rgba(0, 0, 0, .75)";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }

  #drawPieces(width, height, ratio) {
    const scale = height / (this.high - this.low), context = this.context;
    let free = Infinity;
    for (const [at, piece] of this.addresses.pieces.entries()) {
      const bottom = height - (piece.first - this.low) * scale, top = height - (piece.behind - this.low) * scale;
      if (bottom < 0 || top > height) continue;
      if (at > 0) {
        const gap = this.addresses.pieces[at - 1].high !== piece.low;
        context.fillStyle = gap ? colourOf("--back") : "rgba(255, 255, 255, .35)";
        context.fillRect(0, bottom - (gap ? 1.5 * ratio : 0), width, (gap ? 3 : 1) * ratio);
      }
      const place = Math.min(Math.max(top, 0) + 14 * ratio, Math.min(bottom, height) - 3 * ratio);
      if (Math.min(bottom, height) - Math.max(top, 0) < 12 * ratio || place > free - 13 * ratio) continue;
      const low = this.addresses.address(Math.max(piece.first, this.low));
      const room = Math.floor(width / (7 * ratio)), label = piece.name ? `${piece.name}  ` : "";
      const text = `${label}0x${low.toString(16)} +${size(piece.high - piece.low)}`;
      this.#text(text.length > room ? `${text.slice(0, Math.max(room - 1, 1))}…` : text, 6 * ratio, place, ratio);
      free = place;
    }
  }

  #drawTimes(width, height, ratio) {
    const context = this.context, { from, to } = this.scene;
    context.fillStyle = colourOf("--card");
    context.fillRect(0, height - FOOT * ratio, width, FOOT * ratio);
    context.fillStyle = colourOf("--front");
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    const [found, step] = ticks(from, to, width / ratio / 110);
    for (const at of found) {
      const x = (at - from) / (to - from) * width;
      context.textAlign = x < 20 * ratio ? "left" : x > width - 30 * ratio ? "right" : "center";
      context.fillText(tick(at, step), x, height - 5 * ratio);
      context.fillRect(x, height - FOOT * ratio, ratio, 4 * ratio);
    }
  }

  // What was cold for long enough at the cursor (or the end of what is shown) stands along the right edge.
  #drawMarks(width, height, ratio) {
    const context = this.context, { from, to, cursor } = this.scene, scale = height / (this.high - this.low);
    for (const [low, high] of this.#cold) {
      const top = height - (high - this.low) * scale, bottom = height - (low - this.low) * scale;
      context.fillStyle = colourOf("--mark");
      context.fillRect(width - 8 * ratio, top, 8 * ratio, Math.max(bottom - top, ratio));
    }
    if (cursor !== null && cursor >= from && cursor <= to) {
      context.fillStyle = "rgba(255, 255, 255, .8)";
      context.fillRect((cursor - from) / (to - from) * width, 0, ratio, height);
    }
    if (this.#marked) {
      const [x, y, w, h] = this.#marked.map((value) => value * ratio);
      context.fillStyle = "rgba(140, 180, 255, .3)";
      context.fillRect(x, y, w, h);
    }
  }

  // -- what is pointed at -----------------------------------------------------------------------------------------

  #at(x, y) {
    const height = this.canvas.clientHeight - FOOT, { from, to } = this.scene;
    return [from + (to - from) * x / this.canvas.clientWidth, this.low + (this.high - this.low) * (1 - y / height)];
  }

  // The byte of the finest tile that is there for a time and a cell.
  #byteAt(seconds, place) {
    const [level, shrink] = this.#resolution();
    for (let at = level; at < this.told.levels; at++) {
      const other = at < 0 ? shrink : Math.max(shrink, 0);
      const column = Math.floor(seconds / (this.#columnS * 2 ** at)), cell = Math.floor(place / 2 ** other);
      const key = [at, other, Math.floor(column / TILE), Math.floor(cell / TILE)].join("/");
      const data = this.#tiles.get(key)?.data;
      if (data) return [data[(column % TILE) * TILE + cell % TILE], this.#columnS * 2 ** at];
    }
    return [0, 0];
  }

  // For how long there was no access before that time, as far as the tiles that are there tell; and if it is longer.
  #idleAt(seconds, place) {
    let at = seconds, step = 0, byte = 1;
    for (let looked = 0; looked < 4 * TILE && at > 0; looked++, at -= step) {
      [byte, step] = this.#byteAt(at, place);
      if (byte !== 1) break;
    }
    return [Math.max(seconds - Math.max(at, 0), 0), byte <= 1];
  }

  describe(seconds, place) {
    if (place < 0 || place >= this.addresses.cells || seconds < 0 || seconds > this.told.end_ns / 1e9) return "";
    const [low, high] = this.addresses.range(Math.floor(place)), [byte, step] = this.#byteAt(seconds, place);
    const name = this.addresses.nameAt(low, high), begin = Math.floor(seconds / step) * step;
    let words = "not monitored, or not known";
    if (byte > 1) words = `accessed in ${percent(heatOf(byte))} of the samples`;
    if (byte === 1) {
      const [idle, longer] = this.#idleAt(seconds, place);
      words = `not accessed for ${longer ? "at least " : "about "}${duration(idle)}`;
    }
    const when = step ? `${tick(begin, step)} (${duration(step)})` : duration(seconds);
    return `${name || "no mapping known"}, ${size(high - low)} from 0x${low.toString(16)}\n${when}: ${words}`;
  }

  // -- moving -----------------------------------------------------------------------------------------------------

  zoom(times, x, y, inTime = true, inAddresses = true) {
    const [seconds, place] = this.#at(x, y), { from, to } = this.scene;
    if (inAddresses) {
      this.#show(place - (place - this.low) * times, place + (this.high - place) * times);
    }
    if (inTime) this.scene.show(seconds - (seconds - from) * times, seconds + (to - seconds) * times);
    this.scene.moved();
  }

  pan(shareX, shareY) {
    const { from, to } = this.scene, cells = this.high - this.low;
    this.#show(this.low + cells * shareY, this.high + cells * shareY);
    this.scene.show(from + (to - from) * shareX, to + (to - from) * shareX);
    this.scene.moved();
  }

  whole() {
    this.#show(0, this.addresses.cells);
    this.scene.showAll();
    this.scene.moved();
  }

  #show(low, high) {
    const least = 4 / 2 ** (this.finer ? this.addresses.finest : 0);
    const cells = Math.min(Math.max(high - low, least), this.addresses.cells);
    const middle = (low + high) / 2;
    this.low = Math.min(Math.max(middle - cells / 2, 0), this.addresses.cells - cells);
    this.high = this.low + cells;
    this.redraw();
  }

  #listen() {
    const canvas = this.canvas;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const delta = event.deltaY || event.deltaX;
      this.zoom(1.0015 ** Math.max(Math.min(delta, 400), -400), event.offsetX, event.offsetY, !event.altKey, !event.shiftKey);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (event.shiftKey) this.#marked = [event.offsetX, event.offsetY, 0, 0];
    });
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#release(event, end === "pointerup"));
    }
    canvas.addEventListener("pointerleave", () => { this.scene.point(null); });
    canvas.addEventListener("dblclick", () => this.whole());
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (before && this.#marked) {
      this.#marked = [this.#marked[0], this.#marked[1], now[0] - this.#marked[0], now[1] - this.#marked[1]];
    } else if (before && this.#pointers.size === 2) {
      const [, other] = [...this.#pointers].find(([id]) => id !== event.pointerId);
      const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
      this.zoom(apart(before) / apart(now), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (before) {
      this.pan((before[0] - now[0]) / this.canvas.clientWidth, (now[1] - before[1]) / (this.canvas.clientHeight - FOOT));
    }
    if (before) this.#pointers.set(event.pointerId, now);
    const [seconds, place] = this.#at(...now);
    this.scene.point(seconds);
    this.under.textContent = this.describe(seconds, place);
    this.redraw();
  }

  #release(event, done) {
    this.#pointers.delete(event.pointerId);
    const marked = this.#marked;
    this.#marked = null;
    if (!marked) return;
    const [x, y, w, h] = marked;
    if (done && Math.abs(w) > 5 && Math.abs(h) > 5) {
      const [[from, low], [to, high]] = [this.#at(Math.min(x, x + w), Math.max(y, y + h)), this.#at(Math.max(x, x + w), Math.min(y, y + h))];
      this.#show(low, high);
      this.scene.show(from, to);
      this.scene.moved();
    }
    this.redraw();
  }

  #key(event) {
    const x = this.canvas.clientWidth / 2, y = (this.canvas.clientHeight - FOOT) / 2;
    const keys = {
      ArrowLeft: () => this.pan(-0.1, 0), ArrowRight: () => this.pan(0.1, 0),
      ArrowUp: () => this.pan(0, 0.1), ArrowDown: () => this.pan(0, -0.1),
      "+": () => this.zoom(0.8, x, y), "=": () => this.zoom(0.8, x, y), "-": () => this.zoom(1.25, x, y),
      PageUp: () => this.zoom(0.8, x, y, false), PageDown: () => this.zoom(1.25, x, y, false),
      0: () => this.whole(), Home: () => this.pan(-1e9, 0), End: () => this.pan(1e9, 0),
    };
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
    const [seconds, place] = this.#at(x, y);
    this.scene.point(seconds);
    this.under.textContent = this.describe(seconds, place);
  }
}
