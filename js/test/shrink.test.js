// What the server's page sends of large photographs: smaller, upright, with the digest of the original.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, serve } from "./page.js";

const SCRIPT = readFileSync(new URL("../../src/image2sentence/server/static/shrink.js", import.meta.url));

let browser, server;
before(async () => {
  browser = await launch();
  const intercept = (path, request, response) => {
    if (path !== "/shrink.js") return false;
    response.writeHead(200, { "Content-Type": "text/javascript" }).end(SCRIPT);
    return true;
  };
  server = await serve(".", { intercept });
});
after(async () => {
  await browser.close();
  await server.close();
});

/** In the page: a noisy photograph, red at its upper left, as the camera turned by `orientation` stores it; what is sent. */
async function sent({ width, height, type = "image/jpeg", orientation = 1 }) {
  const { toSend } = await import("/shrink.js");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const noise = context.createImageData(width, height);
  for (let start = 0; start < noise.data.length; start += 65_536) {
    crypto.getRandomValues(noise.data.subarray(start, start + 65_536));
  }
  for (let place = 3; place < noise.data.length; place += 4) noise.data[place] = 255;
  context.putImageData(noise, 0, 0);
  context.fillStyle = "red";
  context.fillRect(0, 0, width / 4, height / 4);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type, quality: 0.9 })).arrayBuffer());
  const exif = [0xff, 0xe1, 0, 34, ...new TextEncoder().encode("Exif\0\0MM"), 0, 42, 0, 0, 0, 8, 0, 1];
  const entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
  const parts = type === "image/jpeg" ? [bytes.slice(0, 2), new Uint8Array([...exif, ...entry]), bytes.slice(2)] : [bytes];
  const original = new File(parts, "photo.jpg", { type });
  const { file, digest } = await toSend(original);
  const again = await toSend(original);
  const shown = await createImageBitmap(file, { imageOrientation: "none" });
  const small = new OffscreenCanvas(shown.width, shown.height).getContext("2d");
  small.drawImage(shown, 0, 0);
  const isRed = (x, y) => {
    const [red, green, blue] = small.getImageData(x * (shown.width - 1), y * (shown.height - 1), 1, 1).data;
    return red > 200 && green < 60 && blue < 60;
  };
  const base64 = btoa(Array.from(new Uint8Array(await original.arrayBuffer()), (one) => String.fromCharCode(one)).join(""));
  return {
    same: file === original,
    once: again.file === file,
    name: file.name,
    size: [shown.width, shown.height],
    share: file.size / original.size,
    red: [isRed(0, 0), isRed(1, 0), isRed(0, 1), isRed(1, 1)],
    digest,
    base64,
  };
}

test("a large photograph is sent smaller, upright, with its digest", async () => {
  const page = await browser.page(server.origin);
  const level = await page.evaluate(sent, { width: 2_560, height: 2_048 });
  assert.deepEqual([level.size, level.red], [[1_280, 1_024], [true, false, false, false]]);
  const turned = await page.evaluate(sent, { width: 2_560, height: 2_048, orientation: 6 });
  assert.deepEqual([turned.size, turned.red], [[1_024, 1_280], [false, true, false, false]]);
  for (const one of [level, turned]) {
    assert.deepEqual([one.same, one.once, one.name], [false, true, "photo.jpg"]);
    assert.ok(one.share < 0.5, `${one.share}`);
    assert.equal(one.digest, createHash("sha256").update(Buffer.from(one.base64, "base64")).digest("hex"));
  }
});

test("what the server would not make smaller, or is no JPEG, is sent as it is", async () => {
  const page = await browser.page(server.origin);
  for (const one of [{ width: 2_560, height: 2_000 }, { width: 2_100, height: 2_100, type: "image/png" }]) {
    const { same, digest } = await page.evaluate(sent, one);
    assert.deepEqual([same, digest], [true, undefined]);
  }
});
