// The page: a trail of steps, each a reference and words, and the gallery ranked by the current one.

import { Refused, fetchPicture, get, post, setToken, showPicture } from "./api.js";
import { $, bytes, capital, element } from "./dom.js";
import { Chosen, drawFilters } from "./filters.js";
import { covered, deviceEncoder, encodeStep, pseudoWords } from "./ondevice.js";
import { NEUTRAL, PAGE, addressOf, asks, hasReference, newStep, readAddress } from "./steps.js";
import { hideWhy, showWhy } from "./why.js";

const TYPING_MS = 160;
const SKELETONS = 12;
const TITLES = ["title", "name", "caption", "label"];

const text = $("text");
const results = $("results");

let trail = [newStep()];
let current = 0;
let shownOfQuery = 0;
let wantedShown = PAGE;
let asking = new AbortController();
let reading = new AbortController();
let typing = 0;
let encoder = null;
const chosen = new Chosen();

// Steps are known by number within one visit; entries of the history from before a reload have only their address.
const visit = Date.now();
const place = () => ({ visit, current });
const step = () => trail[current];

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
  const one = step();
  if (!offset) waitForResults();
  results.setAttribute("aria-busy", "true");
  try {
    if (asks(one)) await showRanking(one, offset, signal);
    else await showGallery(offset, signal);
    $("problem").hidden = true;
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && !offset) clearResults();
    showProblem(error);
  }
  if (!signal.aborted) results.removeAttribute("aria-busy");
}

async function showRanking(one, offset, signal) {
  const start = performance.now();
  const k = offset ? PAGE : wantedShown;
  const common = { not_text: one.not, where: chosen.condition(), k, offset };
  const { answer, sent } = await (encoder ? rankHere(one, common, signal) : rankThere(one, common, signal));
  if (signal.aborted) return;
  addCost(one, encoder ? "device" : "server", performance.now() - start, sent);
  $("heading").textContent = "Results";
  $("status").textContent = answer.total ? `Best of ${answer.total.toLocaleString("en")} · ${inMilliseconds(performance.now() - start)}` : "";
  if (!encoder) showNote(answer.not_understood);
  fill(answer.results, offset, answer.more, "No picture meets these filters.");
}

async function rankThere(one, common, signal) {
  const fields = { text: one.text, balance: one.balance, muted: one.muted, ...common };
  const done = hasReference(one) ? await postAbout("/v1/search", one, fields, signal) : await post("/v1/search", fields, signal);
  if (one.file) one.sentence = done.answer.sentence;
  return done;
}

async function rankHere(one, common, signal) {
  const { fields, sentence } = await encodeStep(encoder, one, hasReference(one) ? () => content(one) : null);
  const exclude = one.item !== undefined && one.text.trim() ? [one.item] : [];
  const unknown = one.text.trim() ? await encoder.unknownWords(one.text) : [];
  if (signal.aborted) throw signal.reason;
  showNote(unknown.map((word) => ({ word, near: [] })));
  if (sentence && one.shownSentence !== sentence) explainHere(one, sentence);
  return post("/v1/search", { ...fields, exclude, ...common }, signal);
}

// The picture's file: one's own, or the gallery's as the server shows it.
async function content(one) {
  return one.file ?? fetchPicture(`/v1/items/${one.item}/image`);
}

async function showGallery(offset, signal) {
  const page = await get("/v1/items", { k: offset ? PAGE : wantedShown, offset, where: chosen.condition() });
  if (signal.aborted) return;
  $("heading").textContent = "Or start from one of these";
  $("status").textContent = `${page.total.toLocaleString("en")} ${page.total === 1 ? "picture" : "pictures"}`;
  showNote([]);
  const nothing = chosen.empty ? "This gallery has no pictures yet. Fill it with: image2sentence index PICTURES" : "No picture meets these filters.";
  fill(page.items, offset, offset + page.items.length < page.total, nothing);
}

function showProblem(error) {
  if (error.status === 401) {
    if (!$("asks-token").open) $("asks-token").showModal();
    return;
  }
  const own = error instanceof Refused || error.name?.endsWith("Error") && error.constructor.name !== "TypeError";
  $("problem").firstElementChild.textContent = own ? capital(error.message) : "The server cannot be reached. Is it still running?";
  $("problem").hidden = false;
}

const inMilliseconds = (time) => `${Math.max(1, Math.round(time)).toLocaleString("en")} ms`;

// ---- results ----

// Shapes of cards while the first results are on their way; later ones keep the old results, faded.
function waitForResults() {
  if (results.children.length) return;
  $("empty").hidden = true;
  results.replaceChildren(...Array.from({ length: SKELETONS }, () => element("li", { className: "skeleton" })));
}

function fill(found, offset, more, nothing) {
  const cards = found.map(card);
  if (offset) results.append(...cards);
  else results.replaceChildren(...cards);
  shownOfQuery = offset + found.length;
  $("more").hidden = !more;
  $("empty").hidden = shownOfQuery > 0;
  $("empty").textContent = nothing;
}

// Results of an earlier query under a refused one would look like its answer.
function clearResults() {
  results.replaceChildren();
  $("heading").textContent = "Results";
  $("status").textContent = "";
  $("more").hidden = true;
  $("empty").hidden = true;
  showNote([]);
}

function card(result) {
  const button = element("button", { type: "button" });
  const img = element("img", { alt: "", loading: "lazy", width: 168, height: 168 });
  showPicture(img, `/v1/items/${result.id}/thumbnail`).catch(showProblem);
  img.addEventListener("error", () => button.classList.add("missing"));
  button.append(img);
  const title = TITLES.map((name) => result.metadata[name]).find((value) => typeof value === "string" && value);
  const scored = result.score !== undefined;
  const lines = element("span", { className: "caption" });
  if (title) lines.append(element("span", { className: "name", textContent: title }));
  if (scored) lines.append(element("span", { className: "score" }, `${result.rank}`, element("span", { textContent: rounded(result.score) })));
  if (lines.children.length) button.append(lines);
  const which = scored ? `Result ${result.rank}, score ${result.score.toFixed(2)}` : `Picture ${result.id}`;
  button.setAttribute("aria-label", `${title ? `${title}. ` : ""}${which}. Take as reference`);
  button.addEventListener("click", () => take(newStep({ item: result.id, title })));
  return element("li", {}, button);
}

// Three digits, and never "-0.000".
function rounded(score) {
  return (Math.round(1000 * score) / 1000 || 0).toFixed(3);
}

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
    text.value = text.value.replace(word, other);
    wordsChanged();
    text.focus();
  });
  return button;
}

// ---- steps ----

// Go on from here with a new reference; steps that lay ahead are forgotten.
function take(one) {
  const start = asks(step()) ? current + 1 : current;
  trail.slice(start).forEach((gone) => gone.url && URL.revokeObjectURL(gone.url));
  trail = [...trail.slice(0, start), one];
  goTo(start);
  if (matchMedia("(pointer: fine)").matches) text.focus();
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
  ask(one);
}

// The picture travels once: the search brings it, and the sentence is then asked for by the name that it got.
async function ask(one) {
  const { signal } = reading;
  await refresh();
  if (!signal.aborted && hasReference(one) && !encoder) readSentence(one, signal);
}

function showReference(one) {
  hideWhy();
  one.shownSentence = undefined;
  reading.abort();
  reading = new AbortController();
  if (!hasReference(one)) return;
  $("picture").alt = one.title ? `Reference: ${one.title}` : "Your reference picture";
  if (one.file) $("picture").src = one.url;
  else showPicture($("picture"), `/v1/items/${one.item}/image`).catch(showProblem);
}

function showRefinements(one) {
  $("refine").hidden = !asks(one);
  $("balance-row").hidden = !(hasReference(one) && one.text.trim());
  $("balance").value = one.balance;
  $("balance").setAttribute("aria-valuetext", balanceInWords(one.balance));
  $("without").replaceChildren(...one.not.map((words) => chip(one, words)));
}

function balanceInWords(balance) {
  if (balance === NEUTRAL) return "both, as the model composes them";
  return `${Math.round(100 * Math.abs(2 * balance - 1))} percent towards the ${balance < NEUTRAL ? "picture" : "words"}`;
}

function chip(one, words) {
  const button = element("button", { type: "button", textContent: `without ${words} ×` });
  button.setAttribute("aria-label", `Allow ${words} again`);
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
    else showPicture(img, `/v1/items/${one.item}/thumbnail`).catch(showProblem);
    button.append(img);
  }
  button.append(element("span", { textContent: one.text.trim() || (hasReference(one) ? "like this" : "start") }));
  if (number === current) button.setAttribute("aria-current", "step");
  button.addEventListener("click", () => goTo(number));
  return element("li", {}, button);
}

// ---- why ----

async function readSentence(one, signal) {
  try {
    const { answer } = await postAbout("/v1/sentence", one, {}, signal);
    if (signal.aborted) return;
    if (one.file) one.sentence = answer.sentence;
    showWhy(answer.pseudo_words, answer.region, one.muted, (muted) => mute(one, muted));
  } catch (error) {
    // A reference that cannot be read fails the search too, which shows why.
    if (!signal.aborted && !(error instanceof Refused)) showProblem(error);
  }
}

function explainHere(one, sentence) {
  one.shownSentence = sentence;
  const { naturalWidth, naturalHeight } = $("picture");
  const region = covered(encoder.config.query_preprocessing, naturalWidth || 1, naturalHeight || 1);
  showWhy(pseudoWords(sentence), region, one.muted, (muted) => mute(one, muted));
}

function mute(one, muted) {
  one.muted = muted;
  changed();
}

// ---- on this device ----

async function switchDevice(on) {
  encoder = null;
  $("device-note").textContent = "The query is encoded here; only its vector is sent.";
  try {
    if (on) encoder = await deviceEncoder(showFetched);
  } catch (error) {
    $("on-device").checked = false;
    showProblem(error);
  }
  if ($("on-device").checked !== on) return;
  $("device-note").textContent = on ? "Encoded here; only the vector is sent." : "The query is encoded here; only its vector is sent.";
  showReference(step());
  ask(step());
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
    const told = cost && [inMilliseconds(cost.first), inMilliseconds(cost.last), bytes(cost.total)];
    const cells = (told ?? ["–", "–", "–"]).map((part) => element("td", { textContent: part }));
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
  take(newStep({ file, url: URL.createObjectURL(file), text: hasReference(step()) ? "" : step().text }));
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
$("picture").addEventListener("load", ({ target }) => {
  target.parentElement.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
});
$("remove").addEventListener("click", () => {
  take(newStep({ text: step().text }));
  text.focus();
});
$("more").addEventListener("click", async () => {
  const first = shownOfQuery;
  await refresh(first);
  results.children[first]?.firstElementChild.focus({ preventScroll: true });
  history.replaceState(place(), "", addressOf(step(), chosen, shownOfQuery));
});
$("retry").addEventListener("click", () => show());
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  chosen.clear();
  drawFilters($("filters"), chosen, changed);
  take(newStep());
});
$("on-device").addEventListener("change", ({ target }) => switchDevice(target.checked));
$("share").addEventListener("click", async () => {
  const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  $("share").textContent = done ? "Copied" : "Copy the address above";
  setTimeout(() => ($("share").textContent = "Copy link"), 2000);
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
  if (event.state?.visit === visit && event.state.current < trail.length) {
    current = event.state.current;
    wantedShown = PAGE;
    chosen.read(readAddress().pairs);
  } else takeAddress();
  drawFilters($("filters"), chosen, changed);
  show();
});

// "/" goes to the words, the arrows go through the grid.
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.matches("input, textarea")) {
    event.preventDefault();
    text.focus();
  }
});
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

$("token-form").addEventListener("submit", () => {
  setToken($("token").value.trim());
  begin();
});

// ---- light and dark ----

const root = document.documentElement;
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => ($("theme").textContent = isDark() ? "Light theme" : "Dark theme");
$("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  nameTheme();
});
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
    const about = await get("/v1/gallery");
    chosen.columns = about.columns;
    $("device").hidden = !about.device;
  } catch (error) {
    showProblem(error);
    if (error.status === 401) return;
  }
  takeAddress();
  drawFilters($("filters"), chosen, changed);
  history.replaceState(place(), "");
  show();
}

begin();
