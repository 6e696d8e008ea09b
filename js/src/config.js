// The model folder's config.json, read as strictly as Python reads it: a setting that is silently ignored is a wrong
// result later.

import { ModelError } from "./errors.js";
import { Template } from "./template.js";

/** @typedef {import("./index.js").ModelConfig} ModelConfig */
/** @typedef {(value: unknown) => boolean} Check */

export const FORMAT_VERSION = 1;

/** @type {Check} */
const text = (value) => typeof value === "string";
/** @type {Check} */
const whole = (value) => Number.isInteger(value);
/** @type {Check} */
const positive = (value) => whole(value) && Number(value) > 0;
/** @type {Check} */
const number = (value) => typeof value === "number";
/** @type {Check} */
const flag = (value) => typeof value === "boolean";
/** @type {Check} */
const object = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @type {Check} */
const three = (value) => Array.isArray(value) && value.length === 3 && value.every(number);
/** @type {(...words: string[]) => Check} */
const oneOf = (...words) => (value) => words.includes(/** @type {string} */ (value));
/** @type {Check} */
const checksums = (value) => object(value) && Object.values(/** @type {object} */ (value)).every(text);

/** What each key must hold, and what that is called. @type {Record<string, [string, Check]>} */
const PREPROCESSING = {
  size: ["a positive whole number", positive],
  fit: ["squash or crop", oneOf("squash", "crop")],
  resample: ["bilinear, bicubic or lanczos", oneOf("bilinear", "bicubic", "lanczos")],
  mean: ["three numbers", three],
  std: ["three positive numbers", (value) => three(value) && /** @type {number[]} */ (value).every((one) => one > 0)],
  resize: ["a whole number", whole],
};

/** @type {typeof PREPROCESSING} */
const LEARNER = {
  kind: ["a text", text],
  tokens: ["a positive whole number", positive],
  softmax: ["a text", text],
  blocks: ["a whole number", whole],
  heads: ["a whole number", whole],
  width: ["a whole number", whole],
  gates: ["true or false", flag],
};

/** @type {typeof PREPROCESSING} */
const GUIDE = {
  neighbours: ["a positive whole number", positive],
  temperature: ["a positive number", (value) => number(value) && Number(value) > 0],
  low: ["a number", number],
  high: ["a number", number],
  residual: ["a number", number],
};

/** @type {typeof PREPROCESSING} */
const FALLBACK = {
  low: ["a number", number],
  high: ["a number", number],
  weight: ["a number", number],
};

/** @type {typeof PREPROCESSING} */
const CONFIG = {
  vl: ["an object", object],
  light: ["a text", text],
  learner: ["an object", object],
  template: ["a text", text],
  gallery_preprocessing: ["an object", object],
  query_preprocessing: ["an object", object],
  width: ["a positive whole number", positive],
  word_width: ["a positive whole number", positive],
  word_norm: ["a number", number],
  head_length: ["a whole number", whole],
  max_length: ["a positive whole number", positive],
  fingerprint: ["a text", text],
  query_fingerprint: ["a text", text],
  training: ["an object", object],
  parity: ["an object", object],
  guide: ["an object or null", (value) => value === null || object(value)],
  fallback: ["an object or null", (value) => value === null || object(value)],
  sentence_share: ["a number from 0 to 1", (value) => number(value) && Number(value) >= 0 && Number(value) < 1],
  composition: ["null: a model with a light side", (value) => value === null],
  origin: ["an object or null", (value) => value === null || object(value)],
  files: ["an object of file names and SHA-256", checksums],
  space_settings: ["a text", text],
  checksum: ["a text", text],
  format: [String(FORMAT_VERSION), (value) => value === FORMAT_VERSION],
};

/**
 * A config.json's content as settings.
 * @param {any} values what the file holds
 * @param {string} where names the file in error messages
 * @returns {ModelConfig}
 * @throws {ModelError} another format version; an unknown or missing key; a value of another kind
 */
export function readConfig(values, where) {
  if (values?.format !== FORMAT_VERSION) {
    throw new ModelError(
      `${where} has format ${JSON.stringify(values?.format)}, this version reads format ${FORMAT_VERSION}: ` +
        "update image2sentence, or export the model again",
    );
  }
  // Older models know nothing of guiding phrases, fallbacks, sentences in gallery vectors, models made of other graphs, checksums.
  const absent = { guide: null, fallback: null, sentence_share: 0, composition: null, origin: null, space_settings: "", checksum: "" };
  check({ ...absent, ...values }, CONFIG, where);
  check(values.learner, LEARNER, `${where}.learner`);
  check({ resize: 0, ...values.query_preprocessing }, PREPROCESSING, `${where}.query_preprocessing`);
  if (values.guide) check(values.guide, GUIDE, `${where}.guide`);
  if (values.fallback) check(values.fallback, FALLBACK, `${where}.fallback`);
  Template.parse(values.template);
  return values;
}

/**
 * Width of a sentence's rows: the word-embedding width, and one more (log gate) where there are gates.
 * @param {ModelConfig} config
 */
export function sentenceWidth(config) {
  return config.word_width + Number(config.learner.gates);
}

/**
 * @param {Record<string, unknown>} values @param {typeof PREPROCESSING} keys @param {string} where
 */
function check(values, keys, where) {
  const unknown = Object.keys(values).find((key) => !(key in keys));
  if (unknown) throw new ModelError(`${where}: unknown key ${JSON.stringify(unknown)}: update image2sentence`);
  for (const [key, [expected, holds]] of Object.entries(keys)) {
    if (!(key in values)) throw new ModelError(`${where}: missing key ${JSON.stringify(key)}`);
    if (!holds(values[key])) {
      throw new ModelError(`${where}.${key}: expected ${expected}, got ${JSON.stringify(values[key])}`);
    }
  }
}
