// The page: what people do, and what follows from it.

import { Refused, canBeToken, get, setToken } from "./api.js";
import { giveOriginals, openDetail, whenLooked } from "./detail.js";
import { $, copy, remember } from "./dom.js";
import { drawFilters } from "./filters.js";
import { offerFolders, openFolders, whenIndexed } from "./folders.js";
import { keepPicture } from "./own.js";
import { DRAGGED, endWaiting, focusPicture, topResult, waitForResults } from "./results.js";
import { savedPictures, whenSaved } from "./saved.js";
import { readLater, refresh, switchDevice, whenMuted } from "./search.js";
import { whenSorted } from "./sort.js";
import * as state from "./state.js";
import { addressOf, asks, hasReference, newStep } from "./steps.js";
import * as view from "./view.js";

const TYPING_MS = 160;
const SCROLLED_MS = 300;
const text = $("text");
const { chosen, step } = state;
let typing = 0;
let begun = false;

// ---- steps ----

function show() {
  view.showStep();
  readLater(step());
  ask();
}

function ask() {
  clearTimeout(typing);
  return refresh();
}

function goTo(number) {
  state.enter(number);
  show();
}

// Words whose query has not begun yet belong to the step that is left.
function keepTyped() {
  clearTimeout(typing);
  step().text = text.value;
}

// Go on from here with a new reference.
function take(one) {
  keepTyped();
  goTo(state.append(one));
  // On a phone the keyboard would cover the results.
  (matchMedia("(pointer: fine)").matches ? text : $("title")).focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: "smooth" });
}

// The current step has been changed in place.
function changed() {
  state.rewrite();
  view.showTrail();
  view.showTitle();
  view.showRefinements(step());
  ask();
}

function wordsChanged() {
  step().text = text.value;
  changed();
}

function soon(then) {
  clearTimeout(typing);
  typing = setTimeout(then, TYPING_MS);
}

// ---- what is shown can be used ----

view.whenUsed({
  take,
  open: openDetail,
  goTo(number) {
    keepTyped();
    goTo(number);
  },
  allow(words) {
    step().not = step().not.filter((other) => other !== words);
    changed();
    $("not").focus();
  },
  allowLike(item) {
    step().unlike = step().unlike.filter((other) => other !== item);
    changed();
    $("not").focus();
  },
  replaceWord(word, other) {
    const letters = "[\\p{L}\\p{N}\\p{M}]";
    const whole = new RegExp(`(?<!${letters})${word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")}(?!${letters})`, "giu");
    text.value = text.value.replace(whole, () => other);
    wordsChanged();
    text.focus();
  },
  leaveOut(phrase, unwanted) {
    text.value = text.value.replace(phrase, " ").replace(/\s+/g, " ").trim();
    if (!step().not.includes(unwanted) && step().not.length < view.MAX_NEGATIVES) step().not = [...step().not, unwanted];
    wordsChanged();
    text.focus();
  },
  askForToken() {
    $("token-wrong").hidden = !$("token").value;
    if (!$("asks-token").open) $("asks-token").showModal();
  },
});
whenLooked({
  take,
  mayUnlike: () => asks(step()) && step().unlike.length < view.MAX_NEGATIVES,
  unlike({ id }) {
    if (step().unlike.includes(id)) return;
    step().unlike = [...step().unlike, id];
    changed();
    $("results").focus({ preventScroll: true });
  },
  closed: ({ id }) => focusPicture(id),
});
// Pictures have come or gone: shown at once where the gallery is looked at, else with the next query.
whenIndexed({
  async shows(final) {
    if (final) {
      chosen.columns = (await get("v1/gallery").catch(() => chosen)).columns;
      drawFilters($("filters"), chosen, changed);
    }
    if (final || !asks(step())) ask();
  },
});
whenMuted((one, muted) => {
  one.muted = muted;
  changed();
});

// ---- the query ----

text.addEventListener("input", () => soon(wordsChanged));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  wordsChanged();
});
$("balance").addEventListener("input", () => {
  step().balance = Number($("balance").value);
  soon(changed);
});
$("titles").addEventListener("change", ({ target }) => {
  step().titles = target.checked;
  changed();
});
$("without-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("not").value.trim().replace(/^without\s+/i, "");
  $("not").value = "";
  if (!words || step().not.includes(words)) return;
  step().not = [...step().not, words];
  changed();
});
$("on-device").addEventListener("change", ({ target }) => switchDevice(target.checked));

// ---- the reference ----

function takeFile(file) {
  if (!file) return;
  const one = newStep({ file, url: URL.createObjectURL(file), text: hasReference(step()) ? "" : text.value });
  take(one);
  keepPicture(file, [...savedPictures(), ...state.allSteps().map(({ own }) => own)]).then((own) => {
    one.own = own;
    if (step() === one) state.rewrite();
  });
}

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

const bringsResult = (event) => event.dataTransfer.types.includes(DRAGGED);
const bringsFile = (event) => event.dataTransfer.types.includes("Files") && !bringsResult(event);
const ofQuery = (event) => event.target.closest?.(".ask");
for (const kind of ["dragover", "drop", "dragend", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    document.querySelector(".ask").classList.toggle("takes", kind === "dragover" && bringsResult(event) && Boolean(ofQuery(event)));
    if (!bringsResult(event) || !ofQuery(event)) return;
    if (kind === "dragover" || kind === "drop") event.preventDefault();
    if (kind === "drop") take(newStep({ ...JSON.parse(event.dataTransfer.getData(DRAGGED)), text: hasReference(step()) ? "" : text.value }));
  });
}
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
  const entry = event.dataTransfer.items[0]?.webkitGetAsEntry?.();
  if (entry?.isDirectory && !$("add").hidden) openFolders(entry.name);
  else takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  takeFile(file);
});

// ---- the rest of the page ----

// The address says where in the list one is.
history.scrollRestoration = "manual";
let scrolled = 0;
addEventListener("scroll", () => {
  clearTimeout(scrolled);
  scrolled = setTimeout(() => {
    if (begun && topResult() !== state.wanted()) state.keepPlace(topResult());
  }, SCROLLED_MS);
}, { passive: true });
whenSorted(changed);
whenSaved({
  address: () => addressOf(step(), chosen),
  suggested: () => (document.title.includes(" · ") ? document.title.split(" · ")[0] : chosen.condition() ? "Filtered" : ""),
  told: view.tell,
  async open(address) {
    keepTyped();
    history.pushState(null, "", address);
    await state.goBack(null);
    drawFilters($("filters"), chosen, changed);
    show();
    scrollTo({ top: 0, behavior: "instant" });
  },
});
$("retry").addEventListener("click", () => {
  $("title").focus();
  view.hideProblem();
  if (begun) show();
  else begin();
});
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  chosen.clear();
  chosen.sort = "";
  drawFilters($("filters"), chosen, changed);
  take(newStep());
});
$("share").addEventListener("click", async () => {
  const done = await copy(location.href);
  const own = step().file ? " It holds the words and filters, but not your own picture: who opens it has to show one." : "";
  view.tell((done ? "Link copied." : "This browser does not let the page copy: copy the address above.") + own);
});
addEventListener("popstate", async (event) => {
  await state.goBack(event.state);
  drawFilters($("filters"), chosen, changed);
  show();
  if (!state.wanted()) scrollTo({ top: 0, behavior: "instant" });
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
$("asks-token").addEventListener("cancel", () => view.showProblem(new Refused(0, "This server wants its token.")));

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

async function begin() {
  waitForResults();
  try {
    const about = await get("v1/gallery");
    chosen.columns = about.columns;
    $("device").hidden = !about.device;
    giveOriginals(about);
    view.nameModel(about.model);
    offerFolders(about.local, about.pictures).catch(view.showProblem);
  } catch (error) {
    endWaiting();
    view.showProblem(error);
    return;
  }
  begun = true;
  await state.begin(text.value); // what was typed while the page was loading stays
  drawFilters($("filters"), chosen, changed);
  show();
  if (step().lost) view.tell("This link was made with a picture that is not in this browser. Show it again to ask with it.");
}

begin();
