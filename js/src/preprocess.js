// Pictures to encoder inputs, as image2sentence.encoders.preprocess does it.

import { resize } from "./resample.js";

/** @typedef {import("./resample.js").Pixels} Pixels */
/** @typedef {import("./index.js").Preprocessing} Preprocessing */

/** Areas of the crop that are resized before cropping; of longer pictures only the crop is computed, in one step. */
const MAX_RESIZED = 16;

/**
 * A picture of any size -> one of `how.size` by `how.size`.
 * @param {Pixels} pixels
 * @param {Preprocessing} how
 * @returns {Pixels}
 */
export function fit(pixels, how) {
  const side = how.resize || how.size;
  if (how.fit === "squash" && side === how.size) return resize(pixels, side, side, how.resample);
  const [width, height] = how.fit === "squash" ? [side, side] : resized(pixels, side);
  const left = (width - how.size) >> 1;
  const top = (height - how.size) >> 1;
  if (width * height > MAX_RESIZED * side * side) {
    const [across, down] = [pixels.width / width, pixels.height / height];
    const [right, bottom] = [left + how.size, top + how.size];
    return resize(pixels, how.size, how.size, how.resample, [left * across, top * down, right * across, bottom * down]);
  }
  return crop(resize(pixels, width, height, how.resample), left, top, how.size);
}

/**
 * Width and height with the shorter side resized; the longer one is rounded down.
 * @param {Pixels} pixels @param {number} shorter
 */
function resized({ width, height }, shorter) {
  const least = Math.min(width, height);
  return [width, height].map((side) => (side === least ? shorter : Math.floor((shorter * side) / least)));
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
