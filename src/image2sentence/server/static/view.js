// What the page shows of the current step: reference, words, trail, notes, problems, costs.

import { Refused, showPicture } from "./api.js";
import { $, bytes, capital, element, unseen } from "./dom.js";
import { showReferences, showSmall } from "./references.js";
import { clearResults, fill, showFrom } from "./results.js";
import { drawSort } from "./sort.js";
import { allSteps, chosen, currentNumber, step, wanted } from "./state.js";
import { NEUTRAL, asks, hasReference, lookedAt } from "./steps.js";

const SAYING_MS = 700;
export const MAX_NEGATIVES = 8; // of words, and of pictures, as the server has it
const TELLING_MS = 6000;
let saying = 0;
let telling = 0;

// What is done when something shown is used; app.js says what:
// take(step), add(references), weigh(), look(place of a reference), drop(place of a reference), open(results, place), goTo(number), allow(words not wanted any more), allowLike(id of a picture),
// replaceWord(unknown, known), leaveOut(phrase, unwanted), askForToken().
const actions = {};

export function whenUsed(given) {
  Object.assign(actions, given);
}

// All of the current step but its results.
export function showStep() {
  const one = step();
  $("text").value = one.text;
  $("label").textContent = hasReference(one) ? "What should be different?" : "What are you looking for?";
  $("text").placeholder = hasReference(one) ? "in red" : "a striped shirt";
  $("drop").hidden = hasReference(one);
  $("shown").hidden = !hasReference(one);
  showReference(one);
  showRefinements(one);
  showCosts(one);
  showTrail();
  showTitle();
  hideProblem();
}

// What the tab is called.
export function showTitle() {
  const one = step();
  const words = one.text.trim();
  const named = `${one.title || "a picture"}${one.also.length ? ` and ${one.also.length} more` : ""}`;
  const what = hasReference(one) ? [named, words].filter(Boolean).join(", ") : words;
  document.title = what ? `${what} · image2sentence` : "image2sentence";
  drawSort();
}

// The picture that is looked at closely, large.
export function showReference(step) {
  if (!hasReference(step)) return;
  const one = lookedAt(step);
  $("shown").firstElementChild.classList.remove("blank");
  $("picture").alt = one.title ? `Reference: ${one.title}` : "Your reference picture";
  if (one.file) $("picture").src = one.url;
  else showPicture($("picture"), `v1/items/${one.item}/image`).catch(showProblem);
}

// Width and height of the reference as it is shown, once it is.
export async function referenceSize() {
  await $("picture").decode().catch(() => {});
  return [$("picture").naturalWidth || 1, $("picture").naturalHeight || 1];
}

// ---- results ----

// `count` results can be gone through, of which the answer has those from `offset` on; `load` gives the others.
export function showRanking(answer, offset, count, load, spent) {
  $("heading").textContent = "Results";
  const best = chosen.sort ? `Best ${count} of` : "Best of";
  $("status").textContent = answer.results.length || offset ? `${best} ${answer.total.toLocaleString("en")} · ${inMilliseconds(spent)}` : "";
  const nothing = answer.understood === false ? noWordKnown : nothingMeets;
  say(fill(answer.results, offset, count, load, actions) || nothing());
  showPlace();
}

// Which model answers, and what it knows: said where the gallery is shown, before anything is asked.
let answering = "";
export function introduce({ model, pictures }) {
  answering = model ? ` · model ${model.name}${model.knows && `: ${model.knows}`}` : "";
  $("status").textContent = gallery(pictures);
}

const gallery = (total) => `${total.toLocaleString("en")} ${total === 1 ? "picture" : "pictures"}${answering}`;

export function showGallery(page, offset, load) {
  $("heading").textContent = "Or start from one of these";
  $("status").textContent = gallery(page.total);
  showNote([]);
  say(fill(page.items, offset, page.total, load, actions) || nothingMeets());
  showPlace();
}

// Where the list was left; a new list that one is in the middle of is shown from its beginning.
function showPlace() {
  if (wanted()) showFrom(wanted());
  else if ($("results").getBoundingClientRect().top < 0) $("heading").scrollIntoView({ block: "start", behavior: "instant" });
}

function noWordKnown() {
  return showEmpty("The model knows none of these words, and no title or file name has one, so there is nothing to rank by. Say what is to be seen in other words, or show a picture.");
}

function nothingMeets() {
  const fill = $("add").hidden ? "Fill it with: image2sentence index PICTURES" : "“Add pictures”, above, fills it from a folder of this computer.";
  const why = chosen.empty ? `This gallery has no pictures yet. ${fill}` : "No picture meets these filters.";
  return showEmpty(why);
}

function showEmpty(why) {
  $("empty").textContent = why;
  return why;
}

// Results of an earlier query under one that was refused, or not answered, would look like its answer.
export function showNothing() {
  clearResults();
  $("heading").textContent = "Results";
  $("status").textContent = "";
  showNote([]);
}

// ---- problems and notes ----

export function showProblem(error) {
  if (error.status === 401) {
    actions.askForToken();
    return;
  }
  $("problem").firstElementChild.textContent = capital(inWords(error));
  $("retry").hidden = isFinal(error);
  $("problem").hidden = false;
}

export function hideProblem() {
  $("problem").hidden = true;
}

// What the server says, and what the encoder here says, is meant to be read.
export const isAnswer = (error) => error instanceof Refused || ["ModelError", "ImageError", "QueryError"].includes(error.name);

// Asked once more, the same would be answered: the query has to change first.
function isFinal({ name, status }) {
  return [400, 404, 413, 415, 422].includes(status) || ["ImageError", "QueryError"].includes(name);
}

function inWords(error) {
  if (isAnswer(error)) return error.message;
  // A fetch that fails is a TypeError.
  if (error instanceof TypeError) return "The server cannot be reached. Is it still running?";
  console.error(error);
  return "Something went wrong on this page; the browser's console says what.";
}

// For those who do not see the results: said once they stay, not at every letter.
export function say(what) {
  clearTimeout(saying);
  saying = setTimeout(() => ($("said").textContent = what), SAYING_MS);
}

// A few words about what was just done, shown for a while.
export function tell(what) {
  clearTimeout(telling);
  $("toast").textContent = what;
  $("toast").hidden = false;
  say(what);
  telling = setTimeout(() => ($("toast").hidden = true), TELLING_MS);
}

const inMilliseconds = (time) => `${Math.max(1, Math.round(time)).toLocaleString("en")} ms`;

// Words that the model does not know, with known ones to put in their place; and what is negated, which a model
// reads as if it were wanted.
export function showNote(unknown, negated = []) {
  const parts = unknown.flatMap(({ word, near }) => [
    element("span", { textContent: `“${word}” is not a word this model knows${near.length ? ". Did you mean " : "; say what it looks like instead. "}` }),
    ...near.map((other) => replacement(word, other)),
    near.length ? "? " : "",
  ]);
  $("note").replaceChildren(...parts, ...negated.flatMap(({ phrase, not_text }) => [leaveOut(phrase, not_text), " "]));
}

function leaveOut(phrase, unwanted) {
  const button = element("button", { type: "button", textContent: `Leave out ${unwanted}` }, unseen(`: models do not understand “${phrase}”`));
  button.title = `Models do not understand “${phrase}”`;
  button.addEventListener("click", () => actions.leaveOut(phrase, unwanted));
  return button;
}

function replacement(word, other) {
  const button = element("button", { type: "button", textContent: other });
  button.addEventListener("click", () => actions.replaceWord(word, other));
  return button;
}

// ---- refinements and trail ----

export function showRefinements(one) {
  $("title").textContent = !hasReference(one) ? "Show it, or say it." : one.also.length ? "These, but …" : "This one, but …";
  showReferences(one, actions);
  $("refine").hidden = !asks(one);
  $("balance-row").hidden = !(hasReference(one) && one.text.trim());
  $("balance").value = one.balance;
  $("balance").setAttribute("aria-valuetext", balanceInWords(one.balance));
  $("titles-switch").hidden = !one.text.trim();
  $("titles").checked = one.titles;
  $("not").hidden = one.not.length >= MAX_NEGATIVES;
  $("without").replaceChildren(...one.not.map(wordsChip), ...one.unlike.map(pictureChip));
}

function balanceInWords(balance) {
  if (balance === NEUTRAL) return "both, as the model composes them";
  return `${Math.round(100 * Math.abs(2 * balance - 1))} percent towards the ${balance < NEUTRAL ? "picture" : "words"}`;
}

function wordsChip(words) {
  return chip([`without ${words}`], () => actions.allow(words));
}

function pictureChip(item) {
  const img = element("img", { alt: `picture ${item}`, width: 24, height: 24 });
  showPicture(img, `v1/items/${item}/thumbnail`).catch(() => {});
  return chip(["not like ", img], () => actions.allowLike(item));
}

function chip(parts, allow) {
  const cross = element("span", { textContent: " ×" });
  cross.setAttribute("aria-hidden", "true");
  const button = element("button", { type: "button" }, ...parts, cross, unseen(": allow again"));
  button.addEventListener("click", allow);
  return element("li", {}, button);
}

export function showTrail() {
  const worth = allSteps().length > 1;
  $("trail").hidden = !worth;
  if (worth) $("trail").firstElementChild.replaceChildren(...allSteps().map(trailEntry));
}

function trailEntry(one, number) {
  const button = element("button", { type: "button" });
  if (hasReference(one)) {
    const img = element("img", { alt: "" });
    showSmall(img, one);
    button.append(img);
    if (one.also.length) button.append(element("b", { textContent: `+${one.also.length}` }));
  }
  button.append(element("span", { textContent: one.text.trim() || (hasReference(one) ? "like this" : "start") }));
  if (number === currentNumber()) button.setAttribute("aria-current", "step");
  button.addEventListener("click", () => {
    actions.goTo(number);
    $("trail").querySelector("[aria-current]")?.focus();
  });
  return element("li", {}, button);
}

// ---- on this device ----

export function showDevice(on) {
  $("on-device").checked = on;
  $("device-status").hidden = !on;
}

export function noteDevice(text) {
  $("device-note").textContent = text;
}

export function showCosts(one) {
  $("costs").hidden = !one.costs?.device;
  for (const [way, name] of [["server", "Server"], ["device", "This device"]]) {
    const cost = one.costs?.[way];
    const figures = cost && [inMilliseconds(cost.first), inMilliseconds(cost.last), bytes(cost.total)];
    const cells = (figures ?? ["–", "–", "–"]).map((part) => element("td", { textContent: part }));
    $(`cost-${way}`).replaceChildren(element("th", { scope: "row", textContent: name }), ...cells);
  }
}
