// Talking to the server: the token, requests, and patience when it is busy.

import { remember, remembered } from "./dom.js";

// Where the server is, which may be below a path prefix: this script lies in its static/.
const server = import.meta.url.slice(0, import.meta.url.lastIndexOf("/static/") + 1);

// "v1/items" as an address of the server.
export const at = (path) => server + path;

const TRIES_WHEN_BUSY = 4;
const ofThisTab = () => sessionStorage;
let token = remembered("token", ofThisTab) || "";

// What a header can hold; with anything else no request would leave the browser.
export const canBeToken = (value) => /^[\x21-\x7e]+$/.test(value);
if (!canBeToken(token)) token = "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(value) {
  token = value;
  remember("token", value, ofThisTab);
}

export const authorization = () => (token ? { Authorization: `Bearer ${token}` } : {});

// A picture of the gallery as something an <img> can show; with a token it has to be fetched.
export async function showPicture(img, address) {
  if (!token) {
    img.src = at(address);
    return;
  }
  const url = URL.createObjectURL(await fetchPicture(address));
  for (const end of ["load", "error"]) img.addEventListener(end, () => URL.revokeObjectURL(url), { once: true });
  img.src = url;
}

// Lets the browser save a file of the server's under a name.
export async function download(address, name) {
  const link = document.createElement("a");
  link.download = name;
  link.href = token ? URL.createObjectURL(await fetchPicture(address)) : at(address);
  link.click();
  if (token) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function fetchPicture(address) {
  return (await ask(address)).blob();
}

export async function get(address, fields = {}, signal = undefined) {
  return (await ask(`${address}?${new URLSearchParams(given(fields))}`, { signal })).json();
}

// `fields` as a form; of lists each entry is a field of its own. Undefined, null and "" are left out. Gives the answer
// and the bytes of what was sent.
export async function post(address, fields, signal) {
  const body = new FormData();
  for (const [name, value] of given(fields)) body.append(name, value);
  const answer = await (await ask(address, { method: "POST", body, signal })).json();
  return { answer, sent: sizeOf(body) };
}

// `fields` as JSON; gives the answer, null where there is none.
export async function postJson(address, fields = {}) {
  const answer = await ask(address, { method: "POST", body: JSON.stringify(fields), headers: { "Content-Type": "application/json" } });
  return answer.status === 204 ? null : answer.json();
}

// Posts JSON; gives the file that is answered.
export async function postForFile(address, fields) {
  const answer = await ask(address, { method: "POST", body: JSON.stringify(fields), headers: { "Content-Type": "application/json" } });
  return answer.blob();
}

function given(fields) {
  return Object.entries(fields)
    .flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, one]))
    .filter(([, value]) => value !== undefined && value !== null && value !== "");
}

// Bytes of the fields themselves, without what HTTP and the form put around them.
function sizeOf(body) {
  const size = (value) => (value instanceof Blob ? value.size : new TextEncoder().encode(value).length);
  return [...body.values()].reduce((sum, value) => sum + size(value), 0);
}

async function ask(address, options = {}) {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(at(address), { ...options, headers: { ...options.headers, ...authorization() } });
    if (answer.ok) return answer;
    if (answer.status === 429 && tries < TRIES_WHEN_BUSY) {
      await pause(Number(answer.headers.get("Retry-After")) || 1);
      options.signal?.throwIfAborted();
      continue;
    }
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error || `the server answered ${answer.status}`);
  }
}

function pause(seconds) {
  return new Promise((done) => setTimeout(done, 1000 * seconds));
}
