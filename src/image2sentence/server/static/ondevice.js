// The query encoded in the browser: the picture stays here, and its vector alone is sent.

import { at, authorization } from "./api.js";
import { digest } from "./shrink.js";
import { NEUTRAL, hasReference, lookedAt, references } from "./steps.js";

class NothingAsked extends Error {
  name = "QueryError";
  message = "every pseudo-word is switched off and there are no words: nothing is asked";
}

// As the server has them: words that say nothing by themselves.
const FUNCTION_WORDS = new Set(
  "a an and as at but by for from in is it its my no not of on one or some than that the this to with without".split(" "),
);

let loading = null;
const sentences = new WeakMap();

// Loads the model once; `progress` hears of what is fetched. Later calls give the same encoder.
export function deviceEncoder(progress) {
  loading ??= import("./device/index.js")
    .then(({ loadEncoder }) => loadEncoder(at("v1/model/"), { runtime: at("runtime/"), worker: true, headers: authorization(), progress }))
    .catch((error) => {
      loading = null;
      throw error;
    });
  return loading;
}

// A reference's sentence, computed once for each. `content` gives its picture as a Blob.
async function sentenceOf(encoder, reference, content) {
  if (!sentences.has(reference)) sentences.set(reference, await encoder.encodeSentence(await content(reference)));
  return sentences.get(reference);
}

// What a search is asked with in place of the step: { vector, exclude_content }. `made` is given the sentence of the
// step's own reference, if any.
export async function encodeStep(encoder, one, content, made) {
  const asked = hasReference(one) ? references(one) : [];
  const read = [];
  for (const reference of asked) read.push({ sentence: await sentenceOf(encoder, reference, content), weight: reference.weight });
  if (read.length) {
    made(read[asked.indexOf(lookedAt(one))].sentence);
    read[0].sentence = without(read[0].sentence, one.muted);
  }
  const heard = read.filter(({ sentence }) => sentence);
  if (read.length && !heard.length && !one.text.trim()) throw new NothingAsked();
  const fields = { vector: base64(await queryVector(encoder, heard, one.text.trim(), one.balance)) };
  if (one.text.trim()) fields.exclude_content = await Promise.all(asked.filter(({ file }) => file).map(async (reference) => (reference.digest ??= await digest(reference.file))));
  return fields;
}

// Whether any word that says something is known; `unknown` are those that are not.
export function isUnderstood(text, unknown) {
  const words = (some) => some.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const strange = new Set(unknown.flatMap(({ word }) => words(word)));
  return !strange.size || words(text).some((word) => !strange.has(word) && !FUNCTION_WORDS.has(word));
}

// A sentence's maps in the shape that the server gives them; what they add is known to the server only.
export function pseudoWords({ attention, attentionDims, gates }) {
  const [count, rows, columns] = attentionDims;
  const row = (start) => Array.from(attention.subarray(start, start + columns));
  return Array.from({ length: count }, (_, word) => ({
    attention: Array.from({ length: rows }, (_, y) => row((word * rows + y) * columns)),
    gate: gates[word],
    adds: [],
  }));
}

export function covered({ fit, size, resize }, width, height) {
  const share = size / (resize || size);
  const side = Math.min(width, height);
  const [across, down] = fit === "squash" ? [share, share] : [(share * side) / width, (share * side) / height];
  return [(1 - across) / 2, (1 - down) / 2, across, down];
}

function without({ tokens, dims: [count, width], ...more }, muted) {
  const kept = Array.from({ length: count }, (_, place) => place).filter((place) => !muted.includes(place + 1));
  if (!kept.length) return null;
  const rows = new Float32Array(kept.length * width);
  kept.forEach((place, row) => rows.set(tokens.subarray(place * width, (place + 1) * width), row * width));
  return { ...more, tokens: rows, dims: [kept.length, width] };
}

// The same formula as on the server: from the pictures alone over the composition to the words alone.
async function queryVector(encoder, heard, text, balance) {
  if (!heard.length) return encoder.encodeQuery(null, text);
  const composed = await meanQuery(encoder, heard, text);
  const lean = 2 * (balance - NEUTRAL);
  if (!text || !lean) return composed;
  const other = await (lean > 0 ? encoder.encodeQuery(null, text) : meanQuery(encoder, heard, ""));
  const share = Math.abs(lean);
  return composed.map((value, place) => (1 - share) * value + share * other[place]);
}

// Each sentence composed with the words; of several the weighted mean, of length 1.
async function meanQuery(encoder, heard, text) {
  if (heard.length === 1) return encoder.encodeQuery(heard[0].sentence, text);
  let sum = null;
  for (const { sentence, weight } of heard) {
    const vector = await encoder.encodeQuery(sentence, text);
    sum = vector.map((value, place) => weight * value + (sum?.[place] ?? 0));
  }
  const length = Math.hypot(...sum);
  return sum.map((value) => value / length);
}

function base64(vector) {
  return btoa(String.fromCharCode(...new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength)));
}
