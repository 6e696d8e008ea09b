// Why: what the picture's sentence reads as, what each pseudo-word adds and looks at, and switching it off.

import { $, element, unseen } from "./dom.js";
import { drawHeat } from "./heat.js";

const FULLY_USED = 0.995;
const heat = $("heat");

export function hideWhy() {
  heat.classList.remove("on");
  $("sentence").hidden = true;
}

// While another picture is read, nothing of the last one is shown.
export function waitForWhy() {
  heat.classList.remove("on");
  $("reads").hidden = true;
  $("pseudo").replaceChildren();
  $("sentence").hidden = false;
}

// `phrases`: { word }, those the whole sentence is near to, if any; `words`: { attention, gate, adds }; `muted`: numbers
// switched off; `changed` is given the new ones, null where none can be.
export function showWhy(phrases, words, region, muted, changed) {
  $("may-switch").hidden = !changed;
  const gated = words.some(({ gate }) => gate < FULLY_USED);
  $("reads").hidden = !phrases.length;
  $("reads").lastElementChild.textContent = phrases.map(({ word }) => word).join(", ");
  $("pseudo").replaceChildren(...words.map((word, place) => entry(word, place + 1, region, gated, muted, changed)));
  if (changed && muted.length) $("closer").open = true; // what is switched off is in sight
  $("sentence").hidden = !words.length;
}

function entry(word, number, region, gated, muted, changed) {
  const look = lookButton(word, number, region, gated);
  if (!changed) return element("div", { className: "word" }, look);
  const box = element("input", { type: "checkbox", checked: !muted.includes(number) });
  box.setAttribute("role", "switch");
  box.setAttribute("aria-label", `Use word ${number}`);
  const made = element("div", { className: "word" }, look, element("label", { className: "switch" }, box, element("span")));
  made.classList.toggle("off", !box.checked);
  box.addEventListener("change", () => {
    made.classList.toggle("off", !box.checked);
    const boxes = [...$("pseudo").querySelectorAll("input")];
    changed(boxes.flatMap((one, place) => (one.checked ? [] : [place + 1])));
  });
  return made;
}

// Pointing shows where the word looks, pressing keeps it shown.
function lookButton({ attention, gate, adds }, number, region, gated) {
  const words = adds.map(({ word }) => word);
  const button = element("button", { type: "button" }, element("span", { className: "number", textContent: number }));
  const text = element("span", { className: "near" });
  if (words.length) text.append("adds ", element("b", { textContent: words.join(", ") }));
  else text.append(whereabouts(attention));
  button.append(text);
  if (gated) button.append(gateBar(gate));
  if (gated) button.append(unseen(`, used ${Math.round(100 * gate)} percent`));
  if (words.length) button.append(unseen(`: ${whereabouts(attention)}`));
  button.setAttribute("aria-pressed", "false");
  button.look = () => {
    drawHeat(heat, attention, region);
    heat.classList.add("on");
  };
  const back = () => {
    const kept = $("pseudo").querySelector("[aria-pressed=true]");
    if (kept) kept.look();
    else heat.classList.remove("on");
  };
  button.addEventListener("pointerenter", button.look);
  button.addEventListener("pointerleave", back);
  button.addEventListener("focus", button.look);
  button.addEventListener("blur", back);
  button.addEventListener("click", () => press(button));
  return button;
}

function press(button) {
  const pressed = button.getAttribute("aria-pressed") === "true";
  for (const other of $("pseudo").querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", String(!pressed));
  if (pressed) heat.classList.remove("on");
  else button.look();
}

function gateBar(gate) {
  const bar = element("span", { className: "gate" });
  bar.style.setProperty("--gate", gate);
  return bar;
}

// Where a map's weight lies, in words, for those who cannot see the heat.
function whereabouts(attention) {
  const part = (weights) => weights.reduce((sum, w, i) => sum + w * (i + 0.5), 0) / weights.length;
  const down = part(attention.map((row) => row.reduce((a, b) => a + b, 0)));
  const across = part(attention[0].map((_, column) => attention.reduce((sum, row) => sum + row[column], 0)));
  const third = (value, names) => names[value < 0.42 ? 0 : value > 0.58 ? 2 : 1];
  return `looks at the ${third(down, ["upper", "middle", "lower"])} ${third(across, ["left", "centre", "right"])}`;
}
