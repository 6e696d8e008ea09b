// The query encoded in the browser: the picture stays here, and its vector alone is sent.

import { at, authorization } from "./api.js";
import { digest } from "./shrink.js";
import { NEUTRAL } from "./steps.js";

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

// A step's sentence, computed once for each step. `content` gives its picture as a Blob.
async function sentenceOf(encoder, one, content) {
  if (!sentences.has(one)) sentences.set(one, await encoder.encodeSentence(await content()));
  return sentences.get(one);
}

// What a search is asked with in place of the step: { vector, exclude_content }. `made` is given its sentence, if any.
export async function encodeStep(encoder, one, content, made) {
  const whole = content && (await sentenceOf(encoder, one, content));
  if (whole) made(whole);
  const sentence = whole && without(whole, one.muted);
  if (whole && !sentence && !one.text.trim()) throw new NothingAsked();
  const fields = { vector: base64(await queryVector(encoder, sentence, one.text.trim(), one.balance)) };
  if (one.file && one.text.trim()) fields.exclude_content = one.digest ??= await digest(one.file);
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

// The same formula as on the server: from the picture alone over the composition to the words alone.
async function queryVector(encoder, sentence, text, balance) {
  const composed = await encoder.encodeQuery(sentence, text);
  const lean = 2 * (balance - NEUTRAL);
  if (!sentence || !text || !lean) return composed;
  const other = await (lean > 0 ? encoder.encodeQuery(null, text) : encoder.encodeQuery(sentence, ""));
  const share = Math.abs(lean);
  return composed.map((value, place) => (1 - share) * value + share * other[place]);
}

function base64(vector) {
  return btoa(String.fromCharCode(...new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength)));
}
