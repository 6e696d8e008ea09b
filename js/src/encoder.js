// The query side of a model folder through onnxruntime-web: picture -> sentence -> query vector.

import { planComposition, mean, unit } from "./composition.js";
import { sentenceWidth } from "./config.js";
import { ModelError, QueryError, RELEASED } from "./errors.js";
import { FALLBACK, SumFallback } from "./fallback.js";
import { ModelFolder, QUERY_IMAGE, QUERY_TEXT, TOKENIZER, json } from "./folder.js";
import { Guide, PHRASES, VECTORS, between } from "./guide.js";
import { readPicture } from "./picture.js";
import { toPixels } from "./preprocess.js";
import { loadRuntime } from "./runtime.js";
import { near } from "./spelling.js";
import { Template, strip } from "./template.js";
import { Tokenizer } from "./tokenizer.js";

/** @typedef {import("./index.js").PseudoWords} PseudoWords */
/** @typedef {import("./index.js").LoadOptions} LoadOptions */
/** @typedef {import("./index.js").Picture} Picture */
/** @typedef {import("./index.js").QueryEncoder} QueryEncoder */
/** @typedef {import("./index.js").Sentence} Sentence */
/** @typedef {import("onnxruntime-web")} Runtime */
/** @typedef {import("onnxruntime-web").InferenceSession} Session */
/** @typedef {import("onnxruntime-web").Tensor} Tensor */

/** A model's query side in this thread. @implements {QueryEncoder} */
export class LocalEncoder {
  /**
   * @param {ModelFolder} folder @param {Tokenizer} tokenizer @param {Runtime} runtime
   * @param {Session} image @param {Session} text @param {Guide | null} guide
   * @param {SumFallback | null} fallback
   */
  constructor(folder, tokenizer, runtime, image, text, guide, fallback) {
    this.config = folder.config;
    this.tokenizer = tokenizer;
    this.runtime = runtime;
    this.image = image;
    this.text = text;
    this.guide = guide;
    this.fallback = fallback;
    this.template = Template.parse(this.config.template);
    /** @type {Promise<unknown>} */
    this.last = Promise.resolve();
    /** @type {Promise<unknown> | undefined} */
    this.released = undefined;
  }

  /**
   * @param {string | URL} address @param {LoadOptions} options
   * @returns {Promise<LocalEncoder>}
   */
  static async load(address, options) {
    const folder = await ModelFolder.open(address, options);
    const [runtime, files] = await Promise.all([loadRuntime(options), folder.readAll()]);
    const where = (/** @type {string} */ name) => new URL(name, folder.url).href;
    const tokenizer = new Tokenizer(json(files[TOKENIZER], folder.url, TOKENIZER), where(TOKENIZER));
    // One after the other: the runtime starts itself with the first.
    const image = await session(runtime, files[QUERY_IMAGE], where(QUERY_IMAGE));
    const text = await session(runtime, files[QUERY_TEXT], where(QUERY_TEXT));
    const guide = folder.config.guide
      ? Guide.read(files[PHRASES], files[VECTORS], folder.config, folder.url.href)
      : null;
    const fallback = folder.config.fallback
      ? SumFallback.read(files[FALLBACK], folder.config, folder.url.href)
      : null;
    return new LocalEncoder(folder, tokenizer, runtime, image, text, guide, fallback);
  }

  /**
   * @param {Picture} picture
   * @returns {Promise<Sentence>}
   */
  async encodeSentence(picture) {
    const how = this.config.query_preprocessing;
    const pixels = toPixels(await readPicture(picture), how);
    const feed = { pixels: new this.runtime.Tensor("float32", pixels, [1, 3, how.size, how.size]) };
    const [tokens, attention, gates] = await this.run(this.image, feed);
    return {
      tokens: floats(tokens),
      dims: [tokens.dims[1], tokens.dims[2]],
      attention: floats(attention),
      attentionDims: [attention.dims[1], attention.dims[2], attention.dims[3]],
      gates: floats(gates),
    };
  }

  /**
   * @param {PseudoWords | null} sentence @param {string} text
   * @returns {Promise<Float32Array>}
   */
  async encodeQuery(sentence, text) {
    if (!sentence && !strip(text)) throw new QueryError("expected a picture, words, or both; got neither");
    const plain = await this.speak(sentence, text);
    if (!sentence || !strip(text)) return plain;
    const composed = this.guide && this.isShort(text) ? await this.guided(this.guide, plain, sentence, text) : plain;
    if (!this.fallback) return composed;
    const words = await this.speak(null, text);
    const trust = this.fallback.trust(words);
    return trust === 1 ? composed : this.fallback.between(composed, words, await this.speak(sentence, ""), trust);
  }

  /**
   * A composed query with the guiding phrases' part in it.
   * @param {Guide} guide @param {Float32Array} plain @param {PseudoWords} sentence @param {string} text
   */
  async guided(guide, plain, sentence, text) {
    const near = guide.near(await this.speak(sentence, ""));
    if (!near.trust) return plain;
    const said = await Promise.all(near.phrases.map((phrase) => this.speak(null, `${phrase} ${text}`)));
    return between(plain, said, near);
  }

  /**
   * What the text encoder makes of a sentence and words.
   * @param {PseudoWords | null} sentence @param {string} text
   * @returns {Promise<Float32Array>}
   */
  async speak(sentence, text) {
    const tokens = sentence ? this.checkedTokens(sentence) : new Float32Array(0);
    const ids = this.checkedIds(sentence ? this.template.words(text) : text, sentence ? this.config.learner.tokens : 0);
    const { Tensor } = this.runtime;
    const width = sentenceWidth(this.config);
    const [vector] = await this.run(this.text, {
      sentence: new Tensor("float32", tokens, [1, tokens.length / width, width]),
      ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
    });
    return unit(floats(vector));
  }

  /**
   * Whether words leave room for a guiding phrase before them.
   * @param {string} text
   */
  isShort(text) {
    return this.tokenizer.encode(text).length <= Math.floor(this.config.max_length / 2);
  }

  /**
   * @param {Array<Picture | PseudoWords>} references @param {string} words
   * @param {import("./index.js").ComposeOptions} [options]
   * @returns {Promise<Float32Array>}
   */
  async compose(references, words, options = {}) {
    const sentences = await Promise.all(references.map((one) => (isPseudoWords(one) ? one : this.encodeSentence(one))));
    const parts = planComposition(sentences, words, options);
    const vectors = parts.map(async ({ inputs, weights }) =>
      mean(await Promise.all(inputs.map((one) => this.encodeQuery(one.sentence, one.words))), weights),
    );
    return mean(
      await Promise.all(vectors),
      parts.map(({ share }) => share),
    );
  }

  /** @param {string} text */
  async unknownWords(text) {
    this.checkUsable();
    return this.tokenizer.unknownWords(text);
  }

  /** @param {string} text */
  async notUnderstood(text) {
    this.checkUsable();
    const known = this.tokenizer.words;
    return this.tokenizer.unknownWords(text).map((word) => ({ word, near: near(word, known) }));
  }

  async release() {
    this.released ??= this.last.then(() => Promise.all([this.image.release(), this.text.release()]));
    await this.released;
  }

  /** @throws {ModelError} the encoder has been released */
  checkUsable() {
    if (this.released) throw new ModelError(RELEASED);
  }

  /**
   * @param {PseudoWords} sentence
   * @returns {Float32Array}
   */
  checkedTokens({ tokens, dims: [rows, wide] }) {
    const [most, width] = [this.config.learner.tokens, sentenceWidth(this.config)];
    if (wide !== width || rows < 1 || rows > most || tokens.length !== rows * wide) {
      throw new QueryError(
        `expected a sentence of shape 1 to ${most} x ${width}, got ${rows} x ${wide}; is it of another model?`,
      );
    }
    return tokens;
  }

  /**
   * @param {string} words @param {number} extra tokens that the sentence takes
   */
  checkedIds(words, extra) {
    const ids = this.tokenizer.encode(words);
    const room = this.config.max_length - extra;
    if (ids.length <= room) return ids;
    const shown = JSON.stringify(words.slice(0, 60));
    throw new QueryError(`the words are too long: ${ids.length} tokens, room for ${room}; shorten ${shown}`);
  }

  /**
   * A graph's outputs in order. One at a time: the runtime's sessions share one thread and its memory.
   * @param {Session} graph @param {Record<string, Tensor>} feed
   * @returns {Promise<Tensor[]>}
   */
  async run(graph, feed) {
    this.checkUsable();
    const mine = this.last.then(() => graph.run(feed));
    this.last = mine.catch(() => undefined); // whoever asked gets the error
    const outputs = await mine;
    return graph.outputNames.map((name) => outputs[name]);
  }
}

/**
 * @param {Runtime} runtime @param {Uint8Array} content @param {string} where
 * @returns {Promise<Session>}
 */
async function session(runtime, content, where) {
  try {
    return await runtime.InferenceSession.create(content, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch (error) {
    throw new ModelError(`onnxruntime-web cannot load ${where}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

/**
 * A tensor's values, out of the runtime's memory.
 * @param {Tensor} tensor
 */
function floats(tensor) {
  return Float32Array.from(/** @type {Float32Array} */ (tensor.data));
}

/** @param {unknown} reference @returns {reference is PseudoWords} */
export function isPseudoWords(reference) {
  return typeof reference === "object" && reference !== null && "tokens" in reference;
}
