// A model folder at a URL: downloaded once, kept by the browser under its checksums, checked every time.

import { readConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { FALLBACK } from "./fallback.js";
import { PHRASES, VECTORS } from "./guide.js";

/** @typedef {import("./index.js").LoadOptions} LoadOptions */
/** @typedef {import("./index.js").ModelConfig} ModelConfig */

const CONFIG = "config.json";
export const TOKENIZER = "tokenizer.json";
export const QUERY_IMAGE = "onnx/query_image.onnx";
export const QUERY_TEXT = "onnx/query_text.onnx";
const QUERY_FILES = [TOKENIZER, QUERY_IMAGE, QUERY_TEXT];
const GUIDE_FILES = [PHRASES, VECTORS];

const CACHE = "image2sentence";
const MAX_BYTES = 2 ** 30;

/** A model folder whose config has been read and whose format is known. */
export class ModelFolder {
  /**
   * @param {URL} url @param {Uint8Array<ArrayBuffer>} content its config.json
   * @param {LoadOptions} options @param {Cache | null} cache
   */
  constructor(url, content, options, cache) {
    const at = new URL(CONFIG, url);
    this.url = url;
    this.content = content;
    /** @type {ModelConfig} */
    this.config = readConfig(parsed(content, at), at.href);
    this.options = options;
    this.cache = cache;
  }

  /**
   * Reads config.json: from the network, or where that cannot be reached, as it was kept.
   * @param {string | URL} address
   * @param {LoadOptions} options
   * @returns {Promise<ModelFolder>}
   * @throws {ModelError} it is missing, damaged or foreign, or the page's context is not secure
   */
  static async open(address, options) {
    if (!globalThis.crypto?.subtle) {
      throw new ModelError("browsers check files only in a secure context: serve the page over https, or at localhost");
    }
    const url = folderAt(address);
    const cache = (options.cache ?? true) && globalThis.caches ? await caches.open(CACHE) : null;
    const content = await freshest(new URL(CONFIG, url), options, cache);
    return new ModelFolder(url, content, options, cache);
  }

  /**
   * The query side's files, all at once: those not kept yet are downloaded. Only when all are there is the config kept
   * and are other versions forgotten, so that an interrupted update leaves the earlier model whole.
   * @returns {Promise<Record<string, Uint8Array<ArrayBuffer>>>}
   * @throws {ModelError} one is missing, not listed, cut short, or not what was listed
   */
  async readAll() {
    const contents = await Promise.all(this.names.map((name) => this.read(name)));
    await keep(this.cache, new URL(CONFIG, this.url), this.content);
    await this.forgetOthers();
    return Object.fromEntries(this.names.map((name, place) => [name, contents[place]]));
  }

  /** The files that this model's query side has. */
  get names() {
    const { guide, fallback } = this.config;
    return [...QUERY_FILES, ...(guide ? GUIDE_FILES : []), ...(fallback ? [FALLBACK] : [])];
  }

  /**
   * @param {string} name
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async read(name) {
    const expected = this.config.files[name];
    if (!expected) throw new ModelError(`${this.url}${CONFIG} lists no ${name}: run \`image2sentence export\``);
    const key = this.key(name);
    const kept = await this.cache?.match(key);
    if (kept) {
      const content = new Uint8Array(await kept.arrayBuffer());
      if ((await sha256(content)) === expected) {
        this.options.progress?.({ file: name, loaded: content.length, total: content.length, cached: true });
        return content;
      }
      await this.cache?.delete(key);
    }
    const at = new URL(name, this.url);
    const content = await download(at, name, this.options);
    await checkSum(content, expected, at);
    await keep(this.cache, key, content);
    return content;
  }

  /**
   * Where a file is kept: a new version of it, under another name.
   * @param {string} name
   */
  key(name) {
    return new URL(`${name}?sha256=${this.config.files[name]}`, this.url);
  }

  async forgetOthers() {
    const current = new Set([new URL(CONFIG, this.url), ...this.names.map((name) => this.key(name))].map(String));
    const kept = (await this.cache?.keys()) ?? [];
    const old = kept.filter(({ url }) => ofFolder(url, this.url) && !current.has(url));
    await Promise.all(old.map((request) => this.cache?.delete(request)));
  }
}

/**
 * A folder's address, with the slash at its end that a user may have left out.
 * @param {string | URL} address
 */
export function folderAt(address) {
  const url = new URL(address);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/**
 * Whether an address is one of the files of the model folder (and not of another below it).
 * @param {string} address @param {URL} folder
 */
function ofFolder(address, folder) {
  const [path] = address.split("?");
  return [CONFIG, ...QUERY_FILES, ...GUIDE_FILES, FALLBACK].some((name) => path === new URL(name, folder).href);
}

/**
 * @param {URL} at @param {LoadOptions} options @param {Cache | null} cache
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function freshest(at, options, cache) {
  try {
    return await download(at, CONFIG, options);
  } catch (error) {
    const kept = error instanceof Unreachable ? await cache?.match(at) : undefined;
    if (!kept) throw error;
    return new Uint8Array(await kept.arrayBuffer());
  }
}

/** The network is down, or the server: no answer at all. */
class Unreachable extends ModelError {
  /** @param {URL} at @param {unknown} cause */
  constructor(at, cause) {
    super(`${at} cannot be reached: ${cause instanceof Error ? cause.message : cause}; is this device offline?`, {
      cause,
    });
    this.name = "ModelError";
  }
}

/**
 * @param {URL} at @param {string} file @param {LoadOptions} options
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function download(at, file, options) {
  const answer = await asked(at, options);
  const type = answer.headers.get("Content-Type") ?? "";
  if (!answer.ok) throw new ModelError(`${at}: expected a model's ${file}, and the server answered ${answer.status}`);
  if (/^(text\/html|application\/xhtml)/i.test(type)) {
    throw new ModelError(`${at}: expected a model's ${file}, got a page (${type}); is the model folder really there?`);
  }
  const announced = answer.headers.get("Content-Encoding") ? null : answer.headers.get("Content-Length");
  const total = announced === null ? null : Number(announced);
  return body(at, answer, total, (loaded) => options.progress?.({ file, loaded, total, cached: false }));
}

/**
 * @param {URL} at @param {LoadOptions} options
 */
async function asked(at, { headers, signal }) {
  try {
    // Never an old copy: what is kept, is kept under its checksum.
    return await fetch(at, { headers, signal, cache: "no-cache" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(at, error);
  }
}

/**
 * An answer's content, with its progress.
 * @param {URL} at @param {Response} answer @param {number | null} total @param {(loaded: number) => void} tell
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function body(at, answer, total, tell) {
  const parts = [];
  let loaded = 0;
  tell(loaded);
  try {
    for (const reader = /** @type {ReadableStream} */ (answer.body).getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      loaded += value.length;
      if (loaded > MAX_BYTES) throw new ModelError(`${at}: more than ${MAX_BYTES} bytes; no model has such a file`);
      tell(loaded);
    }
  } catch (error) {
    if (error instanceof ModelError || (error instanceof Error && error.name === "AbortError")) throw error;
    throw cutShort(at, loaded, total, error);
  }
  if (total !== null && loaded < total) throw cutShort(at, loaded, total, null);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * @param {URL} at @param {number} loaded @param {number | null} total @param {unknown} cause
 */
function cutShort(at, loaded, total, cause) {
  const all = total === null ? "" : ` of ${total}`;
  return new ModelError(`${at}: the download stopped after ${loaded}${all} bytes; try again`, { cause });
}

/**
 * @param {Uint8Array<ArrayBuffer>} content @param {URL} at
 */
function parsed(content, at) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new ModelError(`${at} is not readable JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * A kept tokenizer or the like as JSON. The file has the right checksum, so that it is what the exporter wrote.
 * @param {Uint8Array<ArrayBuffer>} content @param {URL} folder @param {string} name
 */
export function json(content, folder, name) {
  return parsed(content, new URL(name, folder));
}

/**
 * @param {Uint8Array<ArrayBuffer>} content @param {string} expected @param {URL} at
 */
async function checkSum(content, expected, at) {
  if ((await sha256(content)) === expected) return;
  throw new ModelError(
    `${at} is damaged, cut short or of another version: its ${content.length} bytes do not have the checksum in ${CONFIG}`,
  );
}

/**
 * SHA-256 as hexadecimal digits.
 * @param {Uint8Array<ArrayBuffer>} content
 */
async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Keep a file. A browser that has no room, or keeps nothing (private windows), downloads it again the next time.
 * @param {Cache | null} cache @param {URL} key @param {Uint8Array<ArrayBuffer>} content
 */
async function keep(cache, key, content) {
  try {
    await cache?.put(key, new Response(content));
  } catch (error) {
    console.warn(`image2sentence: ${key} is not kept: ${error}`);
  }
}
