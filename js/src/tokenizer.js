// BERT's WordPiece tokenizer (BLIP's, and the bundled model's), exactly as the Python package `tokenizers` reads it.
//
// @huggingface/tokenizers cannot stand in: it finds "[SEP]" in what a user wrote, and has no offsets, so that words
// that are not understood could not be named as they were written.

import { COMPOSED, MARKS, PUNCTUATION, REMOVED } from "./characters.js";
import { ModelError } from "./errors.js";

const SUPPORTED = "WordPiece with BertNormalizer, BertPreTokenizer and TemplateProcessing";
const CHINESE = new Uint32Array([
  0x3400, 0x4dbf, 0x4e00, 0x9fff, 0xf900, 0xfaff, 0x20000, 0x2a6df, 0x2a700, 0x2b81f, 0x2b920, 0x2ceaf, 0x2f800,
  0x2fa1f,
]);
const CLEANED_TO_SPACE = /[\t\n\r\p{Zs}\u2028\u2029]/u;
const SPACE = /\p{White_Space}/u;
const REPLACEMENT = 0xfffd;

/** @typedef {{text: string, start: number, end: number}} Piece one character, or a word, and its place in the text */

/** A tokenizer.json, read. */
export class Tokenizer {
  /**
   * @param {any} settings what tokenizer.json holds
   * @param {string} where names the file in error messages
   * @throws {ModelError} another kind of tokenizer, or a damaged file
   */
  constructor(settings, where = "tokenizer.json") {
    checkKind(settings, where);
    const { normalizer, model, post_processor } = settings;
    this.normalizer = normalizer;
    this.model = model;
    /** @type {Map<string, number>} */
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.unknown = this.vocabulary.get(model.unk_token);
    if (this.unknown === undefined) throw new ModelError(`${where}: its vocabulary lacks ${model.unk_token}`);
    const [before, after] = specials(post_processor, where);
    this.before = before;
    this.after = after;
  }

  /** The whole words of the vocabulary: no pieces, no punctuation, no special tokens. */
  get words() {
    return [...this.vocabulary.keys()].filter((token) => /^\p{L}+$/u.test(token));
  }

  /**
   * Ids of a text with the special tokens around it. Nothing in the text is special.
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    return [...this.before, ...words(text, this.normalizer).flatMap((word) => this.pieces(word)), ...this.after];
  }

  /**
   * The words of a text that the vocabulary does not have, as written, in order, once each.
   * @param {string} text
   * @returns {string[]}
   */
  unknownWords(text) {
    const found = words(text, this.normalizer).filter((word) => this.pieces(word)[0] === this.unknown);
    return [...new Set(found.map(({ start, end }) => text.slice(start, end)))];
  }

  /**
   * A word's ids, longest piece first; the unknown token's where no pieces make it up.
   * @param {Piece} word
   * @returns {number[]}
   */
  pieces(word) {
    const characters = [...word.text];
    const unknown = [/** @type {number} */ (this.unknown)];
    if (characters.length > this.model.max_input_chars_per_word) return unknown;
    const ids = [];
    for (let start = 0; start < characters.length; ) {
      const [id, end] = this.longest(characters, start);
      if (id === undefined) return unknown;
      ids.push(id);
      start = end;
    }
    return ids;
  }

  /**
   * @param {string[]} characters @param {number} start
   * @returns {[number | undefined, number]} the longest known piece from `start`, and where it ends
   */
  longest(characters, start) {
    const prefix = start ? this.model.continuing_subword_prefix : "";
    for (let end = characters.length; end > start; end--) {
      const id = this.vocabulary.get(prefix + characters.slice(start, end).join(""));
      if (id !== undefined) return [id, end];
    }
    return [undefined, start];
  }
}

/**
 * @param {any} settings @param {string} where
 */
function checkKind(settings, where) {
  const kinds = ["model", "normalizer", "pre_tokenizer", "post_processor"].map((part) => settings?.[part]?.type);
  if (kinds.join() !== "WordPiece,BertNormalizer,BertPreTokenizer,TemplateProcessing") {
    throw new ModelError(
      `${where}: browsers read ${SUPPORTED}; this one is ${kinds.map((kind) => kind ?? "none").join(", ")}. ` +
        "Encode its queries with Python",
    );
  }
  if (settings.added_tokens?.some((/** @type {any} */ token) => !token.special)) {
    throw new ModelError(`${where}: browsers read ${SUPPORTED}; this one has added tokens that are not special`);
  }
}

/**
 * @param {any} processor @param {string} where
 * @returns {[number[], number[]]} ids before and after a single text
 */
function specials(processor, where) {
  const ids = processor.single.map((/** @type {any} */ part) =>
    part.Sequence ? null : processor.special_tokens[part.SpecialToken?.id]?.ids,
  );
  const text = ids.indexOf(null);
  if (text < 0 || text !== ids.lastIndexOf(null) || ids.includes(undefined)) {
    throw new ModelError(`${where}: its template for a single text is damaged`);
  }
  return [ids.slice(0, text).flat(), ids.slice(text + 1).flat()];
}

/**
 * The words of a text: normalised, split at white space, punctuation apart.
 * @param {string} text @param {any} how settings of the BertNormalizer
 * @returns {Piece[]}
 */
function words(text, how) {
  /** @type {Piece[]} */
  const found = [];
  let open = false; // whether the next letter goes on with the last word
  for (const letter of normalised(text, how)) {
    const apart = among(PUNCTUATION, letter.text);
    if (SPACE.test(letter.text)) open = false;
    else if (open && !apart) join(found[found.length - 1], letter);
    else found.push({ ...letter });
    if (!SPACE.test(letter.text)) open = !apart;
  }
  return found;
}

/** @param {Piece} word @param {Piece} letter */
function join(word, letter) {
  word.text += letter.text;
  word.end = letter.end;
}

/**
 * BertNormalizer, character by character. Marks are not put into canonical order as Python does where several stay:
 * no vocabulary knows such a word either way.
 * @param {string} text @param {any} how
 * @returns {Generator<Piece>}
 */
function* normalised(text, how) {
  const strips = how.strip_accents ?? how.lowercase;
  let start = 0;
  for (const written of text) {
    const end = start + written.length;
    for (const letter of changed(whole(written), how, strips)) yield { text: letter, start, end };
    start = end;
  }
}

/**
 * A character, or the replacement character for half of one.
 * @param {string} character
 */
function whole(character) {
  const code = /** @type {number} */ (character.codePointAt(0));
  return code >= 0xd800 && code < 0xe000 ? String.fromCodePoint(REPLACEMENT) : character;
}

/**
 * @param {string} character @param {any} how @param {boolean} strips
 * @returns {string[]} the characters that one becomes: none, itself in lower case, its parts, or itself between spaces
 */
function changed(character, how, strips) {
  if (how.clean_text) {
    if (among(REMOVED, character)) return [];
    if (CLEANED_TO_SPACE.test(character)) return [" "];
  }
  const parts = strips && among(COMPOSED, character) ? [...character.normalize("NFD")] : [character];
  const kept = strips ? parts.filter((part) => !among(MARKS, part)) : parts;
  const letters = how.lowercase ? kept.flatMap((part) => [...part.toLowerCase()]) : kept;
  return how.handle_chinese_chars && among(CHINESE, character) ? [" ", ...letters, " "] : letters;
}

/**
 * Whether a character is in ranges (first, last, first, last ...; sorted).
 * @param {Uint32Array} ranges @param {string} character
 */
function among(ranges, character) {
  const code = /** @type {number} */ (character.codePointAt(0));
  let low = 0;
  let high = ranges.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (code > ranges[2 * middle + 1]) low = middle + 1;
    else high = middle;
  }
  return 2 * low < ranges.length && code >= ranges[2 * low];
}
