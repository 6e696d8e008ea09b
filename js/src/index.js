// image2sentence in the browser: a picture and words become a query vector on the device itself.

import { WorkerEncoder } from "./client.js";
import { LocalEncoder } from "./encoder.js";

export { ConfigError, Image2SentenceError, ImageError, ModelError, QueryError } from "./errors.js";

/**
 * The query side of a model folder at a URL; see index.d.ts.
 * @param {string | URL} url
 * @param {import("./index.js").LoadOptions} [options]
 * @returns {Promise<import("./index.js").QueryEncoder>}
 */
export async function loadEncoder(url, options = {}) {
  const resolved = { ...options, runtime: absolute(options.runtime) };
  const address = /** @type {URL} */ (absolute(url));
  return options.worker ? WorkerEncoder.load(address, resolved) : LocalEncoder.load(address, resolved);
}

/**
 * An address as seen from the page; what is no address stays as it is.
 * @template T
 * @param {T} address
 * @returns {URL | Exclude<T, string>}
 */
function absolute(address) {
  if (typeof address !== "string") return /** @type {Exclude<T, string>} */ (address);
  return new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href);
}
