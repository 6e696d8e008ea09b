// Pictures to encoder inputs, as image2sentence.encoders.preprocess does it.

import { resize } from "./resample.js";

/** @typedef {import("./resample.js").Pixels} Pixels */
/** @typedef {import("./index.js").Preprocessing} Preprocessing */

/**
 * A picture of any size -> one of `how.size` by `how.size`.
 * @param {Pixels} pixels
 * @param {Preprocessing} how
 * @returns {Pixels}
 */
export function fit(pixels, how) {
  if (how.fit === "squash") return resize(pixels, how.size, how.size, how.resample);
  const scale = how.size / Math.min(pixels.width, pixels.height);
  const [width, height] = [pixels.width, pixels.height].map((side) => Math.max(how.size, roundEven(side * scale)));
  const left = (width - how.size) >> 1;
  const top = (height - how.size) >> 1;
  return crop(resize(pixels, width, height, how.resample), left, top, how.size);
}

/**
 * A picture -> (3, size, size) float32, normalised by `how.mean` and `how.std`.
 * @param {Pixels} pixels
 * @param {Preprocessing} how
 * @returns {Float32Array<ArrayBuffer>}
 */
export function toPixels(pixels, how) {
  const { data } = fit(pixels, how);
  const area = how.size * how.size;
  const out = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const values = normalised(how.mean[channel], how.std[channel]);
    for (let place = 0; place < area; place++) out[channel * area + place] = values[data[4 * place + channel]];
  }
  return out;
}

/**
 * What each of the 256 values of a channel becomes; every step in single precision, as in Python.
 * @param {number} mean @param {number} std
 */
function normalised(mean, std) {
  const { fround } = Math;
  const deviation = fround(std);
  const scale = fround(1 / fround(255 * deviation));
  const shift = fround(fround(mean) / deviation);
  return Float32Array.from({ length: 256 }, (_, value) => fround(value * scale) - shift);
}

/**
 * @param {Pixels} pixels @param {number} left @param {number} top @param {number} size
 * @returns {Pixels}
 */
function crop({ width, data }, left, top, size) {
  const out = new Uint8ClampedArray(4 * size * size);
  for (let row = 0; row < size; row++) {
    const from = 4 * ((top + row) * width + left);
    out.set(data.subarray(from, from + 4 * size), 4 * row * size);
  }
  return { width: size, height: size, data: out };
}

/**
 * To the nearest whole number, halves to the even one, as Python's `round`.
 * @param {number} value
 */
function roundEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 ? below + 1 : below;
}
