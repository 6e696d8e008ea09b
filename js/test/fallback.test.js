// The fallback to the weighted sum without a model: whom it changes, by how much, and how a damaged file is refused.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SumFallback } from "../src/fallback.js";

const SETTINGS = { low: 0.5, high: 0.9, weight: 0.25 };

function table(rows, { shape = `(${rows.length / 4}, 4)` } = {}) {
  const header = `{'descr': '|i1', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + "\n";
  const start = [0x93, ..."NUMPY"].map((one) => (typeof one === "string" ? one.charCodeAt(0) : one));
  return Uint8Array.from([...start, 1, 0, header.length, 0, ...new TextEncoder().encode(header), ...rows]);
}

function read(content) {
  return SumFallback.read(content, { width: 4, fallback: SETTINGS }, "here/");
}

test("the nearest modifier of training decides the trust", () => {
  const fallback = read(table([100, 0, 0, 0, 0, 100, 0, 0]));
  const trust = (first) => fallback.trust(Float32Array.from([first, 0, 0, Math.sqrt(1 - first * first)]));
  assert.equal(trust(0.3), 0);
  assert.ok(Math.abs(trust(0.7) - 0.5) < 1e-6);
  assert.equal(trust(0.95), 1);
});

test("the query lies between the sum and the composed query", () => {
  const fallback = read(table([100, 0, 0, 0]));
  const [composed, words, sentence] = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]].map((row) => Float32Array.from(row));
  const shown = (trust) => [...fallback.between(composed, words, sentence, trust)].map((one) => one.toFixed(4));
  assert.deepEqual(shown(1), ["0.0000", "1.0000", "0.0000", "0.0000"]);
  assert.deepEqual(shown(0), ["0.3162", "0.0000", "0.9487", "0.0000"]);
  const half = Math.hypot(0.3162, 1, 0.9487);
  assert.deepEqual(shown(0.5), [0.3162, 1, 0.9487, 0].map((one) => (one / half).toFixed(4)));
});

for (const [name, damaged, message] of [
  ["no table", new Uint8Array(40), /expected int8 vectors \(n, 4\) in here\/fallback\/vectors\.npy/],
  ["another width", table([1, 2, 3], { shape: "(1, 3)" }), /expected int8/],
  ["half a table", table([1, 2, 3, 4], { shape: "(2, 4)" }), /cut short/],
  ["a vector of zeros", table([0, 0, 0, 0]), /zeros/],
  ["no vector", table([], { shape: "(0, 4)" }), /1 to/],
]) {
  test(`${name} is refused`, () => assert.throws(() => read(damaged), { name: "ModelError", message: message }));
}
