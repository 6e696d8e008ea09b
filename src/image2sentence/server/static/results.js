// The grid of pictures: cards, what stands there before the first ones come, and the keys that go through it.

import { showPicture } from "./api.js";
import { $, element, unseen } from "./dom.js";
import { newStep } from "./steps.js";

const SKELETONS = 12;
const TITLES = ["title", "name", "caption", "label"];

const results = $("results");
let count = 0;

// How many pictures of the current query are shown.
export const shown = () => count;

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

// Shows what was found, after the first `offset` that are there. `take` is called with the step that a card starts.
// Gives a sentence about it; "" where there is nothing at all.
export function fill(found, offset, more, take) {
  const cards = found.map((result) => card(result, take));
  if (offset) results.append(...cards);
  else results.replaceChildren(...cards);
  count = offset + found.length;
  $("more").hidden = !more;
  $("empty").hidden = count > 0;
  if (!count) return "";
  const first = found.length ? titleOf(found[0]) : undefined;
  return `${count} ${count === 1 ? "picture" : "pictures"} shown${first && !offset ? `, first: ${first}` : ""}`;
}

export function clearResults() {
  results.replaceChildren();
  count = 0;
  $("more").hidden = true;
  $("empty").hidden = true;
}

export function focusResult(place) {
  results.children[place]?.firstElementChild.focus({ preventScroll: true });
}

function card(result, take) {
  const img = element("img", { alt: "", loading: "lazy", width: 168, height: 168 });
  const button = element("button", { type: "button" }, img);
  const missing = () => button.classList.add("missing");
  img.addEventListener("error", missing);
  showPicture(img, `v1/items/${result.id}/thumbnail`).catch(missing);
  const title = titleOf(result);
  const lines = element("span", { className: "caption" });
  if (title) lines.append(element("span", { className: "name", textContent: title, title }));
  if (result.score !== undefined) lines.append(scoreLine(result));
  if (lines.children.length) button.append(lines);
  button.append(unseen(`${title ? "" : `, picture ${result.id}`}. Take as reference`));
  button.addEventListener("click", () => take(newStep({ item: result.id, title })));
  return element("li", {}, button);
}

function scoreLine({ rank, score }) {
  return element("span", { className: "score" }, element("span", {}, unseen(", result "), `${rank}`), element("span", {}, unseen(", score "), rounded(score)));
}

const titleOf = ({ metadata }) => TITLES.map((name) => metadata[name]).find((value) => typeof value === "string" && value);

// Three digits, and never "-0.000".
function rounded(score) {
  return (Math.round(1000 * score) / 1000 || 0).toFixed(3);
}

results.addEventListener("keydown", (event) => {
  const cards = [...results.querySelectorAll("button")];
  const here = cards.indexOf(event.target);
  const columns = getComputedStyle(results).gridTemplateColumns.split(" ").length;
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = here < 0 || !move ? undefined : cards[here + move];
  if (!next) return;
  event.preventDefault();
  next.focus();
});
