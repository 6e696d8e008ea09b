// Searches that are kept under a name in this browser, and the menu of them.

import { $, element, remember, remembered, unseen } from "./dom.js";
import { forgetPictures } from "./own.js";
import { readAddress, references } from "./steps.js";

const MOST = 50;
const here = () => localStorage;
const menu = $("saved");

// open(address), suggested(): a name for the current search, address(): the current one's, told(what), forgotten().
let actions = {};

export function whenSaved(given) {
  actions = given;
}

function read() {
  try {
    const kept = JSON.parse(remembered("searches", here) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.name === "string" && typeof one?.address === "string") : [];
  } catch {
    return [];
  }
}

function write(searches) {
  remember("searches", JSON.stringify(searches.slice(0, MOST)), here);
  draw();
}

// Names of pictures of one's own that saved searches ask with.
export const savedPictures = () => read().flatMap(({ address }) => references(readAddress(address).step)).map(({ own }) => own).filter(Boolean);

function draw() {
  const searches = read();
  $("saved-none").hidden = searches.length > 0;
  $("saved-list").replaceChildren(...searches.map(entry));
}

function entry({ name, address }) {
  const open = element("button", { type: "button", className: "name", textContent: name });
  open.addEventListener("click", () => {
    menu.open = false;
    actions.open(address);
  });
  const gone = element("button", { type: "button", className: "gone", textContent: "×" }, unseen(` Forget ${name}`));
  gone.addEventListener("click", () => {
    write(read().filter((one) => one.name !== name));
    $("saved-name").focus();
  });
  return element("li", {}, open, gone);
}

menu.addEventListener("toggle", () => {
  if (!menu.open) return;
  $("saved-name").value = actions.suggested();
  draw();
});
menu.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !menu.open) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
document.addEventListener("click", ({ target }) => {
  if (menu.open && !menu.contains(target) && target.isConnected) menu.open = false;
});
$("saved-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("saved-name").value.trim();
  if (!name) return;
  write([{ name, address: actions.address() }, ...read().filter((one) => one.name !== name)]);
  actions.told(`Saved in this browser as “${name}”.`);
});
$("saved-forget").addEventListener("click", async () => {
  await forgetPictures();
  actions.told("The pictures of your own that this browser kept are gone.");
});
