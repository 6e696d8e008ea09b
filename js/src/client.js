// An encoder in a worker, so that the page stays quick while it loads and encodes.

import { isPseudoWords } from "./encoder.js";
import { ConfigError, ModelError, RELEASED, unpacked } from "./errors.js";
import { checkPicture } from "./picture.js";

/** @typedef {import("./index.js").LoadOptions} LoadOptions */
/** @typedef {import("./index.js").ModelConfig} ModelConfig */
/** @typedef {import("./index.js").Picture} Picture */
/** @typedef {import("./index.js").QueryEncoder} QueryEncoder */
/** @typedef {import("./index.js").Sentence} Sentence */

/** A model's query side in a worker of its own. @implements {QueryEncoder} */
export class WorkerEncoder {
  /** @param {Calls} calls @param {ModelConfig} config */
  constructor(calls, config) {
    this.calls = calls;
    this.config = config;
  }

  /**
   * @param {URL} address @param {LoadOptions} options
   * @returns {Promise<WorkerEncoder>}
   */
  static async load(address, { progress, signal, worker, ...options }) {
    if (typeof options.runtime === "object" && !(options.runtime instanceof URL)) {
      throw new ConfigError("a worker loads its own runtime: expected the URL of its files, got a module");
    }
    signal?.throwIfAborted();
    const calls = new Calls(new Worker(new URL("./worker.js", import.meta.url), { type: "module" }), progress);
    const abort = () => void calls.call("abort");
    signal?.addEventListener("abort", abort);
    try {
      const sent = { ...options, runtime: options.runtime && String(options.runtime) };
      return new WorkerEncoder(calls, await calls.call("load", address.href, sent));
    } catch (error) {
      calls.end();
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** @param {Picture} picture @returns {Promise<Sentence>} */
  encodeSentence(picture) {
    return this.show([picture], "encodeSentence", picture);
  }

  /** @param {import("./index.js").PseudoWords | null} sentence @param {string} text @returns {Promise<Float32Array>} */
  encodeQuery(sentence, text) {
    return this.calls.call("encodeQuery", sentence, text);
  }

  /**
   * @param {Array<Picture | import("./index.js").PseudoWords>} references @param {string} words
   * @param {import("./index.js").ComposeOptions} [options]
   * @returns {Promise<Float32Array>}
   */
  compose(references, words, options) {
    return this.show(references, "compose", references, words, options);
  }

  /**
   * A call with pictures: one that cannot be sent to a worker is refused as it is without one.
   * @param {Array<Picture | import("./index.js").PseudoWords>} references
   * @param {string} method @param {unknown[]} args
   */
  async show(references, method, ...args) {
    try {
      return await this.calls.call(method, ...args);
    } catch (error) {
      if (error instanceof Error && error.name === "DataCloneError") {
        for (const one of references) if (!isPseudoWords(one)) checkPicture(one);
      }
      throw error;
    }
  }

  /** @param {string} text @returns {Promise<string[]>} */
  unknownWords(text) {
    return this.calls.call("unknownWords", text);
  }

  /** @param {string} text @returns {Promise<import("./index.js").UnknownWord[]>} */
  notUnderstood(text) {
    return this.calls.call("notUnderstood", text);
  }

  async release() {
    this.calls.end();
  }
}

/** Calls that a worker answers. */
class Calls {
  /** @param {Worker} worker @param {LoadOptions["progress"]} progress */
  constructor(worker, progress) {
    this.worker = worker;
    this.count = 0;
    /** @type {Map<number, {resolve: (value: any) => void, reject: (reason: Error) => void}>} */
    this.waiting = new Map();
    worker.addEventListener("message", ({ data }) => (data.progress ? progress?.(data.progress) : this.answered(data)));
    worker.addEventListener("error", (event) => this.failed(event));
  }

  /**
   * @param {string} method @param {unknown[]} args
   * @returns {Promise<any>}
   */
  call(method, ...args) {
    if (!this.worker) return Promise.reject(new ModelError(RELEASED));
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.worker.postMessage({ id, method, args }); // rejects where something cannot be sent: then none is waiting
      this.waiting.set(id, { resolve, reject });
    });
  }

  /** @param {{id: number, result?: unknown, error?: {name: string, message: string}}} answer */
  answered({ id, result, error }) {
    const { resolve, reject } = this.waiting.get(id) ?? {};
    this.waiting.delete(id);
    if (error) reject?.(unpacked(error));
    else resolve?.(result);
  }

  /** @param {ErrorEvent} event the worker itself did not start, or broke */
  failed({ message }) {
    this.rejectAll(new ModelError(`the worker stopped: ${message || "its script cannot be loaded"}`));
  }

  end() {
    this.worker?.terminate();
    this.worker = /** @type {any} */ (null);
    this.rejectAll(new ModelError(RELEASED));
  }

  /** @param {Error} reason */
  rejectAll(reason) {
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }
}
