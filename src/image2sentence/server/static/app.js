// The page: a trail of steps, each a reference and words, and the gallery ranked by the current one.

import { Refused, canBeToken, fetchPicture, get, post, setToken, showPicture } from "./api.js";
import { $, bytes, capital, element, remember, unseen } from "./dom.js";
import { Chosen, drawFilters } from "./filters.js";
import { covered, deviceEncoder, encodeStep, pseudoWords } from "./ondevice.js";
import { clearResults, endWaiting, fill, focusResult, shown, waitForResults } from "./results.js";
import { NEUTRAL, PAGE, addressOf, asks, hasReference, newStep, readAddress } from "./steps.js";
import { hideWhy, showWhy, waitForWhy } from "./why.js";

const TYPING_MS = 160;
const SAYING_MS = 700;
const MAX_NEGATIVES = 8; // as the server has it

const text = $("text");

let trail = [newStep()];
let current = 0;
let wantedShown = PAGE;
let asking = new AbortController();
let reading = new AbortController();
let typing = 0;
let saying = 0;
let begun = false;
let unread = null; // the step whose sentence is not known yet
let answered = null; // the step whose results are shown
let explained = null; // the sentence made here whose maps are shown
let device = null; // while queries are encoded here: the encoder, promised
const chosen = new Chosen();

// Entries of the history name their step; those from before a reload have only their address.
const visit = Date.now();
const steps = new Map();
const step = () => trail[current];

function place() {
  steps.set(step().id, step());
  return { visit, id: step().id };
}

// ---- asking ----

// What names the step's reference to the server: a name where it has one, else the file itself.
function named(one) {
  if (one.item !== undefined) return { item: one.item };
  if (one.sentence) return { sentence: one.sentence };
  return { picture: one.file };
}

// Posts about a step's reference; sends the file again where the server has forgotten its sentence.
async function postAbout(address, one, fields, signal) {
  try {
    return await post(address, { ...named(one), ...fields }, signal);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404 || !one.sentence || !one.file) throw error;
    one.sentence = undefined;
    return post(address, { ...named(one), ...fields }, signal);
  }
}

async function refresh(offset = 0) {
  clearTimeout(typing);
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  waitForResults();
  try {
    await (asks(step()) ? showRanking(step(), offset, signal) : showGallery(offset, signal));
    if (!signal.aborted) $("problem").hidden = true;
  } catch (error) {
    if (signal.aborted) return;
    if (!offset && (isAnswer(error) || answered !== step())) showNothing();
    if (device && error.name !== "QueryError") hideHere();
    showProblem(error);
  }
  if (signal.aborted) return;
  endWaiting();
  readOnce();
}

async function showRanking(one, offset, signal) {
  const encoder = await device;
  const start = performance.now();
  const common = { not_text: one.not, where: chosen.condition(), k: offset ? PAGE : wantedShown, offset };
  const { answer, sent } = await (encoder ? rankHere(encoder, one, common, signal) : rankThere(one, common, signal));
  if (signal.aborted) return;
  const spent = performance.now() - start;
  answered = one;
  addCost(one, encoder ? "device" : "server", spent, sent);
  $("heading").textContent = "Results";
  $("status").textContent = answer.total ? `Best of ${answer.total.toLocaleString("en")} · ${inMilliseconds(spent)}` : "";
  if (!encoder) showNote(answer.not_understood);
  say(fill(answer.results, offset, answer.more, take) || nothingMeets());
}

// A picture that is on its way goes on travelling when its query is overtaken by the next letter.
async function rankThere(one, common, signal) {
  if (one.sending) await one.sending.catch(() => {});
  signal.throwIfAborted();
  const fields = { text: one.text, balance: one.balance, muted: one.muted, ...common };
  if (!hasReference(one)) return post("v1/search", fields, signal);
  if (!one.file || one.sentence) return postAbout("v1/search", one, fields, signal);
  one.sending = postAbout("v1/search", one, fields, reading.signal)
    .then((done) => {
      one.sentence = done.answer.sentence;
      return done;
    })
    .finally(() => (one.sending = undefined));
  const done = await one.sending;
  signal.throwIfAborted();
  return done;
}

async function rankHere(encoder, one, common, signal) {
  const show = (sentence) => signal.aborted || explainHere(encoder, one, sentence);
  const fields = await encodeStep(encoder, one, hasReference(one) ? () => content(one) : null, show);
  const exclude = one.item !== undefined && one.text.trim() ? [one.item] : [];
  const unknown = one.text.trim() ? await encoder.notUnderstood(one.text) : [];
  signal.throwIfAborted();
  showNote(unknown);
  return post("v1/search", { ...fields, exclude, ...common }, signal);
}

// The picture's file: one's own, or the gallery's as the server shows it.
async function content(one) {
  return one.file ?? fetchPicture(`v1/items/${one.item}/image`);
}

async function showGallery(offset, signal) {
  const page = await get("v1/items", { k: offset ? PAGE : wantedShown, offset, where: chosen.condition() }, signal);
  if (signal.aborted) return;
  answered = step();
  $("heading").textContent = "Or start from one of these";
  $("status").textContent = `${page.total.toLocaleString("en")} ${page.total === 1 ? "picture" : "pictures"}`;
  showNote([]);
  say(fill(page.items, offset, offset + page.items.length < page.total, take) || nothingMeets());
}

function nothingMeets() {
  const why = chosen.empty ? "This gallery has no pictures yet. Fill it with: image2sentence index PICTURES" : "No picture meets these filters.";
  $("empty").textContent = why;
  return why;
}

// Results of an earlier query under one that was refused, or not answered, would look like its answer.
function showNothing() {
  clearResults();
  $("heading").textContent = "Results";
  $("status").textContent = "";
  showNote([]);
}

function showProblem(error) {
  if (error.status === 401) {
    askForToken();
    return;
  }
  $("problem").firstElementChild.textContent = capital(inWords(error));
  $("problem").hidden = false;
}

// What the server says, and what the encoder here says, is meant to be read.
const isAnswer = (error) => error instanceof Refused || ["ModelError", "ImageError", "QueryError"].includes(error.name);

function inWords(error) {
  if (isAnswer(error)) return error.message;
  // A fetch that fails is a TypeError.
  if (error instanceof TypeError) return "The server cannot be reached. Is it still running?";
  console.error(error);
  return "Something went wrong on this page; the browser's console says what.";
}

// For those who do not see the results: said once they stay, not at every letter.
function say(what) {
  clearTimeout(saying);
  saying = setTimeout(() => ($("said").textContent = what), SAYING_MS);
}

const inMilliseconds = (time) => `${Math.max(1, Math.round(time)).toLocaleString("en")} ms`;

// ---- what is said beside the results ----

// Words that the model does not know, with known ones to put in their place.
function showNote(unknown) {
  const parts = unknown.flatMap(({ word, near }) => [
    element("span", { textContent: `“${word}” is not a word this model knows. ` }),
    ...near.map((other) => replacement(word, other)),
  ]);
  $("note").replaceChildren(...parts);
}

function replacement(word, other) {
  const button = element("button", { type: "button", textContent: other });
  button.addEventListener("click", () => {
    const letters = "[\\p{L}\\p{N}\\p{M}]";
    const whole = new RegExp(`(?<!${letters})${word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")}(?!${letters})`, "giu");
    text.value = text.value.replace(whole, () => other);
    wordsChanged();
    text.focus();
  });
  return button;
}

// ---- steps ----

// Words whose query has not begun yet belong to the step that is left.
function keepTyped() {
  clearTimeout(typing);
  step().text = text.value;
}

// Go on from here with a new reference; steps that lay ahead are left to the browser's history.
function take(one) {
  keepTyped();
  const start = asks(step()) ? current + 1 : current;
  trail = [...trail.slice(0, start), one];
  goTo(start);
  // On a phone the keyboard would cover the results.
  (matchMedia("(pointer: fine)").matches ? text : $("title")).focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: "smooth" });
}

function goTo(number) {
  current = number;
  wantedShown = PAGE;
  history.pushState(place(), "", addressOf(step(), chosen));
  show();
}

// The current step has been changed in place.
function changed() {
  wantedShown = PAGE;
  history.replaceState(place(), "", addressOf(step(), chosen));
  showTrail();
  showRefinements(step());
  refresh();
}

function show() {
  const one = step();
  text.value = one.text;
  $("title").textContent = hasReference(one) ? "This one, but …" : "Show it, or say it.";
  $("label").textContent = hasReference(one) ? "What should be different?" : "What are you looking for?";
  text.placeholder = hasReference(one) ? "in red" : "a striped shirt";
  $("drop").hidden = hasReference(one);
  $("shown").hidden = !hasReference(one);
  showReference(one);
  showRefinements(one);
  showCosts(one);
  showTrail();
  $("problem").hidden = true;
  refresh();
}

// The picture travels once: the search brings it, and the sentence is then asked for by the name that it got.
function readOnce() {
  const one = unread;
  if (!one || device) return;
  if (one.item !== undefined || one.sentence) {
    unread = null;
    readSentence(one, reading.signal);
  } else hideWhy(); // a file that was refused would be refused again
}

function showReference(one) {
  explained = null;
  unread = hasReference(one) ? one : null;
  reading.abort();
  reading = new AbortController();
  if (hasReference(one)) waitForWhy();
  else hideWhy();
  if (!hasReference(one)) return;
  $("shown").firstElementChild.classList.remove("blank");
  $("picture").alt = one.title ? `Reference: ${one.title}` : "Your reference picture";
  if (one.file) $("picture").src = one.url;
  else showPicture($("picture"), `v1/items/${one.item}/image`).catch(showProblem);
}

function showRefinements(one) {
  $("refine").hidden = !asks(one);
  $("balance-row").hidden = !(hasReference(one) && one.text.trim());
  $("balance").value = one.balance;
  $("balance").setAttribute("aria-valuetext", balanceInWords(one.balance));
  $("not").hidden = one.not.length >= MAX_NEGATIVES;
  $("without").replaceChildren(...one.not.map((words) => chip(one, words)));
}

function balanceInWords(balance) {
  if (balance === NEUTRAL) return "both, as the model composes them";
  return `${Math.round(100 * Math.abs(2 * balance - 1))} percent towards the ${balance < NEUTRAL ? "picture" : "words"}`;
}

function chip(one, words) {
  const cross = element("span", { textContent: " ×" });
  cross.setAttribute("aria-hidden", "true");
  const button = element("button", { type: "button" }, `without ${words}`, cross, unseen(": allow again"));
  button.addEventListener("click", () => {
    one.not = one.not.filter((other) => other !== words);
    changed();
    $("not").focus();
  });
  return element("li", {}, button);
}

function showTrail() {
  const worth = trail.length > 1;
  $("trail").hidden = !worth;
  if (worth) $("trail").firstElementChild.replaceChildren(...trail.map(trailEntry));
}

function trailEntry(one, number) {
  const button = element("button", { type: "button" });
  if (hasReference(one)) {
    const img = element("img", { alt: "" });
    if (one.file) img.src = one.url;
    else showPicture(img, `v1/items/${one.item}/thumbnail`).catch(showProblem);
    button.append(img);
  }
  button.append(element("span", { textContent: one.text.trim() || (hasReference(one) ? "like this" : "start") }));
  if (number === current) button.setAttribute("aria-current", "step");
  button.addEventListener("click", () => {
    keepTyped();
    goTo(number);
    $("trail").querySelector("[aria-current]")?.focus();
  });
  return element("li", {}, button);
}

// ---- why ----

async function readSentence(one, signal) {
  try {
    const { answer } = await postAbout("v1/sentence", one, {}, signal);
    if (signal.aborted) return;
    if (one.file) one.sentence = answer.sentence;
    one.near = answer.pseudo_words.map(({ near }) => near);
    showWhy(answer.pseudo_words, answer.region, one.muted, (muted) => mute(one, muted));
  } catch (error) {
    if (signal.aborted) return;
    hideWhy();
    // A picture that cannot be read fails the search too, which shows why.
    if (!(error instanceof Refused)) showProblem(error);
  }
}

// The maps of a sentence that was made here, once; the words near it are there if the server was asked before.
async function explainHere(encoder, one, sentence) {
  if (explained === sentence) return;
  explained = sentence;
  await $("picture").decode().catch(() => {});
  if (explained !== sentence) return;
  const region = covered(encoder.config.query_preprocessing, $("picture").naturalWidth || 1, $("picture").naturalHeight || 1);
  const words = pseudoWords(sentence).map((word, place) => ({ ...word, near: one.near?.[place] ?? [] }));
  showWhy(words, region, one.muted, (muted) => mute(one, muted));
}

function hideHere() {
  explained = null;
  hideWhy();
}

function mute(one, muted) {
  one.muted = muted;
  changed();
}

// ---- on this device ----

// From the moment it is switched on nothing but vectors is sent: queries wait until the model is here.
async function switchDevice(on) {
  const wanted = on ? deviceEncoder(showFetched) : null;
  device = wanted;
  $("device-status").hidden = !on;
  showReference(step());
  try {
    await wanted;
  } catch (error) {
    if (device !== wanted) return;
    device = null;
    $("on-device").checked = false;
    $("device-status").hidden = true;
    hideWhy();
    showProblem(error);
    return;
  }
  if (device !== wanted) return;
  $("device-note").textContent = "Encoded here; only the vector is sent.";
  refresh();
}

function showFetched({ loaded, total }) {
  const part = total ? ` of ${bytes(total)}` : "";
  $("device-note").textContent = `Fetching the model: ${bytes(loaded)}${part}`;
}

// Of each way the time of the first query, which has read the picture, and of the last; and all bytes sent.
function addCost(one, way, spent, sent) {
  one.costs ??= {};
  const { first = spent, total = 0 } = one.costs[way] ?? {};
  one.costs[way] = { first, last: spent, total: total + sent };
  showCosts(one);
}

function showCosts(one) {
  $("costs").hidden = !one.costs?.device;
  for (const [way, name] of [["server", "Server"], ["device", "This device"]]) {
    const cost = one.costs?.[way];
    const figures = cost && [inMilliseconds(cost.first), inMilliseconds(cost.last), bytes(cost.total)];
    const cells = (figures ?? ["–", "–", "–"]).map((part) => element("td", { textContent: part }));
    $(`cost-${way}`).replaceChildren(element("th", { scope: "row", textContent: name }), ...cells);
  }
}

// ---- what people do ----

function wordsChanged() {
  step().text = text.value;
  changed();
}

function takeFile(file) {
  if (!file) return;
  take(newStep({ file, url: URL.createObjectURL(file), text: hasReference(step()) ? "" : text.value }));
}

text.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(wordsChanged, TYPING_MS);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  wordsChanged();
});
$("balance").addEventListener("input", () => {
  step().balance = Number($("balance").value);
  clearTimeout(typing);
  typing = setTimeout(changed, TYPING_MS);
});
$("without-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("not").value.trim().replace(/^without\s+/i, "");
  $("not").value = "";
  if (!words || step().not.includes(words)) return;
  step().not = [...step().not, words];
  changed();
});
for (const input of [$("file"), $("camera")]) {
  input.addEventListener("change", () => {
    takeFile(input.files[0]);
    input.value = "";
  });
}
// A format that the browser cannot draw, which the server may know.
$("picture").addEventListener("error", ({ target }) => {
  target.parentElement.style.removeProperty("--ratio");
  target.parentElement.classList.add("blank");
});
$("picture").addEventListener("load", ({ target }) => {
  target.parentElement.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
});
$("remove").addEventListener("click", () => {
  take(newStep({ text: text.value }));
  text.focus();
});
$("more").addEventListener("click", async () => {
  const first = shown();
  await refresh(first);
  focusResult(first);
  history.replaceState(place(), "", addressOf(step(), chosen, shown()));
});
$("retry").addEventListener("click", () => {
  $("title").focus();
  $("problem").hidden = true;
  if (begun) show();
  else begin();
});
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  chosen.clear();
  drawFilters($("filters"), chosen, changed);
  take(newStep());
});
$("on-device").addEventListener("change", ({ target }) => switchDevice(target.checked));
$("share").addEventListener("click", async () => {
  const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  $("share-name").textContent = done ? "Copied" : "Copy the address above";
  say($("share-name").textContent);
  setTimeout(() => ($("share-name").textContent = "Copy link"), 2000);
});

const bringsFile = (event) => [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!bringsFile(event)) return;
  event.preventDefault();
  $("veil").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("veil").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!bringsFile(event)) return;
  event.preventDefault();
  $("veil").hidden = true;
  takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  takeFile(file);
});
addEventListener("popstate", (event) => {
  const known = event.state?.visit === visit ? steps.get(event.state.id) : undefined;
  if (known) {
    if (!trail.includes(known)) trail = [known];
    current = trail.indexOf(known);
    wantedShown = PAGE;
    chosen.read(readAddress().pairs);
  } else takeAddress();
  drawFilters($("filters"), chosen, changed);
  show();
});

// The address is the query's: it stays as it is.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("results").focus();
});

// "/" goes to the words.
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.matches("input, textarea")) {
    event.preventDefault();
    text.focus();
  }
});
function askForToken() {
  $("token-wrong").hidden = !$("token").value;
  if (!$("asks-token").open) $("asks-token").showModal();
}
$("token-form").addEventListener("submit", (event) => {
  const given = $("token").value.trim();
  $("token-wrong").hidden = canBeToken(given);
  if (!canBeToken(given)) {
    event.preventDefault();
    return;
  }
  setToken(given);
  begin();
});
$("asks-token").addEventListener("cancel", () => showProblem(new Refused(0, "This server wants its token.")));

// ---- light and dark ----

const root = document.documentElement;
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => ($("theme-name").textContent = isDark() ? "Light theme" : "Dark theme");
$("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  remember("theme", root.dataset.theme, () => localStorage);
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

// ---- the beginning ----

function takeAddress() {
  const shared = readAddress();
  chosen.read(shared.pairs);
  trail = [shared.step];
  current = 0;
  wantedShown = shared.shown;
}

async function begin() {
  waitForResults();
  try {
    const about = await get("v1/gallery");
    chosen.columns = about.columns;
    $("device").hidden = !about.device;
  } catch (error) {
    endWaiting();
    showProblem(error);
    return;
  }
  begun = true;
  const typed = text.value; // while the page was loading
  takeAddress();
  if (typed) step().text = typed;
  drawFilters($("filters"), chosen, changed);
  history.replaceState(place(), "");
  show();
}

begin();
