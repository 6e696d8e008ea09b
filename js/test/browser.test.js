// The module in a headless Chromium against the Python runtime: the same pictures and words, the same vectors.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { folders } from "../example/serve.js";
import { FOLDER, distance, expected, furthest } from "./expected.js";
import { launch, serve } from "./page.js";

const NEAR = 6e-4; // 1 - cosine
const COMPOSED = 1.5e-3; // int8 sums of a picture with words: up to 1.2e-3 with these weights
const ODD = { "deep-grey.png": 7e-3 }; // Chromium reads its 16 bits to other pixels, and int8 makes 6.2e-3 of that
const BETWEEN = 6e-3; // where phrases are trusted in part, rounding moves the trust, too: 4.4e-3
const GRAPH = "/model/onnx/query_text.onnx";

let browser, server;
before(async () => {
  browser = await launch();
  server = await serve(FOLDER);
});
after(async () => {
  await browser.close();
  await server.close();
});

/** A server of its own for one test. */
async function serving(t, options) {
  const own = await serve(FOLDER, options);
  t.after(() => own.close());
  return own;
}

/** A page on which `encoder` is loaded. */
async function loaded(options = {}, origin = server.origin) {
  const page = await browser.page(origin);
  await page.evaluate(load, options);
  return page;
}

/** In the page: loads the model; returns how each file came. */
async function load(options = {}) {
  const { loadEncoder } = await import("/src/index.js");
  const reports = [];
  const progress = (one) => reports.push(one);
  globalThis.encoder = await loadEncoder("/model/", { runtime: "/runtime/", ...options, progress });
  return reports;
}

/** In the page: what loading says when it is refused. */
async function refusal({ address = "/model/", ...options } = {}) {
  const { loadEncoder } = await import("/src/index.js");
  try {
    await loadEncoder(address, { runtime: "/runtime/", ...options });
    return "";
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

/** In the page: a picture's sentence, and its query vectors with all words. */
async function asked({ name, words }) {
  const picture = await (await fetch(`/pictures/${name}`)).blob();
  const sentence = await encoder.encodeSentence(picture);
  const queries = [];
  for (const text of words) queries.push(Array.from(await encoder.encodeQuery(sentence, text)));
  const parts = Object.entries(sentence).map(([key, value]) => [key, Array.from(value)]);
  return { ...Object.fromEntries(parts), queries };
}

/** In the page: which files the browser keeps. */
async function kept() {
  const cache = await caches.open("image2sentence");
  return (await cache.keys()).map(({ url }) => new URL(url).pathname + new URL(url).search);
}

function agree(found, picture) {
  const width = found.dims[1];
  for (let row = 0; row < found.dims[0]; row++) {
    const [mine, theirs] = [found.tokens, picture.tokens].map((all) => all.slice(row * width, (row + 1) * width));
    assert.ok(distance(mine, theirs) < NEAR, `${picture.name}: pseudo-word ${row}: ${distance(mine, theirs)}`);
  }
  assert.ok(furthest(found.attention, picture.attention) < 1e-2, picture.name);
  assert.ok(furthest(found.gates, picture.gates) < 1e-2, picture.name);
  found.queries.forEach((query, place) => {
    const apart = Math.min(distance(query, picture.queries[place]), distance(query, picture.otherwise[place]));
    const bound = ODD[picture.name] ?? (picture.trust > 0 && picture.trust < 1 ? BETWEEN : COMPOSED);
    assert.ok(apart < bound, `${picture.name} with ${expected.words[place]}: ${apart}`);
    assert.ok(Math.abs(Math.hypot(...query) - 1) < 1e-5);
  });
}

for (const options of [{ worker: true, threads: 2 }, { worker: false, threads: 1 }]) {
  test(`sentences and query vectors are Python's, with ${JSON.stringify(options)}`, async () => {
    const page = await loaded(options);
    for (const picture of options.worker ? expected.pictures : expected.pictures.slice(0, 3)) {
      agree(await page.evaluate(asked, { name: picture.name, words: expected.words }), picture);
    }
  });
}

test("words alone, several pictures, unknown words", async () => {
  const page = await loaded({ worker: true });
  const found = await page.evaluate(async ({ texts, mixtures }) => {
    const files = await Promise.all(["plain.png", "photo.jpg"].map((name) => fetch(`/pictures/${name}`)));
    const pictures = await Promise.all(files.map((file) => file.blob()));
    return {
      plain: await Promise.all(texts.map(async (text) => Array.from(await encoder.encodeQuery(null, text)))),
      composed: await Promise.all(
        mixtures.map(async (options) => Array.from(await encoder.compose(pictures, "in red", options))),
      ),
      unknown: await encoder.unknownWords("Periwinkle red, xyzzy"),
      near: await encoder.notUnderstood("purpel"),
      config: encoder.config.width,
    };
  }, { texts: expected.texts, mixtures: expected.composed.map(({ options }) => options) });
  found.plain.forEach((vector, place) => assert.ok(distance(vector, expected.text_queries[place]) < NEAR));
  expected.composed.forEach(({ vector }, place) => {
    const apart = distance(found.composed[place], vector);
    assert.ok(apart < COMPOSED, `composed ${place}: ${apart}`);
  });
  assert.deepEqual(found.unknown, ["Periwinkle", "xyzzy"]);
  assert.equal(found.near[0].near[0], "purple");
  assert.equal(found.config, found.composed[0].length);
});

test("muted pseudo-words do not count", async () => {
  const page = await loaded();
  const found = await page.evaluate(async () => {
    const picture = await (await fetch("/pictures/plain.png")).blob();
    const { tokens, dims } = await encoder.encodeSentence(picture);
    return Array.from(await encoder.encodeQuery({ tokens: tokens.slice(dims[1]), dims: [dims[0] - 1, dims[1]] }, "in red"));
  });
  assert.ok(distance(found, expected.without_first) < NEAR);
});

test("bytes, ImageData and ImageBitmap are pictures too", async () => {
  const page = await loaded();
  const found = await page.evaluate(async () => {
    const blob = await (await fetch("/pictures/alpha.png")).blob();
    const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none" });
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const pictures = [await blob.arrayBuffer(), new Uint8Array(await blob.arrayBuffer()), pixels, bitmap];
    return Promise.all(pictures.map(async (one) => Array.from((await encoder.encodeSentence(one)).tokens)));
  });
  const { tokens } = expected.pictures.find(({ name }) => name === "alpha.png");
  for (const one of found) assert.ok(distance(one, tokens) < NEAR);
});

test("questions asked at once do not disturb each other", async () => {
  for (const worker of [true, false]) {
    const page = await loaded({ worker });
    const same = await page.evaluate(async () => {
      const words = ["in red", "blue", "with long sleeves", "a dress"];
      const together = await Promise.all(words.map((text) => encoder.encodeQuery(null, text)));
      const alone = [];
      for (const text of words) alone.push(await encoder.encodeQuery(null, text));
      return String(together) === String(alone);
    });
    assert.ok(same);
  }
});

test("the runtime has threads where the page is isolated, and works where it is not", async (t) => {
  const plain = await serving(t, { headers: {} });
  const page = await loaded({ worker: true }, plain.origin);
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  agree(await page.evaluate(asked, { name: "plain.png", words: expected.words }), expected.pictures[0]);
  assert.equal(await (await loaded()).evaluate(() => crossOriginIsolated), true);
});

test("the README's snippet runs", async () => {
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const snippet = /```js\n(.*?)```/s.exec(text)[1].replace('"image2sentence"', '"/src/index.js"');
  const page = await browser.page(server.origin);
  const vector = await page.evaluate(async (code) => {
    document.body.innerHTML = '<input type="file">';
    const drop = new DataTransfer();
    drop.items.add(new File([await (await fetch("/pictures/photo.jpg")).blob()], "photo.jpg"));
    document.querySelector("input").files = drop.files;
    const module = new Blob([`${code.replaceAll('"/', `"${location.origin}/`)}\nexport { vector };`], { type: "text/javascript" });
    return Array.from((await import(URL.createObjectURL(module))).vector);
  }, snippet);
  const { queries } = expected.pictures.find(({ name }) => name === "photo.jpg");
  assert.ok(distance(vector, queries[expected.words.indexOf("in red")]) < NEAR);
});

// ---- loading: progress, keeping, errors ----

test("progress is reported for each file, and the second load comes from the cache", async () => {
  const page = await browser.page(server.origin);
  const sizes = Object.fromEntries(
    ["config.json", "tokenizer.json", "onnx/query_image.onnx", "onnx/query_text.onnx"].map((name) => [
      name,
      readFileSync(join(folders()["/model/"], name)).length,
    ]),
  );
  for (const cached of [false, true]) {
    const requests = server.asked.length;
    const reports = await page.evaluate(load, { worker: cached });
    for (const [file, size] of Object.entries(sizes)) {
      const mine = reports.filter((one) => one.file === file);
      assert.deepEqual(mine.at(-1), { file, loaded: size, total: size, cached: cached && file !== "config.json" });
      assert.deepEqual(mine.map(({ loaded }) => loaded), mine.map(({ loaded }) => loaded).sort((a, b) => a - b));
    }
    const graphs = server.asked.slice(requests).filter((url) => url.endsWith(".onnx"));
    assert.equal(graphs.length, cached ? 0 : 2);
  }
});

test("nothing is kept where it is not wanted", async () => {
  const page = await loaded({ cache: false });
  assert.deepEqual(await page.evaluate(kept), []);
});

test("without network, what was kept is used", async (t) => {
  const away = await serving(t);
  const page = await loaded({}, away.origin);
  await away.close();
  // The module itself is still in the page.
  const reports = await page.evaluate(load, {});
  assert.ok(reports.every(({ cached }) => cached));
  await page.evaluate(async () => (await caches.delete("image2sentence")));
  assert.match(await page.evaluate(refusal), /^ModelError: .*config\.json cannot be reached: .*offline/);
});

test("a new version is fetched anew, and the old one forgotten", async (t) => {
  let changed = false;
  const other = await serving(t, {
    intercept: changing({ "/model/tokenizer.json": (bytes) => Buffer.concat([bytes, Buffer.from("\n")]) }, () => changed),
  });
  const page = await loaded({}, other.origin);
  const first = await page.evaluate(kept);
  changed = true;
  const reports = await page.evaluate(load, {});
  assert.deepEqual(
    [...new Set(reports.filter(({ cached }) => !cached).map(({ file }) => file))].sort(),
    ["config.json", "tokenizer.json"],
  );
  const second = await page.evaluate(kept);
  assert.equal(second.length, first.length);
  assert.equal(second.filter((key) => !first.includes(key)).length, 1);
});

test("a kept file that was damaged is fetched again", async () => {
  const page = await loaded();
  await page.evaluate(async (key) => {
    const cache = await caches.open("image2sentence");
    await cache.put(key, new Response("broken"));
  }, (await page.evaluate(kept)).find((key) => key.startsWith(GRAPH)));
  const reports = await page.evaluate(load, {});
  assert.equal(reports.filter(({ file }) => file === "onnx/query_text.onnx").at(-1).cached, false);
});

/** Answers with changed files, and with a config that has their checksums. */
function changing(changes, when = () => true) {
  return (path, request, response) => {
    if (!when() || !(path in changes || path === "/model/config.json")) return false;
    const read = (at) => readFileSync(join(folders()["/model/"], at.slice("/model/".length)));
    if (path in changes) return Boolean(response.writeHead(200).end(changes[path](read(path))));
    const config = JSON.parse(read(path));
    for (const [at, change] of Object.entries(changes)) {
      config.files[at.slice("/model/".length)] = createHash("sha256").update(change(read(at))).digest("hex");
    }
    return Boolean(response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(config)));
  };
}

/** Answers one path with this. */
const answering = (at, status, headers, body) => (path, request, response) =>
  path === at && Boolean(response.writeHead(status, headers).end(body));

/** Answers with a part of a file, and hangs up. */
const cutting = (at, headers) => (path, request, response) => {
  if (path !== at) return false;
  response.writeHead(200, headers);
  response.write(Buffer.alloc(100_000));
  setTimeout(() => (headers["Content-Length"] ? response.destroy() : response.end()), 100);
  return true;
};

const tokenizerWith = (change) => (bytes) => {
  const settings = JSON.parse(bytes);
  change(settings);
  return JSON.stringify(settings);
};

const REFUSED = {
  "a missing folder": [answering("/model/config.json", 404, {}, ""), /config\.json: expected .* answered 404/],
  "a page in its place": [
    answering("/model/config.json", 200, { "Content-Type": "text/html; charset=utf-8" }, "<html>"),
    /expected a model's config\.json, got a page \(text\/html/,
  ],
  "a config that is no JSON": [answering("/model/config.json", 200, {}, "{"), /config\.json is not readable JSON/],
  "a newer format": [answering("/model/config.json", 200, {}, '{"format": 99}'), /format 99, this version reads format 1/],
  "a missing graph": [answering(GRAPH, 404, {}, ""), /query_text\.onnx: expected .* answered 404/],
  "a page instead of a graph": [
    answering(GRAPH, 200, { "Content-Type": "text/html" }, "<html>"),
    /query_text\.onnx.*got a page/,
  ],
  "a download cut short": [cutting(GRAPH, { "Content-Length": "3122189" }), /query_text\.onnx: the download stopped after \d+ of 3122189 bytes/],
  "a download cut short unnoticed": [cutting(GRAPH, {}), /query_text\.onnx is damaged, cut short .* 100000 bytes/],
  "a damaged file": [answering("/model/tokenizer.json", 200, {}, "{}"), /tokenizer\.json is damaged/],
  "a graph that is none": [changing({ [GRAPH]: () => "no graph" }), /onnxruntime-web cannot load .*query_text\.onnx/],
  "another tokenizer": [
    changing({ "/model/tokenizer.json": tokenizerWith((settings) => (settings.model.type = "BPE")) }),
    /browsers read WordPiece .*; this one is BPE/,
  ],
  "a missing runtime": [answering("/runtime/ort.wasm.bundle.min.mjs", 404, {}, ""), /ort\.wasm\.bundle\.min\.mjs cannot be loaded/],
};

for (const [what, [intercept, says]] of Object.entries(REFUSED)) {
  test(`refused: ${what}`, async (t) => {
    const other = await serving(t, { intercept });
    for (const worker of [false, true]) {
      const page = await browser.page(other.origin);
      const said = await page.evaluate(refusal, { worker });
      assert.match(said, /^ModelError: /);
      assert.match(said, says);
      const arrived = ["a graph that is none", "another tokenizer", "a missing runtime"].includes(what);
      if (!arrived) assert.ok(!(await page.evaluate(kept)).includes("/model/config.json"));
    }
  });
}

test("refused: a page that is not secure", async () => {
  const page = await browser.page(server.origin.replace("127.0.0.1", "insecure.test"));
  assert.match(await page.evaluate(refusal), /^ModelError: browsers check files only in a secure context/);
});

test("refused: threads of no sense, and a module for a worker", async () => {
  const page = await browser.page(server.origin);
  assert.match(await page.evaluate(refusal, { threads: 0 }), /^ConfigError: threads: expected/);
  const said = await page.evaluate(async () => {
    const { loadEncoder } = await import("/src/index.js");
    return loadEncoder("/model/", { worker: true, runtime: { InferenceSession: {} } }).catch(String);
  });
  assert.match(said, /^ConfigError: a worker loads its own runtime/);
});

test("without a runtime and a bundler, the error says what to give", async () => {
  for (const worker of [false, true]) {
    const page = await browser.page(server.origin);
    const said = await page.evaluate(refusal, { worker, runtime: undefined });
    assert.match(said, /^ModelError: onnxruntime-web is not there \(.*\): give `runtime`, .* or use a bundler that finds onnxruntime-web$/);
  }
});

test("the addresses of model and runtime may lack their slash", async () => {
  for (const worker of [false, true]) {
    const page = await browser.page(server.origin);
    assert.equal(await page.evaluate(refusal, { address: "/model", runtime: "/runtime", worker }), "");
  }
});

test("loading can be stopped", async (t) => {
  const slow = await serving(t, { intercept: (path) => path === GRAPH });
  for (const worker of [false, true]) {
    const page = await browser.page(slow.origin);
    const name = await page.evaluate(async (inWorker) => {
      const { loadEncoder } = await import("/src/index.js");
      const stop = new AbortController();
      const progress = ({ file }) => file === "onnx/query_image.onnx" && stop.abort();
      const options = { runtime: "/runtime/", worker: inWorker, signal: stop.signal, progress };
      return loadEncoder("/model/", options).catch((error) => error.name);
    }, worker);
    assert.equal(name, "AbortError");
  }
});

// ---- questions that cannot be answered ----

for (const worker of [false, true]) {
  test(`what cannot be asked is refused by name${worker ? ", through a worker too" : ""}`, async () => {
    const page = await loaded({ worker });
    const said = await page.evaluate(async () => {
      const { QueryError, ImageError } = await import("/src/index.js");
      const half = (whole) => whole.slice(0, whole.byteLength / 2);
      const cut = half(await (await fetch("/pictures/photo.jpg")).arrayBuffer());
      const sentence = { tokens: new Float32Array(4), dims: [2, 2] };
      const tries = [
        () => encoder.encodeQuery(null, " \u0085"),
        () => encoder.compose([], ""),
        () => encoder.compose([], "red", { weights: [1] }),
        () => encoder.compose([], "red", { balance: 2 }),
        () => encoder.encodeQuery(null, "red ".repeat(500)),
        () => encoder.encodeQuery(sentence, "red"),
        () => encoder.encodeSentence(new Blob(["no picture"])),
        () => encoder.encodeSentence(new Blob([])),
        () => encoder.encodeSentence(new Blob([cut])),
        () => encoder.encodeSentence("photo.jpg"),
      ];
      const errors = [];
      for (const one of tries) errors.push(await one().then(() => null, (error) => error));
      return errors.map((error) => [error instanceof QueryError || error instanceof ImageError, String(error)]);
    });
    const expectedErrors = [
      /^QueryError: expected a picture, words, or both; got neither/,
      /^QueryError: expected a picture, words, or both; got neither/,
      /^QueryError: expected a positive weight for each of 0 pictures, got \[1\]/,
      /^QueryError: expected a balance from 0 .* got 2/,
      /^QueryError: the words are too long: 502 tokens, room for 64; shorten "red red/,
      /^QueryError: expected a sentence of shape 1 to 4 x 256, got 2 x 2/,
      /^ImageError: the file is damaged, or not of a format/,
      /^ImageError: the file is empty/,
      /^ImageError: the file is damaged/,
      /^ImageError: expected a picture as Blob or File.*String/,
    ];
    expectedErrors.forEach((says, place) => {
      assert.match(said[place][1], says);
      assert.ok(said[place][0], said[place][1]);
    });
  });
}

for (const worker of [false, true]) {
  test(`an element of the page is no picture${worker ? ", through a worker too" : ""}`, async () => {
    const page = await loaded({ worker });
    const said = await page.evaluate(async () => {
      const { ImageError } = await import("/src/index.js");
      const picture = await (await fetch("/pictures/plain.png")).blob();
      const tries = [
        () => encoder.encodeSentence(new Image()),
        () => encoder.compose([picture, new Image()], "in red"),
        () => encoder.encodeSentence(() => picture),
      ];
      const errors = [];
      for (const one of tries) errors.push(await one().then(() => null, (error) => error));
      return errors.map((error) => [error instanceof ImageError, String(error)]);
    });
    const got = ["HTMLImageElement", "HTMLImageElement", "Function"];
    got.forEach((name, place) => {
      assert.match(said[place][1], new RegExp(`^ImageError: expected a picture as Blob or File.*${name}`));
      assert.ok(said[place][0]);
    });
  });

  test(`a released encoder answers no more${worker ? ", nor does a worker" : ""}`, async () => {
    const page = await loaded({ worker });
    const said = await page.evaluate(async () => {
      const picture = await (await fetch("/pictures/plain.png")).blob();
      const sentence = await encoder.encodeSentence(picture);
      const late = encoder.encodeSentence(picture).catch(String);
      await Promise.all([encoder.release(), encoder.release()]);
      await encoder.release();
      const tries = [
        encoder.encodeSentence(picture),
        encoder.encodeQuery(sentence, "red"),
        encoder.encodeQuery(null, "red"),
        encoder.compose([picture], "red"),
        encoder.unknownWords("red"),
        encoder.notUnderstood("red"),
      ];
      return Promise.all([late, ...tries.map((one) => one.catch(String))]);
    });
    assert.equal(said.length, 7);
    for (const one of said) assert.match(String(one), /^ModelError: the encoder has been released/);
  });
}

test("what is under way when a local encoder is released is answered", async () => {
  const page = await loaded();
  const found = await page.evaluate(async () => {
    const under = encoder.encodeQuery(null, "in red");
    await encoder.release();
    return Array.from(await under);
  });
  assert.ok(distance(found, expected.text_queries[expected.texts.indexOf("in red")]) < NEAR);
});
