// The errors this module throws on purpose; each message says what was expected, what came, and what to do.

/** Base of every error that this module throws on purpose. */
export class Image2SentenceError extends Error {
  /** @param {string} message @param {ErrorOptions} [options] */
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A model folder that cannot be reached, is incomplete, damaged, or of another format version. */
export class ModelError extends Image2SentenceError {}

/** A picture that cannot be read: damaged, too large, or of a format that this browser does not know. */
export class ImageError extends Image2SentenceError {}

/** A query that cannot be answered: empty, or too long. */
export class QueryError extends Image2SentenceError {}

/** A setting with an unknown name or an impossible value. */
export class ConfigError extends Image2SentenceError {}

/** What is said of an encoder that is asked after `release`. */
export const RELEASED = "the encoder has been released";

const KINDS = { ModelError, ImageError, QueryError, ConfigError };

/**
 * An error as something that can be sent between threads.
 * @param {unknown} error
 * @returns {{name: string, message: string}}
 */
export function packed(error) {
  return error instanceof Error ? { name: error.name, message: error.message } : { name: "Error", message: String(error) };
}

/**
 * The error that `packed` was given, of the same class where it is one of this module's.
 * @param {{name: string, message: string}} sent
 * @returns {Error}
 */
export function unpacked({ name, message }) {
  const Kind = KINDS[/** @type {keyof typeof KINDS} */ (name)];
  if (Kind) return new Kind(message);
  return name === "AbortError" ? new DOMException(message, name) : Object.assign(new Error(message), { name });
}
