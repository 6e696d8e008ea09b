// Several pictures in one query: each with its weight, a way to look at it closely, and one to take it out.

import { showPicture } from "./api.js";
import { $, element, unseen } from "./dom.js";
import { MAX_REFERENCES, hasReference, lookedAt, references } from "./steps.js";

// Places of the slider, as powers of two.
const LIGHTEST = -2, HEAVIEST = 2;
const SAID = { 0.25: "a quarter", 0.5: "half", 1: "once", 2: "twice", 4: "four times" };
let drawn = [];

// `weigh` is called when a weight has been changed, `look` and `drop` with the place of a reference, 0 for the step's own.
export function showReferences(one, { weigh, look, drop }) {
  const all = hasReference(one) ? references(one) : [];
  $("also-row").hidden = !all.length;
  $("add-also").hidden = all.length >= MAX_REFERENCES;
  const shown = all.length > 1 ? all : [];
  if (shown.length !== drawn.length || !shown.every((reference, at) => reference === drawn[at])) {
    drawn = shown;
    $("also").replaceChildren(...shown.map((reference, at) => entry(reference, at, { weigh, look, drop })));
  }
  const at = all.indexOf(lookedAt(one));
  $("reads-as").textContent = shown.length ? `Picture ${at + 1} reads as` : "Reads as";
  $("looked-at").textContent = `What the model looked at${shown.length ? ` in picture ${at + 1}` : ""}`;
  $("also").querySelectorAll(".look").forEach((button, place) => button.setAttribute("aria-pressed", String(place === at)));
}

// Draws one's pictures and the gallery's alike.
export function showSmall(img, { file, url, item }) {
  if (file) img.src = url;
  else showPicture(img, `v1/items/${item}/thumbnail`).catch(() => {});
}

function entry(reference, at, { weigh, look, drop }) {
  const name = `picture ${at + 1}${reference.title ? `, ${reference.title}` : ""}`;
  const img = element("img", { alt: "", width: 34, height: 34 });
  showSmall(img, reference);
  const close = element("button", { type: "button", className: "look", title: "What the model looked at in it" }, img, unseen(`Look closely at ${name}`));
  close.addEventListener("click", () => look(at));
  const gone = element("button", { type: "button", className: "gone", title: "Take out" }, element("span", { textContent: "×" }), unseen(`Take out ${name}`));
  gone.firstElementChild.setAttribute("aria-hidden", "true");
  gone.addEventListener("click", () => {
    drop(at);
    const left = $("also").querySelectorAll(".gone");
    (left[Math.min(at, left.length - 1)] ?? $("also-file")).focus();
  });
  return element("li", { title: reference.title ?? "" }, close, slider(reference, name, weigh), gone);
}

function slider(reference, name, weigh) {
  const range = element("input", { type: "range", min: LIGHTEST, max: HEAVIEST, step: 1, value: Math.round(Math.log2(reference.weight)) });
  range.setAttribute("aria-label", `Weight of ${name}`);
  const shown = element("output", { textContent: times(reference.weight) });
  shown.setAttribute("aria-hidden", "true");
  range.setAttribute("aria-valuetext", inWords(reference.weight));
  range.addEventListener("input", () => {
    reference.weight = 2 ** Number(range.value);
    range.setAttribute("aria-valuetext", inWords(reference.weight));
    shown.textContent = times(reference.weight);
    weigh();
  });
  return element("span", { className: "weight" }, range, shown);
}

const inWords = (weight) => `counts ${SAID[weight] ?? `${weight} times`}`;
const times = (weight) => `×\u202f${{ 0.25: "¼", 0.5: "½" }[weight] ?? Number(weight.toFixed(2))}`;
