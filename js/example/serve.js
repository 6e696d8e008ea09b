// A small server for the example and the tests: files of some folders, with the headers that let WebAssembly use
// threads.
//
//     npm run example [-- MODEL_FOLDER [PORT]]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const BUNDLED = join(PACKAGE, "..", "src", "image2sentence", "models", "default");
const RUNTIME = join(PACKAGE, "node_modules", "onnxruntime-web", "dist");

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Without these two, pages have no shared memory, and WebAssembly one thread. */
export const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

const HEADERS = {
  "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:",
};

/**
 * Which folder is served where.
 * @param {string} model
 */
export function folders(model = BUNDLED) {
  return { "/example/": join(PACKAGE, "example"), "/src/": join(PACKAGE, "src"), "/runtime/": RUNTIME, "/model/": model };
}

/**
 * The file that an address stands for; null for addresses outside the folders.
 * @param {string} path @param {Record<string, string>} served
 */
function fileOf(path, served) {
  const prefix = Object.keys(served).find((start) => path.startsWith(start));
  if (!prefix) return null;
  const file = normalize(join(served[prefix], decodeURIComponent(path.slice(prefix.length)) || "index.html"));
  return file.startsWith(normalize(served[prefix])) ? file : null;
}

/**
 * Answer a request with a file.
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 * @param {Record<string, string>} served
 * @param {Record<string, string>} headers
 */
export async function answer(request, response, served, headers) {
  const path = new URL(request.url ?? "/", "http://localhost").pathname;
  const file = fileOf(path, served);
  const found = file && (await stat(file).catch(() => null));
  if (!file || !found?.isFile()) {
    response.writeHead(path === "/" ? 302 : 404, path === "/" ? { Location: "/example/" } : {}).end();
    return;
  }
  const type = TYPES[/** @type {keyof typeof TYPES} */ (extname(file))] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, ...headers, "Content-Type": type, "Content-Length": found.size });
  createReadStream(file).pipe(response);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [model, port = "8080"] = process.argv.slice(2);
  const served = folders(model);
  createServer((request, response) => answer(request, response, served, ISOLATED)).listen(Number(port), "127.0.0.1");
  console.log(`http://127.0.0.1:${port}/example/ (Ctrl-C stops)`);
}
