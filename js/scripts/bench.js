// Milliseconds in a headless Chromium, and how far vectors are from expected ones, as JSON: see benchmarks/server/browser.py.
//
//     node js/scripts/bench.js FOLDER THREADS ROUNDS < {"pictures": [name ...], "large": name, "words": text}

import { readFileSync } from "node:fs";
import { launch, serve } from "../test/page.js";

const [folder, threads, rounds] = process.argv.slice(2);
const asked = JSON.parse(readFileSync(0, "utf8"));

/** In the page. */
async function measure({ pictures, large, words, threads, rounds }) {
  const [{ loadEncoder }, { readPicture }, { toPixels }] = await Promise.all(
    ["index", "picture", "preprocess"].map((name) => import(`/src/${name}.js`)),
  );
  const spent = async (action) => {
    const start = performance.now();
    const result = await action();
    return [performance.now() - start, result];
  };
  const median = async (action) => {
    const times = [];
    for (let round = 0; round < rounds; round++) times.push((await spent(action))[0]);
    return times.sort((a, b) => a - b)[rounds >> 1];
  };
  const blob = async (name) => (await fetch(`/pictures/${name}`)).blob();
  const load = () => loadEncoder("/model/", { runtime: "/runtime/", threads });

  const [first, encoder] = await spent(load);
  const photo = await blob(pictures[0]);
  const [cold, sentence] = await spent(() => encoder.encodeSentence(photo));
  const [coldWords] = await spent(() => encoder.encodeQuery(sentence, words));
  for (let round = 0; round < 20; round++) await encoder.encodeQuery(await encoder.encodeSentence(photo), words);

  const how = encoder.config.query_preprocessing;
  const pixels = await readPicture(photo);
  const image = new ImageData(pixels.data, pixels.width, pixels.height);
  const big = await blob(large);
  return {
    threads: crossOriginIsolated ? threads : 1,
    load_ms: first,
    load_kept_ms: (await spent(load))[0],
    first_picture_ms: cold,
    first_words_ms: coldWords,
    decode_ms: await median(() => readPicture(photo)),
    resize_ms: await median(() => toPixels(pixels, how)),
    sentence_ms: await median(() => encoder.encodeSentence(image)),
    words_ms: await median(() => encoder.encodeQuery(sentence, words)),
    query_ms: await median(async () => encoder.encodeQuery(await encoder.encodeSentence(image), words)),
    large_decode_ms: (await spent(() => readPicture(big)))[0],
    vectors: await vectors(encoder, await Promise.all(pictures.map(blob)), words),
    scaled_by_canvas: await vectors(encoder, await Promise.all((await Promise.all(pictures.map(blob))).map(scaled)), words),
  };

  async function vectors(encoder, images, words) {
    const found = [];
    for (const one of images) found.push([...(await encoder.encodeQuery(await encoder.encodeSentence(one), words))]);
    return found;
  }

  /** What most pages would do: have the canvas resize. */
  async function scaled(picture) {
    const bitmap = await createImageBitmap(picture);
    const context = new OffscreenCanvas(how.size, how.size).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, how.size, how.size);
    return context.getImageData(0, 0, how.size, how.size);
  }
}

const browser = await launch();
const server = await serve(folder);
const page = await browser.page(server.origin);
const found = await page.evaluate(measure, { ...asked, threads: Number(threads), rounds: Number(rounds) });
console.log(JSON.stringify({ browser: browser.version, ...found }));
await browser.close();
await server.close();
