// Words as Python reads them: tokenizer, template, spelling. Needs no browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { folders } from "../example/serve.js";
import { near } from "../src/spelling.js";
import { Template } from "../src/template.js";
import { Tokenizer } from "../src/tokenizer.js";
import { expected } from "./expected.js";

const settings = () => JSON.parse(readFileSync(join(folders()["/model/"], "tokenizer.json"), "utf8"));
const tokenizer = new Tokenizer(settings());

test("every text has Python's ids", () => {
  assert.ok(expected.tokens.length > 50_000);
  const other = expected.tokens.filter(([text, ids]) => tokenizer.encode(text).join() !== ids.join());
  assert.deepEqual(other.slice(0, 5), []);
});

test("unknown words are Python's, as written", () => {
  const other = expected.tokens.filter(([text, , words]) => tokenizer.unknownWords(text).join("\n") !== words.join("\n"));
  // Two marks that both stay may change places in Python, and one of them then begins the word.
  assert.ok(other.length < expected.tokens.length / 10_000, JSON.stringify(other.slice(0, 5)));
  for (const [text] of other) assert.match(text, /\p{M}/u);
});

test("nothing in a text is special", () => {
  assert.deepEqual(tokenizer.encode("[SEP]").slice(1, -1).includes(3), false);
});

test("half a character is passed over", () => {
  assert.deepEqual(tokenizer.encode("red \ud83d dress"), tokenizer.encode("red dress"));
});

test("a piece in the middle of a word is found by its prefix", () => {
  const changed = settings();
  Object.assign(changed.model.vocab, { stri: 9000, "##pey": 9001 });
  const ids = new Tokenizer(changed).encode("stripey");
  assert.deepEqual(ids.slice(1, -1), changed.model.vocab.stripe ? ids.slice(1, -1) : [9000, 9001]);
});

for (const [part, type] of Object.entries({ model: "BPE", normalizer: "NFKC", pre_tokenizer: "Metaspace" })) {
  test(`a ${type} tokenizer is refused by name`, () => {
    const changed = settings();
    changed[part].type = type;
    assert.throws(() => new Tokenizer(changed, "t.json"), new RegExp(`t.json: browsers read WordPiece.*${type}`));
  });
}

test("added tokens that are words are refused", () => {
  const changed = settings();
  changed.added_tokens.push({ id: 7, content: "thing", special: false });
  assert.throws(() => new Tokenizer(changed), { name: "ModelError", message: /added tokens/ });
});

test("a damaged template of special tokens is refused", () => {
  const changed = settings();
  changed.post_processor.single = [{ SpecialToken: { id: "[NONE]" } }, { Sequence: { id: "A" } }];
  assert.throws(() => new Tokenizer(changed), { name: "ModelError", message: /damaged/ });
});

test("near spellings are Python's", () => {
  for (const [text, words] of expected.spellings) {
    const found = tokenizer.unknownWords(text).map((word) => [word, near(word, tokenizer.words)]);
    assert.deepEqual(found, words);
  }
});

test("templates are read by position", () => {
  const template = Template.parse("a photo of {sentence} that is {modifier} now");
  assert.equal(template.words(" red\x1f"), "a photo of that is red now");
  assert.equal(template.words(" \x1c\u0085"), "a photo of");
  assert.equal(template.words("{sentence}"), "a photo of that is {sentence} now");
});

for (const text of ["", "{modifier} {sentence}", "{sentence}", "{sentence} {modifier} {more}"]) {
  test(`the template ${JSON.stringify(text)} is refused`, () => {
    assert.throws(() => Template.parse(text), { name: "ConfigError", message: /expected a template/ });
  });
}
