// The grid of pictures: cards, what stands there before the first ones come, and the keys that go through it.

import { showPicture } from "./api.js";
import { $, element, unseen } from "./dom.js";
import { newStep } from "./steps.js";
import { nameOf, titleOf } from "./titles.js";

const SKELETONS = 12;

const results = $("results");
let all = [];

// How many pictures of the current query are shown.
export const shown = () => all.length;

// Shapes of cards while the first results are on their way; later ones keep the old results, faded.
export function waitForResults() {
  results.setAttribute("aria-busy", "true");
  if (results.children.length) return;
  $("empty").hidden = true;
  results.replaceChildren(...Array.from({ length: SKELETONS }, () => element("li", { className: "skeleton" })));
}

export function endWaiting() {
  results.removeAttribute("aria-busy");
}

// Shows what was found, after the first `offset` that are there. `take` is called with the step that a card starts,
// `open` with all results and the place of the one to look at. Gives a sentence about them; "" where there is nothing.
export function fill(found, offset, more, { take, open }) {
  all = offset ? [...all.slice(0, offset), ...found] : found;
  const cards = found.map((result, place) => card(result, take, () => open(all, offset + place)));
  if (offset) results.append(...cards);
  else results.replaceChildren(...cards);
  $("more").hidden = !more;
  $("empty").hidden = all.length > 0;
  if (!all.length) return "";
  const first = found.length && !offset ? `, first: ${nameOf(found[0])}` : "";
  return `${all.length} ${all.length === 1 ? "picture" : "pictures"} shown${first}`;
}

export function clearResults() {
  results.replaceChildren();
  all = [];
  $("more").hidden = true;
  $("empty").hidden = true;
}

export function focusResult(place) {
  results.children[place]?.firstElementChild.focus({ preventScroll: true });
}

// The card of a picture gets the keyboard, where the picture is shown.
export function focusPicture(id) {
  const at = all.findIndex((result) => result.id === id);
  if (at >= 0) focusResult(at);
}

function card(result, take, open) {
  const img = element("img", { alt: "", loading: "lazy", width: 168, height: 168 });
  const look = element("button", { type: "button", className: "open" }, img);
  const missing = () => {
    if (look.classList.contains("missing")) return;
    look.classList.add("missing");
    img.after(element("span", { className: "gone", textContent: "cannot be shown any more" }));
  };
  img.addEventListener("error", missing);
  showPicture(img, `v1/items/${result.id}/thumbnail`).catch(missing);
  const title = titleOf(result);
  const name = nameOf(result);
  const lines = element("span", { className: "caption" }, element("span", { className: title ? "name" : "name file", textContent: name, title: name }));
  if (result.score !== undefined) lines.append(scoreLine(result));
  look.append(lines, unseen(". Look closer"));
  look.addEventListener("click", open);
  const use = element("button", { type: "button", className: "use", title: "Use as reference" }, useIcon(), unseen(`Use ${name} as reference`));
  use.addEventListener("click", () => take(newStep({ item: result.id, title })));
  return element("li", {}, look, use);
}

// Up to where the reference is.
function useIcon() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M18 18L6.5 6.5M6.5 15V6.5H15");
  svg.append(path);
  return svg;
}

function scoreLine({ rank, score }) {
  return element("span", { className: "score" }, element("span", {}, unseen(", result "), `${rank}`), element("span", {}, unseen(", score "), rounded(score)));
}

// Three digits, and never "-0.000".
export function rounded(score) {
  return (Math.round(1000 * score) / 1000 || 0).toFixed(3);
}

results.addEventListener("keydown", (event) => {
  const cards = [...results.querySelectorAll(".open")];
  const here = cards.indexOf(event.target.parentElement?.querySelector(":scope > .open"));
  const columns = getComputedStyle(results).gridTemplateColumns.split(" ").length;
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = here < 0 || !move ? undefined : cards[here + move];
  if (!next) return;
  event.preventDefault();
  next.focus();
});
