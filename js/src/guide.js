// Guiding phrases: what the model's own words for a picture are, said beside its sentence. As
// image2sentence.encoders.phrase_guide, which has the formula.

import { unit } from "./composition.js";
import { ModelError } from "./errors.js";

export const PHRASES = "guide/phrases.txt";
export const VECTORS = "guide/vectors.npy";

/** @typedef {{neighbours: number, temperature: number, low: number, high: number, residual: number}} GuideConfig */
/**
 * @typedef {{trust: number, phrases: string[], weights: number[], unsaid: Float32Array[]}} Near
 * How far to trust the nearest phrases, and `residual` times what each leaves unsaid of the picture.
 */

export class Guide {
  /**
   * @param {string[]} phrases @param {Int8Array} vectors n rows of d; only their directions count
   * @param {GuideConfig} settings
   */
  constructor(phrases, vectors, settings) {
    this.phrases = phrases;
    this.vectors = vectors;
    this.settings = settings;
    const width = vectors.length / phrases.length;
    this.lengths = phrases.map((_, row) => Math.hypot(...vectors.subarray(row * width, (row + 1) * width)));
  }

  /**
   * @param {Uint8Array} phrases @param {Uint8Array} vectors the files' contents
   * @param {import("./index.js").ModelConfig} config @param {string} where names the folder in errors
   * @returns {Guide}
   * @throws {ModelError} files that do not belong together
   */
  static read(phrases, vectors, config, where) {
    const lines = new TextDecoder("utf-8", { fatal: true }).decode(phrases).replace(/\n$/, "").split("\n");
    const rows = int8Table(vectors, lines.length, config.width, `${where}${VECTORS}`);
    const guide = new Guide(lines, rows, /** @type {GuideConfig} */ (config.guide));
    if (guide.lengths.includes(0)) throw new ModelError(`${where}${VECTORS} holds a vector of zeros`);
    return guide;
  }

  /**
   * The phrases nearest to a query vector of the sentence alone, of equal ones the first.
   * @param {Float32Array} sentenceEmbedding (d,), of length 1
   * @returns {Near}
   */
  near(sentenceEmbedding) {
    const { neighbours, temperature, low, high, residual } = this.settings;
    const scores = this.lengths.map((length, row) => this.dot(sentenceEmbedding, row) / length);
    const best = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, neighbours);
    const weights = best.map((row) => Math.exp((scores[row] - scores[best[0]]) / temperature));
    return {
      trust: Math.min(1, Math.max(0, (scores[best[0]] - low) / (high - low))),
      phrases: best.map((row) => this.phrases[row]),
      weights,
      unsaid: best.map((row) => sentenceEmbedding.map((value, i) => residual * (value - this.vectors[row * sentenceEmbedding.length + i] / this.lengths[row]))),
    };
  }

  /**
   * @param {Float32Array} sentenceEmbedding @param {number} row
   */
  dot(sentenceEmbedding, row) {
    let sum = 0;
    for (let i = 0, at = row * sentenceEmbedding.length; i < sentenceEmbedding.length; i++) sum += sentenceEmbedding[i] * this.vectors[at + i];
    return sum;
  }
}

/**
 * (1 - trust) plain + trust words, of length 1; words is the phrases' weighted mean.
 * @param {Float32Array} plain (d,), of length 1 @param {Float32Array[]} said the phrases with the user's words
 * @param {Near} near
 */
export function between(plain, said, { trust, weights, unsaid }) {
  const words = unit(
    plain.map((_, i) => said.reduce((sum, vector, row) => sum + weights[row] * (vector[i] + unsaid[row][i]), 0)),
  );
  return unit(plain.map((value, i) => (1 - trust) * value + trust * words[i]));
}

/**
 * The numbers of a .npy file of int8 rows.
 * @param {Uint8Array} content @param {number | null} rows null: any number @param {number} width @param {string} where
 * @returns {Int8Array}
 */
export function int8Table(content, rows, width, where) {
  const start = 10 + content[8] + 256 * content[9];
  const text = String.fromCharCode(...content.subarray(1, Math.min(start, 256)));
  const shape = /'descr': '\|i1', 'fortran_order': False, 'shape': \((\d+), (\d+)\)/.exec(text);
  const found = shape && [Number(shape[1]), Number(shape[2])];
  if (content[0] !== 0x93 || !text.startsWith("NUMPY") || !found || found[0] !== (rows ?? found[0]) || found[1] !== width) {
    throw new ModelError(`expected int8 vectors (${rows ?? "n"}, ${width}) in ${where}`);
  }
  const values = content.subarray(start);
  if (values.length !== found[0] * width) throw new ModelError(`${where} is cut short`);
  return new Int8Array(values.buffer, values.byteOffset, values.length);
}
