// Addresses: cells of a picture, and what lies there.

export class Addresses {
  constructor(told) {
    this.cells = told.cells;
    this.pieces = told.pieces.map((piece) => ({ ...piece, low: BigInt(piece.start), high: BigInt(piece.end),
      step: BigInt(piece.width) }));
    this.mappings = told.mappings.map(([start, end, name]) => ({ low: BigInt(start), high: BigInt(end), name }));
    // Cells can be divided until they are pages.
    this.finest = Math.min(6, ...this.pieces.map((piece) => Math.max(Math.floor(Math.log2(piece.width / 4096)), 0)));
  }

  pieceOf(cell) {
    return this.pieces.find((piece) => cell >= piece.first && cell < piece.behind);
  }

  // Where a place on the axis (in cells, with fractions) is.
  address(place) {
    const piece = this.pieceOf(Math.min(Math.max(place, 0), this.cells - 1e-9));
    const at = piece.low + BigInt(Math.floor((place - piece.first) * piece.width));
    return at < piece.high ? at : piece.high;
  }

  // Where an address is on the axis; the nearest place if it has none.
  place(address) {
    for (const piece of this.pieces) {
      if (address < piece.low) return piece.first;
      if (address < piece.high) return piece.first + Number(address - piece.low) / piece.width;
    }
    return this.cells;
  }

  range(cell) {
    const piece = this.pieceOf(cell), low = piece.low + BigInt(cell - piece.first) * piece.step;
    const high = low + piece.step;
    return [low, high < piece.high ? high : piece.high];
  }

  nameAt(low, high) {
    const names = new Set(this.mappings.filter((one) => one.low < high && one.high > low).map((one) => one.name));
    const all = [...names];
    return all.length > 3 ? `${all.slice(0, 3).join(", ")} +${all.length - 3}` : all.join(", ");
  }
}

// About `count` round times between two, and how far apart they are.
export function ticks(low, high, count) {
  const rough = Math.max((high - low) / Math.max(count, 1), 1e-9), steps = [1, 2, 5, 10];
  const minutes = [60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = rough > 20 ? minutes.find((one) => one >= rough) ?? Math.ceil(rough / 86400) * 86400
    : steps.map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return [found, step];
}
