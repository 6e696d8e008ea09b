// What Python makes of things: written by expected.py into $EXPECTED, or js/.expected.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const FOLDER = process.env.EXPECTED ?? fileURLToPath(new URL("../.expected", import.meta.url));
export const expected = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));

/** A raw array beside it. */
export const raw = (name) => new Uint8Array(readFileSync(join(FOLDER, name)));

/** 1 - cosine of two rows. */
export function distance(a, b) {
  const dot = (x, y) => x.reduce((sum, value, place) => sum + value * y[place], 0);
  return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Largest absolute difference; infinite where the lengths differ. */
export function furthest(a, b) {
  if (a.length !== b.length) return Infinity;
  return a.reduce((most, value, place) => Math.max(most, Math.abs(value - b[place])), 0);
}
