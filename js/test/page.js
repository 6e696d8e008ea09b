// A headless Chromium with a page that has the module, and the server behind it.

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { ISOLATED, answer, folders } from "../example/serve.js";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const BLANK = "<!doctype html><meta charset=utf-8><title>test</title>";

/** Where a Chromium is installed; $CHROMIUM, or the usual places. */
export function browserPath() {
  const found = [process.env.CHROMIUM, ...PLACES].find((place) => place && existsSync(place));
  if (!found) throw new Error(`expected a Chromium at $CHROMIUM or ${PLACES.join(", ")}; there is none`);
  return found;
}

/**
 * A server of the module, the runtime, a model and a folder of pictures.
 * `intercept(path, request, response)` may answer in its place, by returning true; `headers` are put on everything.
 */
export async function serve(pictures, { intercept = () => false, headers = ISOLATED, model } = {}) {
  const served = { ...folders(model), "/pictures/": pictures };
  const asked = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    const path = request.url.split("?")[0];
    if (intercept(path, request, response)) return;
    if (path === "/blank.html") response.writeHead(200, { ...headers, "Content-Type": "text/html" }).end(BLANK);
    else answer(request, response, served, headers);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    asked,
    close() {
      const closed = new Promise((done) => server.close(done)); // once is enough
      server.closeAllConnections();
      return closed;
    },
  };
}

/** A browser; `page(origin)` opens a page in a profile of its own, with nothing kept. */
export async function launch() {
  const args = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP insecure.test 127.0.0.1"];
  const browser = await chromium.launch({ executablePath: browserPath(), args });
  return {
    version: browser.version(),
    close: () => browser.close(),
    async page(origin) {
      const page = await (await browser.newContext()).newPage();
      page.on("pageerror", (error) => console.error(`page: ${error}`));
      await page.goto(`${origin}/blank.html`);
      return page;
    },
  };
}
