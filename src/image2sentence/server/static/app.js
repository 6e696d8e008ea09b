// The page: a trail of steps, each a reference and words, and the gallery ranked by the current one.

import { Refused, items, post, setToken, showPicture } from "./api.js";
import { drawHeat } from "./heat.js";

const PAGE = 24;
const TYPING_MS = 160;
const FULLY_HEARD = 0.995;

const $ = (id) => document.getElementById(id);
const text = $("text");
const results = $("results");
const heat = $("heat");

// A step: { item } or { file, url } or neither, the words `text`, and `sentence` once the server has named it.
let trail = [{ text: "" }];
let current = 0;
let shownOfQuery = 0;
let asking = new AbortController();
let reading = new AbortController();
let typing = 0;

// Steps are known by number within one visit; entries of the history from before a reload have only their address.
const visit = Date.now();
const place = () => ({ visit, current });
const step = () => trail[current];
const hasReference = (one) => one.item !== undefined || one.file !== undefined;

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
  results.classList.add("old");
  try {
    if (hasReference(one) || one.text.trim()) await showRanking(one, offset, signal);
    else await showGallery(offset, signal);
    $("problem").hidden = true;
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && !offset) clearResults();
    showProblem(error);
  }
  if (!signal.aborted) results.classList.remove("old");
}

async function showRanking(one, offset, signal) {
  const fields = { text: one.text, k: PAGE, offset };
  const answer = await postAbout("/v1/search", one, fields, signal);
  if (signal.aborted) return;
  if (one.file) one.sentence = answer.sentence;
  const spent = Object.values(answer.milliseconds).reduce((sum, part) => sum + part, 0);
  $("heading").textContent = "Results";
  $("status").textContent = `Best of ${answer.total.toLocaleString("en")} · ${Math.max(1, Math.round(spent))} ms`;
  showNote(answer.not_understood);
  fill(answer.results, offset, answer.total);
}

async function showGallery(offset, signal) {
  const page = await items(PAGE, offset);
  if (signal.aborted) return;
  $("heading").textContent = "Or start from one of these";
  $("status").textContent = `${page.total.toLocaleString("en")} pictures`;
  showNote([]);
  fill(page.items, offset, page.total);
}

function showProblem(error) {
  if (error.status === 401) {
    $("asks-token").showModal();
    return;
  }
  const said = error instanceof Refused ? error.message : "The server cannot be reached. Is it still running?";
  $("problem").textContent = said.charAt(0).toUpperCase() + said.slice(1);
  $("problem").hidden = false;
}

// ---- results ----

function fill(found, offset, total) {
  const cards = found.map(card);
  if (offset) results.append(...cards);
  else results.replaceChildren(...cards);
  shownOfQuery = offset + found.length;
  $("more").hidden = shownOfQuery >= total || !found.length;
}

// Results of an earlier query under a refused one would look like its answer.
function clearResults() {
  results.replaceChildren();
  $("heading").textContent = "Results";
  $("status").textContent = "";
  $("more").hidden = true;
  showNote([]);
}

function card(result) {
  const button = element("button", { type: "button" });
  const img = element("img", { alt: "", loading: "lazy", width: 168, height: 168 });
  showPicture(img, `/v1/items/${result.id}/thumbnail`).catch(showProblem);
  button.append(img);
  const scored = result.score !== undefined;
  if (scored) button.append(caption(String(result.rank), rounded(result.score)));
  const which = scored ? `Result ${result.rank}, score ${result.score.toFixed(2)}` : `Picture ${result.id}`;
  button.setAttribute("aria-label", `${which}. Take as reference`);
  button.addEventListener("click", () => take({ item: result.id, text: "" }));
  const entry = element("li");
  entry.append(button);
  return entry;
}

// Three digits, and never "-0.000".
function rounded(score) {
  return (Math.round(1000 * score) / 1000 || 0).toFixed(3);
}

function caption(...parts) {
  const line = element("span", { className: "caption" });
  line.append(...parts.map((part) => element("span", { textContent: part })));
  return line;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
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
  const start = hasReference(step()) || step().text ? current + 1 : current;
  trail.slice(start).forEach((gone) => gone.url && URL.revokeObjectURL(gone.url));
  trail = [...trail.slice(0, start), one];
  current = start;
  history.pushState(place(), "", addressOf(one));
  show();
  if (matchMedia("(pointer: fine)").matches) text.focus();
  scrollTo({ top: 0, behavior: "smooth" });
}

function goTo(number) {
  current = number;
  history.pushState(place(), "", addressOf(step()));
  show();
}

// Behind the "#", so that words are not written into logs of servers between.
function addressOf(one) {
  const shared = new URLSearchParams();
  if (one.item !== undefined) shared.set("item", one.item);
  if (one.text.trim()) shared.set("text", one.text.trim());
  return `#${shared}`;
}

function stepOfAddress() {
  const shared = new URLSearchParams(location.hash.slice(1));
  const item = Number.parseInt(shared.get("item"), 10);
  return { item: Number.isNaN(item) ? undefined : item, text: shared.get("text") || "" };
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
  showTrail();
  refresh();
}

function showReference(one) {
  heat.classList.remove("on");
  $("sentence").hidden = true;
  reading.abort();
  reading = new AbortController();
  if (!hasReference(one)) return;
  if (one.file) $("picture").src = one.url;
  else showPicture($("picture"), `/v1/items/${one.item}/image`).catch(showProblem);
  readSentence(one, reading.signal);
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
  const entry = element("li");
  entry.append(button);
  return entry;
}

// ---- why ----

async function readSentence(one, signal) {
  try {
    const sentence = await postAbout("/v1/sentence", one, {}, signal);
    if (signal.aborted) return;
    if (one.file) one.sentence = sentence.sentence;
    const gated = sentence.pseudo_words.some(({ gate }) => gate < FULLY_HEARD);
    const marks = sentence.pseudo_words.map((word, number) => mark(word, number + 1, sentence.region, gated));
    $("pseudo").replaceChildren(...marks);
    $("sentence").hidden = !marks.length;
  } catch (error) {
    // A reference that cannot be read fails the search too, which shows why.
    if (!signal.aborted && !(error instanceof Refused)) showProblem(error);
  }
}

// One pseudo-word: its number and, where some are muted, how strongly it is heard. Pointing shows where it looks,
// pressing keeps it shown.
function mark({ attention, gate }, number, region, gated) {
  const button = element("button", { type: "button" });
  button.append(element("span", { textContent: `word ${number}` }));
  if (gated) button.append(gateBar(gate));
  const heard = gated ? `, heard ${Math.round(100 * gate)} percent` : "";
  button.setAttribute("aria-label", `Word ${number}${heard}: ${whereabouts(attention)}`);
  button.setAttribute("aria-pressed", "false");
  const look = () => {
    drawHeat(heat, attention, region);
    heat.classList.add("on");
  };
  const back = () => {
    const kept = $("pseudo").querySelector("[aria-pressed=true]");
    if (kept) kept.look();
    else heat.classList.remove("on");
  };
  button.look = look;
  button.addEventListener("pointerenter", look);
  button.addEventListener("pointerleave", back);
  button.addEventListener("focus", look);
  button.addEventListener("blur", back);
  button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") === "true";
    for (const other of $("pseudo").children) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(!pressed));
    if (pressed) heat.classList.remove("on");
    else look();
  });
  return button;
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

// ---- what people do ----

function wordsChanged() {
  step().text = text.value;
  history.replaceState(place(), "", addressOf(step()));
  showTrail();
  refresh();
}

function takeFile(file) {
  if (!file) return;
  take({ file, url: URL.createObjectURL(file), text: hasReference(step()) ? "" : step().text });
}

text.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(wordsChanged, TYPING_MS);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  wordsChanged();
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
  take({ text: step().text });
  text.focus();
});
$("more").addEventListener("click", () => refresh(shownOfQuery));
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  take({ text: "" });
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
  if (event.state?.visit === visit && event.state.current < trail.length) current = event.state.current;
  else {
    trail = [stepOfAddress()];
    current = 0;
  }
  show();
});

$("token-form").addEventListener("submit", () => {
  setToken($("token").value.trim());
  show();
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

trail = [stepOfAddress()];
history.replaceState(place(), "");
show();
