// Pictures of other sites, by their addresses: fetched by the server, from the hosts that its owner allows.

import { postForFile } from "./api.js";
import { $ } from "./dom.js";

let hosts = [];
let take = () => {};

// `taken` is called with the promise of a picture's file; `allowed` are hosts.
export function offerAddresses(allowed, taken) {
  [hosts, take] = [allowed, taken];
  $("address-form").hidden = !hosts.length;
  $("address").title = `Of a picture at ${hosts.join(", ")}`;
}

// Whether something dragged or pasted names a picture of these hosts, which is then taken.
export function takesAddress(data) {
  const address = (data.getData("text/uri-list") || data.getData("text/plain")).split(/[\r\n]+/).find((line) => line && !line.startsWith("#"))?.trim();
  const known = isKnown(address);
  if (known) take(fetched(address));
  return known;
}

function isKnown(address) {
  return URL.canParse(address) && new URL(address).protocol === "https:" && hosts.includes(new URL(address).hostname);
}

async function fetched(address) {
  const name = new URL(address).pathname.split("/").pop() || "picture";
  return new File([await postForFile("v1/fetch", { url: address })], name);
}

$("address-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = $("address").value.trim();
  if (URL.canParse(address)) take(fetched(address)); // the server says which addresses it does not take
});
