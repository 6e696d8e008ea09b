// Guiding phrases without a model: which are nearest, how far they are trusted, and how a damaged file is refused.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Guide, between } from "../src/guide.js";

const SETTINGS = { neighbours: 2, temperature: 0.1, low: 0.5, high: 0.9, residual: 0.5 };
const PHRASES = new TextEncoder().encode("a\nb\nc\n");
const ROWS = [100, 0, 0, 0, 0, 100, 0, 0, 0, 0, 100, 0];

function table(rows = ROWS, { shape = "(3, 4)", type = "|i1" } = {}) {
  const header = `{'descr': '${type}', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + "\n";
  const start = [0x93, ..."NUMPY"].map((one) => (typeof one === "string" ? one.charCodeAt(0) : one));
  return Uint8Array.from([...start, 1, 0, header.length, 0, ...new TextEncoder().encode(header), ...rows]);
}

function read(vectors, settings = SETTINGS) {
  return Guide.read(PHRASES, vectors, { width: 4, guide: settings }, "here/");
}

function embedding(first, second) {
  return Float32Array.from([first, second, 0, Math.sqrt(1 - first * first - second * second)]);
}

test("the nearest phrases are weighed and trusted by their similarity", () => {
  const guide = read(table());
  const { trust, phrases, weights, unsaid } = guide.near(embedding(0.7, 0.6));
  assert.deepEqual(phrases, ["a", "b"]);
  assert.ok(Math.abs(weights[1] / weights[0] - Math.exp(-1)) < 1e-5);
  assert.ok(Math.abs(trust - 0.5) < 1e-5);
  assert.ok(Math.abs(unsaid[0][0] - 0.5 * (0.7 - 1)) < 1e-6);
  assert.ok(Math.abs(unsaid[0][1] - 0.5 * 0.6) < 1e-6);
  assert.equal(guide.near(embedding(0.4, 0.3)).trust, 0);
  assert.equal(guide.near(embedding(0.95, 0.1)).trust, 1);
});

test("a query lies between sentence and phrases, which keep what they leave unsaid", () => {
  const [plain, said] = [Float32Array.from([1, 0, 0]), [Float32Array.from([0, 1, 0])]];
  const near = { weights: [2], phrases: ["a"], unsaid: [Float32Array.from([0, 0, 1])] };
  const shown = (trust) => [...between(plain, said, { ...near, trust })].map((one) => one.toFixed(4));
  assert.deepEqual(shown(1), ["0.0000", "0.7071", "0.7071"]);
  assert.deepEqual(shown(0.5), ["0.7071", "0.5000", "0.5000"]);
});

for (const [name, damaged, message] of [
  ["no table", new Uint8Array(40), /expected int8 vectors \(3, 4\) in here\/guide\/vectors\.npy/],
  ["numbers of another kind", table(ROWS, { type: "<f4" }), /expected int8/],
  ["another shape", table(ROWS, { shape: "(4, 3)" }), /expected int8/],
  ["half a table", table(ROWS.slice(1)), /cut short/],
  ["a vector of zeros", table([...ROWS.slice(0, 8), 0, 0, 0, 0]), /zeros/],
]) {
  test(`${name} is refused`, () => assert.throws(() => read(damaged), { name: "ModelError", message: message }));
}
