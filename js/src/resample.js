// Pillow's resizing, to the bit: browsers' own scaling takes too few pixels into account, each in its own way, and
// vectors would drift. From libImaging/Resample.c and Reduce.c of Pillow (HPND license), which are fixed-point.

/** @typedef {{width: number, height: number, data: Uint8Array | Uint8ClampedArray}} Pixels RGBA, 4 bytes a pixel, row by row */

const PRECISION_BITS = 22;

/** Each filter with its support in pixels, at x >= 0. @type {Record<string, [(x: number) => number, number]>} */
const FILTERS = {
  bilinear: [(x) => (x < 1 ? 1 - x : 0), 1],
  bicubic: [bicubic, 2],
  lanczos: [(x) => (x < 3 ? sinc(x) * sinc(x / 3) : 0), 3],
};

/** @param {number} x */
function bicubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/**
 * As Pillow's `Image.resize((width, height), filter)` of an RGB picture; alpha comes out opaque.
 * @param {Pixels} pixels
 * @param {number} width
 * @param {number} height
 * @param {string} filter "bilinear", "bicubic" or "lanczos"
 * @param {Box} [box] the part of the picture that is resized, as Pillow's `box`; all of it where left out
 * @returns {Pixels}
 */
export function resize(pixels, width, height, filter, [left, top, right, bottom] = [0, 0, pixels.width, pixels.height]) {
  const isWide = left === 0 && right === pixels.width;
  const isHigh = top === 0 && bottom === pixels.height;
  const across = (/** @type {Pixels} */ from) =>
    isWide && from.width === width ? from : alongRows(from, taps(from.width, width, filter, left, right));
  const down = (/** @type {Pixels} */ from) =>
    isHigh && from.height === height ? from : alongColumns(from, taps(from.height, height, filter, top, bottom));
  // Since Pillow 13 the pass that leaves less to do goes first; each rounds, so the order can be seen.
  const shorter = pixels.height - height;
  return shorter > 0 && shorter > 2 * (pixels.width - width) ? across(down(pixels)) : down(across(pixels));
}

/** @typedef {[left: number, top: number, right: number, bottom: number]} Box in pixels, with parts of pixels */
/** @typedef {{starts: Int32Array, counts: Int32Array, weights: Int32Array, most: number}} Taps */

/**
 * For each output place: the first input place, how many, and their fixed-point weights (`most` apart).
 * @param {number} from @param {number} to @param {string} filter @param {number} first @param {number} last
 * @returns {Taps}
 */
function taps(from, to, filter, first, last) {
  const [weigh, reach] = FILTERS[filter];
  [first, last] = [Math.fround(first), Math.fround(last)]; // Pillow's box is in single precision
  const scale = Math.fround(last - first) / to;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const most = Math.ceil(support) * 2 + 1;
  const found = { starts: new Int32Array(to), counts: new Int32Array(to), weights: new Int32Array(to * most), most };
  for (let place = 0; place < to; place++) {
    const centre = first + (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    found.starts[place] = start;
    found.counts[place] = end - start;
    const row = Array.from({ length: end - start }, (_, i) => weigh(Math.abs((i + start - centre + 0.5) / stretch)));
    found.weights.set(fixed(row), place * most);
  }
  return found;
}

/**
 * Weights that sum to 1, in fixed point.
 * @param {number[]} row
 */
function fixed(row) {
  const sum = row.reduce((total, weight) => total + weight, 0);
  return row.map((weight) => {
    const scaled = (sum === 0 ? weight : weight / sum) * (1 << PRECISION_BITS);
    return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  });
}

/**
 * @param {Pixels} pixels @param {Taps} along
 * @returns {Pixels}
 */
function alongRows({ width: from, height, data }, along) {
  const width = along.starts.length;
  const out = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    convolve(data, 4 * from * y, 4, along, out, 4 * width * y, 4);
  }
  return { width, height, data: out };
}

/**
 * @param {Pixels} pixels @param {Taps} along
 * @returns {Pixels}
 */
function alongColumns({ width, data }, along) {
  const height = along.starts.length;
  const out = new Uint8ClampedArray(4 * width * height);
  for (let x = 0; x < width; x++) {
    convolve(data, 4 * x, 4 * width, along, out, 4 * x, 4 * width);
  }
  return { width, height, data: out };
}

/**
 * One line of pixels through the taps; `step` and `outStep` are the distances between neighbours in bytes.
 * @param {Uint8Array | Uint8ClampedArray} data @param {number} first @param {number} step
 * @param {Taps} along
 * @param {Uint8ClampedArray} out @param {number} outFirst @param {number} outStep
 */
function convolve(data, first, step, { starts, counts, weights, most }, out, outFirst, outStep) {
  const half = 1 << (PRECISION_BITS - 1);
  for (let place = 0, to = outFirst; place < starts.length; place++, to += outStep) {
    let red = half;
    let green = half;
    let blue = half;
    let from = first + starts[place] * step;
    const end = place * most + counts[place];
    for (let tap = place * most; tap < end; tap++, from += step) {
      const weight = weights[tap];
      red += data[from] * weight;
      green += data[from + 1] * weight;
      blue += data[from + 2] * weight;
    }
    out[to] = red >> PRECISION_BITS; // the array clamps to 0..255
    out[to + 1] = green >> PRECISION_BITS;
    out[to + 2] = blue >> PRECISION_BITS;
    out[to + 3] = 255;
  }
}

/**
 * As Pillow's `Image.reduce(factor)` of an RGB picture: means of squares; those at the right and lower edge may be
 * smaller.
 * @param {Pixels} pixels
 * @param {number} factor a whole number
 * @returns {Pixels}
 */
export function reduce(pixels, factor) {
  if (factor === 1) return pixels;
  const width = Math.ceil(pixels.width / factor);
  const height = Math.ceil(pixels.height / factor);
  const out = new Uint8ClampedArray(4 * width * height);
  const sums = new Uint32Array(4 * width);
  for (let row = 0; row < height; row++) {
    const rows = Math.min(factor, pixels.height - row * factor);
    sums.fill(0);
    for (let y = row * factor; y < row * factor + rows; y++) addRow(pixels, y, factor, sums);
    for (let column = 0; column < width; column++) {
      const count = rows * Math.min(factor, pixels.width - column * factor);
      meanInto(out, 4 * (row * width + column), sums, 4 * column, count);
    }
  }
  return { width, height, data: out };
}

/**
 * @param {Pixels} pixels @param {number} y @param {number} factor @param {Uint32Array} sums
 */
function addRow({ width, data }, y, factor, sums) {
  let from = 4 * width * y;
  for (let x = 0, to = 0; x < width; to += 4) {
    for (const end = Math.min(width, x + factor); x < end; x++, from += 4) {
      sums[to] += data[from];
      sums[to + 1] += data[from + 1];
      sums[to + 2] += data[from + 2];
    }
  }
}

/**
 * Pillow divides by multiplying with a single-precision reciprocal in 24 bits.
 * @param {Uint8ClampedArray} out @param {number} to @param {Uint32Array} sums @param {number} from @param {number} count
 */
function meanInto(out, to, sums, from, count) {
  const multiplier = Math.trunc(Math.fround(2 ** 32 / Math.fround(256 * count)));
  for (let channel = 0; channel < 3; channel++) {
    out[to + channel] = Math.imul(sums[from + channel] + (count >> 1), multiplier) >>> 24;
  }
  out[to + 3] = 255;
}
