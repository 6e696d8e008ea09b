// Runs an encoder in a worker for `connect` (client.js): answers {id, method, args} with {id, result} or {id, error}.

import { LocalEncoder } from "./encoder.js";
import { packed } from "./errors.js";

/** @type {LocalEncoder | undefined} */
let encoder;
const loading = new AbortController();

const methods = {
  /** @param {string} address @param {import("./index.js").LoadOptions} options */
  async load(address, options) {
    const progress = (/** @type {object} */ report) => postMessage({ progress: report });
    encoder = await LocalEncoder.load(address, { ...options, progress, signal: loading.signal });
    return encoder.config;
  },
  async abort() {
    loading.abort();
  },
};

addEventListener("message", async ({ data: { id, method, args } }) => {
  try {
    const own = methods[/** @type {keyof typeof methods} */ (method)];
    const result = own ? await /** @type {any} */ (own)(...args) : await /** @type {any} */ (encoder)[method](...args);
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: packed(error) });
  }
});
