// onnxruntime-web, from wherever the page has it; nothing is fetched from elsewhere.

import { ConfigError, ModelError } from "./errors.js";
import { folderAt } from "./folder.js";

/** @typedef {import("./index.js").LoadOptions} LoadOptions */
/** @typedef {import("onnxruntime-web")} Runtime */

const SCRIPT = "ort.wasm.bundle.min.mjs";
const BINARY = "ort-wasm-simd-threaded.wasm";

/**
 * The runtime: a module given, or from the folder of its files at a URL, or as a bundler resolves it.
 * @param {LoadOptions} options
 * @returns {Promise<Runtime>}
 * @throws {ModelError} its files are not there
 */
export async function loadRuntime({ runtime, threads }) {
  const loaded = typeof runtime === "object" && "InferenceSession" in runtime ? runtime : await imported(runtime);
  if (threads !== undefined) {
    if (!Number.isInteger(threads) || threads < 1) {
      throw new ConfigError(`threads: expected a whole number of at least 1, got ${threads}`);
    }
    loaded.env.wasm.numThreads = threads; // takes effect once in a thread, before the first graph is loaded
  }
  loaded.env.logLevel = "error";
  return loaded;
}

/**
 * @param {string | URL | undefined} address
 * @returns {Promise<Runtime>}
 */
async function imported(address) {
  if (address === undefined) return resolved();
  const folder = folderAt(address);
  const script = new URL(SCRIPT, folder);
  try {
    const runtime = await import(/* @vite-ignore */ /* webpackIgnore: true */ script.href);
    runtime.env.wasm.wasmPaths = { wasm: new URL(BINARY, folder).href };
    return runtime;
  } catch (error) {
    throw new ModelError(`${script} cannot be loaded (${reason(error)}); expected the files of onnxruntime-web/dist there`, {
      cause: error,
    });
  }
}

/** @returns {Promise<Runtime>} */
async function resolved() {
  try {
    return await import("onnxruntime-web/wasm");
  } catch (error) {
    throw new ModelError(
      `onnxruntime-web is not there (${reason(error)}): give \`runtime\`, the address where the files of ` +
        "onnxruntime-web/dist are served, or use a bundler that finds onnxruntime-web",
      { cause: error },
    );
  }
}

/** @param {unknown} error */
function reason(error) {
  return error instanceof Error ? error.message : error;
}
