// From pictures and words to the parts of one query vector, as image2sentence.query.composition does it.

import { QueryError } from "./errors.js";
import { strip } from "./template.js";

/** @typedef {import("./index.js").PseudoWords} PseudoWords */
/** @typedef {{sentence: PseudoWords | null, words: string}} TextInput what the text encoder reads at once */
/** @typedef {{share: number, inputs: TextInput[], weights: number[]}} WeightedInputs one of the things a query is the mean of */

const NEUTRAL = 0.5;
const SHORTEST_MEAN = 1e-4;

/**
 * The parts of a query vector: from the pictures alone (balance 0) over the composition (0.5) to the words alone (1).
 *
 * With p, c and t the vectors of these three, the query vector is (1 - 2b) p + 2b c up to the balance b = 0.5, and
 * (2 - 2b) c + (2b - 1) t beyond it, scaled to length 1.
 * @param {PseudoWords[]} sentences @param {string} words @param {import("./index.js").ComposeOptions} options
 * @returns {WeightedInputs[]}
 * @throws {QueryError} weights or a balance of no sense
 */
export function planComposition(sentences, words, { weights = sentences.map(() => 1), balance = NEUTRAL }) {
  checkMixing(sentences.length, weights, balance);
  const said = strip(words);
  const alone = { inputs: sentences.map((sentence) => ({ sentence, words: "" })), weights };
  const text = { inputs: [{ sentence: null, words: said }], weights: [1] };
  if (!sentences.length) return [{ share: 1, ...text }];
  if (!said) return [{ share: 1, ...alone }];
  const composed = { inputs: sentences.map((sentence) => ({ sentence, words: said })), weights };
  const lean = 2 * (balance - NEUTRAL);
  const parts = [
    { share: 1 - Math.abs(lean), ...composed },
    { share: Math.abs(lean), ...(lean > 0 ? text : alone) },
  ];
  return parts.filter(({ share }) => share > 0);
}

/**
 * @param {number} pictures @param {number[]} weights @param {number} balance
 */
function checkMixing(pictures, weights, balance) {
  if (weights.length !== pictures || !weights.every((weight) => weight > 0 && Number.isFinite(weight))) {
    throw new QueryError(`expected a positive weight for each of ${pictures} pictures, got ${JSON.stringify(weights)}`);
  }
  if (!(balance >= 0 && balance <= 1)) {
    throw new QueryError(`expected a balance from 0 (pictures alone) to 1 (words alone), got ${balance}`);
  }
}

/**
 * The weighted mean of vectors, of length 1; a single one stays what it is.
 * @param {Float32Array[]} vectors @param {number[]} weights
 * @returns {Float32Array}
 * @throws {QueryError} they cancel out
 */
export function mean(vectors, weights) {
  if (vectors.length === 1) return vectors[0];
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  const mixed = vectors[0].map((_, place) =>
    vectors.reduce((sum, vector, row) => sum + (weights[row] / all) * vector[place], 0),
  );
  if (Math.hypot(...mixed) < SHORTEST_MEAN) {
    throw new QueryError("the pictures have nothing in common (their mean is zero): ask with fewer of them");
  }
  return unit(mixed);
}

/**
 * @param {Float32Array} vector
 * @returns {Float32Array} of length 1
 */
export function unit(vector) {
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}
