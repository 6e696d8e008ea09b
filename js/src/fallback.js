// The weighted sum in place of the composed query for words unlike those of training. As
// image2sentence.encoders.sum_fallback, which has the formula.

import { unit } from "./composition.js";
import { ModelError } from "./errors.js";
import { int8Table } from "./guide.js";

export const FALLBACK = "fallback/vectors.npy";
const MOST = 50000;

/** @typedef {{low: number, high: number, weight: number}} FallbackConfig */

export class SumFallback {
  /**
   * @param {Int8Array} vectors n rows of `width`, of training's modifiers; only their directions count
   * @param {number} width @param {FallbackConfig} settings
   */
  constructor(vectors, width, settings) {
    this.vectors = vectors;
    this.width = width;
    this.settings = settings;
    this.lengths = Float32Array.from({ length: vectors.length / width }, (_, row) =>
      Math.hypot(...vectors.subarray(row * width, (row + 1) * width)),
    );
  }

  /**
   * @param {Uint8Array} content the file's @param {import("./index.js").ModelConfig} config
   * @param {string} where names the folder in errors
   * @returns {SumFallback}
   * @throws {ModelError} a file that is not such a table
   */
  static read(content, config, where) {
    const rows = int8Table(content, null, config.width, `${where}${FALLBACK}`);
    const fallback = new SumFallback(rows, config.width, /** @type {FallbackConfig} */ (config.fallback));
    const count = fallback.lengths.length;
    if (!count || count > MOST || fallback.lengths.includes(0)) {
      throw new ModelError(`expected 1 to ${MOST} vectors in ${where}${FALLBACK}, none of zeros`);
    }
    return fallback;
  }

  /**
   * How far the composed query is trusted, 0 to 1.
   * @param {Float32Array} words T(m), (d,), of length 1
   */
  trust(words) {
    const { low, high } = this.settings;
    let nearest = -1;
    for (let row = 0; row < this.lengths.length; row++) {
      let sum = 0;
      for (let i = 0, at = row * this.width; i < this.width; i++) sum += words[i] * this.vectors[at + i];
      nearest = Math.max(nearest, sum / this.lengths[row]);
    }
    return Math.min(1, Math.max(0, (nearest - low) / (high - low)));
  }

  /**
   * @param {Float32Array} composed T(s m) @param {Float32Array} words T(m) @param {Float32Array} sentence T(s)
   * @param {number} trust
   */
  between(composed, words, sentence, trust) {
    const { weight } = this.settings;
    const sum = blend(sentence, words, weight);
    return blend(sum, composed, trust);
  }
}

/**
 * unit((1 - share) first + share second); where both cancel out, the second.
 * @param {Float32Array} first @param {Float32Array} second @param {number} share
 */
function blend(first, second, share) {
  const rows = first.map((value, i) => (1 - share) * value + share * second[i]);
  return unit(Math.hypot(...rows) > 1e-4 ? rows : second);
}
