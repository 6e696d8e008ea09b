// The grid of pictures: cards, what stands there before the first ones come, and the keys that go through it.

import { showPicture } from "./api.js";
import { $, element, unseen } from "./dom.js";
import { markCard, select } from "./select.js";
import { newStep } from "./steps.js";
import { nameOf, titleOf } from "./titles.js";
import { VirtualList } from "./virtual.js";

const SKELETONS = 12;
// What a dragged result is known by; it holds the fields of the step that it starts.
export const DRAGGED = "application/x-image2sentence";

const results = $("results");
let actions = {};
const list = new VirtualList(
  results,
  (result, place) => card(result, () => actions.open(list.items, place)),
  () => element("li", { className: "skeleton" }),
);

// The place in the list of the uppermost result in sight.
export const topResult = () => list.top();

export const showFrom = (place) => list.scrollTo(place);

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

// Shows a list of `count` pictures, of which `found` are here from `offset` on; `load(offset)` gives the page there.
// `take` is called with the step that a card starts, `add` with references that join the query, `open` with all results and the place of the one to look at. Gives a
// sentence about them; "" where there is nothing.
export function fill(found, offset, count, load, { take, add, open }) {
  actions = { take, add, open };
  list.fill(found, offset, count, load);
  $("empty").hidden = count > 0;
  if (!count) return "";
  const first = found.length && !offset ? `, first: ${nameOf(found[0])}` : "";
  return `${count.toLocaleString("en")} ${count === 1 ? "picture" : "pictures"}${first}`;
}

export function clearResults() {
  list.clear();
  $("empty").hidden = true;
}

// The card of a picture gets the keyboard, where the picture is in the list.
export function focusPicture(id) {
  const at = list.items.findIndex((result) => result?.id === id);
  if (at >= 0) list.focus(at);
}

function card(result, open) {
  const img = element("img", { alt: "", width: 168, height: 168 });
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
  const does = unseen(". Look closer");
  does.classList.add("does");
  look.append(lines, does);
  const use = element("button", { type: "button", className: "use", title: "Use as reference; with Shift, add to the query" }, useIcon(), unseen(`Use ${name} as reference`));
  use.addEventListener("click", ({ shiftKey }) => (shiftKey ? actions.add([{ item: result.id, title }]) : actions.take(newStep({ item: result.id, title }))));
  const whole = element("li", { draggable: true }, look, use);
  look.addEventListener("click", () => select(result, whole) || open());
  markCard(whole, result);
  whole.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, JSON.stringify({ item: result.id, title }));
    event.dataTransfer.setDragImage(img, 24, 24);
  });
  return whole;
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

function scoreLine(result) {
  const word = fitWord(result);
  const fit = element("span", { title: scores(result) }, unseen(word ? ", " : ", score "), word ?? rounded(result.score));
  if (word) fit.append(fitBar(result, word));
  return element("span", { className: "score" }, element("span", {}, unseen(", result "), `${result.rank}`), fit);
}

const SHORTEST = 0.04;
const NEAR = 0.5; // of the fit from which a result fits

// How well a result fits, in a word; undefined in galleries too small to tell.
export function fitWord({ fit, fitsFrom }) {
  if (typeof fit !== "number") return undefined;
  return fit >= fitsFrom ? "fits" : fit >= NEAR * fitsFrom ? "near" : "far";
}

// A result's figures, for those who ask for them.
export function scores({ fit, score }) {
  return [typeof fit === "number" && `fit ${fit.toFixed(1)}`, `score ${rounded(score)}`].filter(Boolean).join(", ");
}

// Half full where a result just fits, and full for the best, where that is more than twice as much.
function fitBar({ fit, fitsFrom, bestFit }, word) {
  const bar = element("i", { className: `fit ${word}` });
  bar.setAttribute("aria-hidden", "true");
  bar.style.setProperty("--fit", Math.max(SHORTEST, Math.min(1, fit <= fitsFrom ? (NEAR * fit) / fitsFrom : NEAR + ((1 - NEAR) * (fit - fitsFrom)) / Math.max(bestFit - fitsFrom, fitsFrom))));
  return bar;
}

// Three digits, and never "-0.000".
export function rounded(score) {
  return (Math.round(1000 * score) / 1000 || 0).toFixed(3);
}

results.addEventListener("keydown", (event) => {
  const inside = event.target === results || event.target.closest("li");
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -list.columns, ArrowDown: list.columns }[event.key];
  const next = list.here + (move ?? 0);
  if (!inside || !move || next < 0 || next >= list.length || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  list.focus(next);
});
