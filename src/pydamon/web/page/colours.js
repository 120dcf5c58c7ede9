// From the bytes of tiles to colours. 0 is unknown; else the heat is ((byte - 1) / 254) squared.

export function heatOf(byte) {
  return byte ? ((byte - 1) / 254) ** 2 : NaN;
}

// 256 colours as ABGR words; a heat of `top` or more has the last of the ramp. Unknown is transparent.
export function palette(ramp, top) {
  const words = new Uint32Array(256);
  for (let byte = 1; byte < 256; byte++) words[byte] = word(mixed(ramp, Math.sqrt(Math.min(heatOf(byte) / top, 1))));
  return words;
}

function mixed(ramp, share) {
  const at = share * (ramp.length - 1), low = Math.min(Math.floor(at), ramp.length - 2), part = at - low;
  return ramp[low].map((value, place) => Math.round(value + (ramp[low + 1][place] - value) * part));
}

function word([red, green, blue]) {
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}

export function drawLegend(canvas, words) {
  const context = canvas.getContext("2d"), image = context.createImageData(255, 1);
  new Uint32Array(image.data.buffer).set(words.subarray(1));
  context.putImageData(image, 0, 0);
}
