// How a program in TypeScript uses the module: compiled by `npm test`, never run.

import { ImageError, loadEncoder, type Progress, type QueryEncoder, type Sentence } from "../src/index.js";

const encoder: QueryEncoder = await loadEncoder(new URL("https://example.org/model/"), {
  runtime: "/runtime/",
  worker: true,
  threads: 2,
  headers: { Authorization: "Bearer token" },
  signal: new AbortController().signal,
  progress: ({ file, loaded, total, cached }: Progress) => console.log(file.length, loaded, total ?? 0, cached),
});

const sentence: Sentence = await encoder.encodeSentence(new Blob());
const vector: Float32Array = await encoder.encodeQuery(sentence, "in red");
await encoder.compose([sentence, new Uint8Array()], "in red", { weights: [1, 2], balance: 0.4 });
const [{ word, near }] = await encoder.notUnderstood("purpel");
console.log(vector, word.length, near.length, encoder.config.width + 1, await encoder.unknownWords(""));
await encoder.release();

// @ts-expect-error: an option that there is not
await loadEncoder("/model/", { gpu: true });
// @ts-expect-error: a picture is no address
await encoder.encodeSentence("photo.jpg");

const error: Error = new ImageError("damaged");
console.log(error);
