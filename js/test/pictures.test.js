// Pixels as Pillow makes them, and settings as Python reads them. Needs no browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { folders } from "../example/serve.js";
import { readConfig, sentenceWidth } from "../src/config.js";
import { groundOf, onGround } from "../src/ground.js";
import { fit, toPixels } from "../src/preprocess.js";
import { reduce } from "../src/resample.js";
import { expected, furthest, raw } from "./expected.js";

const before = ({ width, height }, number) => ({ width, height, data: raw(`${number}.before`) });

test("resizing, cropping and reducing are Pillow's to the bit", () => {
  expected.resizings.forEach((one, number) => {
    const pixels = before(one, number);
    assert.equal(furthest(fit(pixels, one.how).data, raw(`${number}.fitted`)), 0, JSON.stringify(one));
    assert.equal(furthest(reduce(pixels, one.factor).data, raw(`${number}.reduced`)), 0, JSON.stringify(one));
  });
});

test("normalised pixels are numpy's to the bit", () => {
  expected.resizings.forEach((one, number) => {
    const floats = new Float32Array(raw(`${number}.pixels`).buffer);
    assert.equal(furthest(toPixels(before(one, number), one.how), floats), 0);
  });
});

test("grounds of transparent pictures are Python's, and so is the blend", () => {
  expected.grounds.forEach(({ width, height, ground }, number) => {
    const pixels = { width, height, data: raw(`ground-${number}.before`) };
    assert.equal(groundOf(pixels), ground);
    assert.equal(furthest(onGround(pixels).data, raw(`ground-${number}.after`)), 0);
  });
});

test("a picture of the right size is left as it is", () => {
  const pixels = { width: 3, height: 3, data: new Uint8Array(36).fill(7) };
  assert.equal(fit(pixels, { ...expected.resizings[0].how, size: 3, fit: "squash" }), pixels);
});

const config = () => JSON.parse(readFileSync(join(folders()["/model/"], "config.json"), "utf8"));

test("the bundled model's config is read", () => {
  const read = readConfig(config(), "config.json");
  assert.equal(sentenceWidth({ ...read, learner: { ...read.learner, gates: true } }), read.word_width + 1);
});

const OPTIONAL = ["guide", "fallback", "sentence_share", "composition", "origin", "resize", "space_settings", "checksum"]; // models made before these were known lack them

for (const [kind, part] of [["ModelConfig", null], ["LearnerConfig", "learner"], ["Preprocessing", "query_preprocessing"]]) {
  const of = (all) => (part ? all[part] : all);

  test(`Python's ${kind} has the same keys`, () => {
    for (const key of expected.keys[kind].filter((name) => !OPTIONAL.includes(name))) {
      const changed = config();
      delete of(changed)[key];
      assert.throws(() => readConfig(changed, "c"), key === "format" ? /format/ : new RegExp(`missing key "${key}"`));
    }
    const optional = Object.fromEntries(OPTIONAL.map((key) => [key, null]));
    const known = expected.keys[kind];
    const both = Object.keys({ ...of(config()), ...optional }).filter((key) => known.includes(key));
    assert.deepEqual(both.sort(), [...known].sort());
  });

  test(`an unknown key in ${kind} is refused`, () => {
    const changed = config();
    of(changed).surprise = 1;
    assert.throws(() => readConfig(changed, "c"), { name: "ModelError", message: /unknown key "surprise"/ });
  });
}

test("guiding phrases are read strictly, and a model may do without", () => {
  const without = config();
  delete without.guide;
  assert.equal(readConfig(without, "c").guide, undefined);
  for (const [change, message] of [[{ low: "x" }, /guide\.low/], [{ surprise: 1 }, /surprise/], [{ neighbours: 0 }, /neighbours/]]) {
    const changed = config();
    changed.guide = { ...changed.guide, ...change };
    assert.throws(() => readConfig(changed, "c"), message);
  }
});

test("a model may have nothing of sentences in its gallery vectors", () => {
  const without = config();
  delete without.sentence_share;
  assert.equal(readConfig(without, "c").sentence_share, undefined);
});

const WRONG = { width: "wide", files: { a: 1 }, max_length: 0, learner: [], format: 99, sentence_share: 1 };

for (const [key, value] of Object.entries(WRONG)) {
  test(`${key} ${JSON.stringify(value)} is refused`, () => {
    assert.throws(() => readConfig({ ...config(), [key]: value }, "c"), { name: "ModelError" });
  });
}

for (const [key, value] of Object.entries({ size: 0, fit: "stretch", resample: "box", mean: [1, 2], std: [1, 0, 1] })) {
  test(`preprocessing ${key} ${JSON.stringify(value)} is refused`, () => {
    const changed = config();
    changed.query_preprocessing[key] = value;
    assert.throws(() => readConfig(changed, "c"), { message: new RegExp(`query_preprocessing.${key}: expected`) });
  });
}

test("what is no object is refused", () => {
  for (const value of [null, [], 3, "x"]) assert.throws(() => readConfig(value, "c"), { name: "ModelError" });
});
