// Where the sentence stands among the words: by position, never by a placeholder looked up in user text.

import { ConfigError } from "./errors.js";

const AROUND = /^[\p{White_Space}\x1c-\x1f]+|[\p{White_Space}\x1c-\x1f]+$/gu; // as Python's str.strip

/**
 * A text without the white space around it.
 * @param {string} text
 */
export function strip(text) {
  return text.replace(AROUND, "");
}

/** The words before the sentence, between sentence and modifier, and after the modifier. */
export class Template {
  /** @param {string} prefix @param {string} middle @param {string} suffix */
  constructor(prefix, middle, suffix) {
    this.prefix = prefix;
    this.middle = middle;
    this.suffix = suffix;
  }

  /**
   * From "words {sentence} words {modifier} words". Throws ConfigError on anything else.
   * @param {string} text
   */
  static parse(text) {
    const found = /^([^{]*)\{sentence\}([^{]*)\{modifier\}([^{]*)$/.exec(text);
    if (!found) {
      throw new ConfigError(
        `expected a template with {sentence} and then {modifier}, once each; got ${JSON.stringify(text)}`,
      );
    }
    const [before, middle, after] = found.slice(1);
    return new Template(strip(before), strip(middle), strip(after));
  }

  /**
   * All words of a query but the sentence, in order; the template's own stand around the modifier only where
   * there is one (without, it is image search).
   * @param {string} modifier
   */
  words(modifier) {
    const said = strip(modifier);
    const tail = said ? [this.middle, said, this.suffix] : [];
    return [this.prefix, ...tail].filter(Boolean).join(" ");
  }
}
