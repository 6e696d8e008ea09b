// The page: what people do, and what follows from it.

import { offerAddresses, takesAddress } from "./address.js";
import { Refused, canBeToken, get, setToken } from "./api.js";
import { giveOriginals, openDetail, whenLooked } from "./detail.js";
import { $, copy, remember } from "./dom.js";
import { drawFilters } from "./filters.js";
import { offerFolders, openFolders, whenIndexed } from "./folders.js";
import { keepPicture } from "./own.js";
import { DRAGGED, endWaiting, focusPicture, topResult } from "./results.js";
import { savedPictures, whenSaved } from "./saved.js";
import { lookAt, readLater, refresh, switchDevice, whenMuted } from "./search.js";
import { whenSorted } from "./sort.js";
import * as state from "./state.js";
import { MAX_REFERENCES, addressOf, asks, hasReference, lookedAt, newStep, references } from "./steps.js";
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

function mayAdd() {
  return hasReference(step()) && references(step()).length < MAX_REFERENCES;
}

// References join the current step's, or begin a step where it has none.
function add(more) {
  const room = MAX_REFERENCES - references(step()).length;
  if (!hasReference(step())) {
    const [own, ...also] = more.slice(0, MAX_REFERENCES).map((one) => ({ weight: 1, ...one }));
    take(newStep({ ...own, also, text: text.value }));
  } else {
    keepTyped();
    step().also = [...step().also, ...more.slice(0, room).map((one) => ({ weight: 1, ...one }))];
    changed();
    $("also").lastElementChild.querySelector("input").focus({ preventScroll: true });
  }
  if (more.length > room) view.tell(`A query holds up to ${MAX_REFERENCES} pictures.`);
}

// The reference at a place leaves the query; without the step's own another one takes its place, as a step of its own.
function drop(place) {
  keepTyped();
  const also = step().also.filter((_, at) => at + 1 !== place);
  if (place) {
    if (step().looked) look(0);
    step().also = also;
    if (!also.length) step().weight = 1;
    changed();
  } else take(state.leaveOwn(newStep({ also, text: text.value })));
}

// The reference at a place is shown large, with what the model read in it.
function look(place) {
  step().looked = place;
  view.showReference(step());
  view.showRefinements(step());
  lookAt(step());
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
  add,
  drop,
  look,
  weigh: () => soon(changed),
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
  add,
  mayAdd,
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

// Pictures of one's own begin a step together, or join the current one.
function takeFiles(files, adding = false) {
  const [own, ...also] = [...files].map((file) => ({ file, url: URL.createObjectURL(file), weight: 1 }));
  if (!own) return;
  const one = newStep({ ...own, also: also.slice(0, MAX_REFERENCES - 1), text: hasReference(step()) ? "" : text.value });
  const joining = adding && hasReference(step());
  if (joining) add([own, ...also]);
  else take(one);
  if (!joining && also.length >= MAX_REFERENCES) view.tell(`A query holds up to ${MAX_REFERENCES} pictures.`);
  const kept = joining ? step() : one;
  keepAll(references(kept).filter(({ file, own: name }) => file && !name), kept);
}

async function keepAll(some, kept) {
  for (const reference of some) reference.own = await keepPicture(reference.file, [...savedPictures(), ...state.ownPictures()]);
  if (step() === kept) state.rewrite();
}

for (const input of [$("file"), $("camera"), $("also-file")]) {
  input.addEventListener("change", () => {
    takeFiles(input.files, input.id === "also-file");
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
  drop(references(step()).indexOf(lookedAt(step())));
  text.focus();
});

// Files that are dropped on the right half join the pictures that are asked with.
const adds = (event) => mayAdd() && event.clientX > innerWidth / 2;
const bringsResult = (event) => event.dataTransfer.types.includes(DRAGGED);
const bringsFile = (event) => event.dataTransfer.types.includes("Files") && !bringsResult(event);
const ofQuery = (event) => event.target.closest?.(".ask");
for (const kind of ["dragover", "drop", "dragend", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    document.querySelector(".ask").classList.toggle("takes", kind === "dragover" && bringsResult(event) && Boolean(ofQuery(event)));
    if (!bringsResult(event) || !ofQuery(event)) return;
    if (kind === "dragover" || kind === "drop") event.preventDefault();
    if (kind !== "drop") return;
    const dragged = JSON.parse(event.dataTransfer.getData(DRAGGED));
    if (event.target.closest("#also-row")) add([dragged]);
    else take(newStep({ ...dragged, text: hasReference(step()) ? "" : text.value }));
  });
}
document.addEventListener("dragover", (event) => {
  if (!bringsFile(event)) return;
  event.preventDefault();
  $("veil").hidden = false;
  $("veil").classList.toggle("halves", mayAdd());
  $("veil").classList.toggle("adds", adds(event));
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
  else takeFiles(event.dataTransfer.files, adds(event));
});
// Of another site, by its address.
async function takeFetched(file) {
  view.tell("Fetching the picture …");
  try {
    takeFiles([await file]);
    $("toast").hidden = true;
  } catch (error) {
    $("toast").hidden = true;
    view.showProblem(error);
  }
}
document.addEventListener("dragover", (event) => {
  if (event.dataTransfer.types.includes("text/uri-list") && !bringsResult(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!bringsFile(event) && !bringsResult(event) && takesAddress(event.dataTransfer)) event.preventDefault();
});
document.addEventListener("paste", (event) => {
  if (event.target.id !== "address" && takesAddress(event.clipboardData)) event.preventDefault();
  const files = [...event.clipboardData.files].filter((one) => one.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  takeFiles(files);
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
  const mine = references(step()).filter(({ file }) => file).length;
  const left = mine > 1 ? `your own ${mine} pictures: who opens it has to show them` : "your own picture: who opens it has to show one";
  const own = mine ? ` It holds the words and filters, but not ${left}.` : "";
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

// What takes room above the results is there before they are waited for, so that nothing moves when they come.
async function begin() {
  try {
    const about = await get("v1/gallery");
    chosen.columns = about.columns;
    $("device").hidden = !about.device;
    giveOriginals(about);
    view.introduce(about);
    offerAddresses(about.fetches_from, takeFetched);
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
