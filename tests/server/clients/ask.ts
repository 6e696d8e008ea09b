// Asks a server with the types that openapi-typescript made; run by tests/server/test_generated_clients.py.
//
// node ask.js ADDRESS TOKEN PICTURE

import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [address, token, picture] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: address, headers: { Authorization: `Bearer ${token}` } });

type Form = components["schemas"]["SearchForm"];

// A form repeats a field for each value of a list.
function form(fields: Form, file: Blob): FormData {
  const made = new FormData();
  made.append("picture", file, "photo.png");
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) made.append(name, String(one));
  }
  return made;
}

const file = new Blob([await readFile(picture)]);
const withFile = await client.POST("/v1/search", {
  body: { text: "in red", not_text: ["blue", "dots"], k: 3 },
  bodySerializer: (body) => form(body, file),
});
if (withFile.error) throw new Error(withFile.error.error);
const first = withFile.data.results[0]!.id;
const withItem = await client.POST("/v1/search/json", { body: { item: first, text: "in red", not_item: [], k: 3 } });
if (withItem.error) throw new Error(withItem.error.error);
const refused = await client.POST("/v1/search/json", { body: { item: 999_999 } });
if (!refused.error) throw new Error("an unknown item was found");
const small = await client.GET("/v1/items/{number}/thumbnail", {
  params: { path: { number: first } },
  parseAs: "arrayBuffer",
});
if (small.error) throw new Error(small.error.error);
const answers = {
  form: withFile.data.results.map((one) => one.id),
  json: withItem.data.results.map((one) => one.id),
  sentence: withFile.data.sentence,
  refused: refused.error.error,
  thumbnail: Buffer.from(small.data as ArrayBuffer).subarray(0, 3).toString("hex"),
};
console.log(JSON.stringify(answers));
