// One picture looked at closely: large, with what is known of it, what it is like, and what can be done with it.

import { download, get, postJson, showPicture } from "./api.js";
import { $, bytes, capital, copy, element, unseen } from "./dom.js";
import { fitWord, rounded, scores } from "./results.js";
import { newStep } from "./steps.js";
import { nameOf, titleColumn, titleOf } from "./titles.js";

const SIMILAR = 12;
const SWIPE_PIXELS = 50;
const dialog = $("detail");

let list = [];
let place = 0;
let kind = "Picture";
let originals = false;
let local = false;
let left = false;
let asking = new AbortController();
// take(step), add(references), mayAdd(): whether that can be asked, unlike(picture), mayUnlike(): likewise, closed(picture), problem(error).
let actions = {};

export function whenLooked(given) {
  actions = given;
}

// Whether this server gives out original files, and opens files for this client.
export function giveOriginals(about) {
  ({ originals, local } = about);
}

// Shows the picture at a place of a list, which the arrows then go through.
export function openDetail(pictures, at) {
  kind = pictures[at].rank === undefined ? "Picture" : "Result";
  look(pictures, at);
  if (!dialog.open) dialog.showModal();
  $("detail-use").focus({ preventScroll: true });
}

const picture = () => list[place];

// What is known of how well it was found: of a result its fit, of a similar picture its likeness.
function figures(one) {
  if (one.score === undefined) return [];
  return one.rank === undefined ? [`likeness ${rounded(one.score)}`] : [fitWord(one), scores(one)];
}

function look(pictures, at) {
  [list, place] = [pictures, at];
  const one = picture();
  $("detail-title").textContent = nameOf(one);
  $("detail-place").textContent = [`${kind} ${(place + 1).toLocaleString("en")} of ${list.length.toLocaleString("en")}`, ...figures(one)].filter(Boolean).join(" · ");
  $("detail-note").textContent = "";
  $("detail-before").disabled = place === 0;
  $("detail-after").disabled = place === list.length - 1;
  $("detail-before").hidden = $("detail-after").hidden = list.length === 1;
  $("detail-copy").textContent = one.path ? "Copy path" : "Copy file name";
  $("detail-download").textContent = originals ? "Download original" : "Download";
  $("detail-facts").replaceChildren(...facts(one).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  for (const one of [dialog, dialog.querySelector(".about")]) one.scrollTo(0, 0);
  showLarge(one);
  showSimilar(one);
}

function showLarge(one) {
  const img = $("detail-picture");
  img.alt = nameOf(one);
  img.hidden = false;
  setGone(false);
  img.removeAttribute("src"); // not the last picture under this one's name
  showPicture(img, `v1/items/${one.id}/image`).catch(showGone);
}

function showGone() {
  $("detail-picture").hidden = true;
  setGone(true);
  if (document.activeElement === document.body || document.activeElement?.hidden) $("detail-title").focus({ preventScroll: true });
}

// A picture whose file is gone can be neither asked with nor saved.
function setGone(gone) {
  $("detail-gone").hidden = !gone;
  for (const id of ["detail-use", "detail-download"]) $(id).hidden = gone;
  $("detail-unlike").hidden = gone || !actions.mayUnlike();
  $("detail-also").hidden = gone || !actions.mayAdd();
  for (const id of ["detail-open", "detail-show"]) $(id).hidden = gone || !local || !picture().path;
}
$("detail-picture").addEventListener("error", showGone);

// Names and values of all that is known of a picture beside its title.
function facts(one) {
  const { name, path, size, width, height, metadata } = one;
  const title = titleColumn(one);
  const known = Object.entries(metadata).filter(([column]) => column !== title).map(([column, value]) => [capital(column.replaceAll("_", " ")), inWords(value)]);
  const pixels = width && height && `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels`;
  const file = [["File", name], ["Path", path], ["Size", [pixels, size && bytes(size)].filter(Boolean).join(", ")]];
  return [...known, ...file].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

function inWords(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 6 });
  return /^\d{4}-\d\d-\d\dT/.test(value) ? value.replace("T", " ") : value;
}

// ---- what it is like ----

async function showSimilar(one) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  for (const id of ["detail-near", "detail-similar"]) $(id).hidden = true;
  try {
    const found = await get(`v1/items/${one.id}/similar`, { k: SIMILAR }, signal);
    if (signal.aborted) return;
    showStrip("detail-near", found.near_duplicates);
    showStrip("detail-similar", found.similar);
  } catch (error) {
    if (!signal.aborted) $("detail-note").textContent = `Similar pictures cannot be shown: ${error.message}.`;
  }
}

function showStrip(id, pictures) {
  $(id).hidden = !pictures.length;
  $(id).querySelector("ul").replaceChildren(
    ...pictures.map((one, at) => {
      const img = element("img", { alt: "", width: 84, height: 84, loading: "lazy" });
      showPicture(img, `v1/items/${one.id}/thumbnail`).catch(() => {});
      const button = element("button", { type: "button", title: nameOf(one) }, img, unseen(`Look at ${nameOf(one)}`));
      button.addEventListener("click", () => {
        kind = "Similar picture";
        look(pictures, at);
        $("detail-title").focus({ preventScroll: true });
      });
      return element("li", {}, button);
    }),
  );
}

// ---- what can be done ----

async function go(by) {
  const [pictures, at] = [list, place + by];
  if (at < 0 || at >= list.length) return;
  if (!list[at]) await list.need?.(at);
  if (list !== pictures || !list[at] || place !== at - by) return;
  look(list, at);
  // A button that has just been disabled would lose the keyboard.
  if (document.activeElement === document.body || document.activeElement?.disabled) $("detail-title").focus({ preventScroll: true });
}

function close() {
  if (dialog.open) dialog.close();
}

// Something is done with the picture, which says where the keyboard goes.
function leave() {
  left = true;
  close();
}

dialog.addEventListener("close", () => {
  asking.abort();
  if (!left) actions.closed(picture());
  left = false;
});
dialog.addEventListener("click", ({ target }) => {
  if (target === dialog) close();
});
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  go(by);
});
$("detail-before").addEventListener("click", () => go(-1));
$("detail-after").addEventListener("click", () => go(1));
$("detail-close").addEventListener("click", close);
$("detail-use").addEventListener("click", () => {
  const { id } = picture();
  const title = titleOf(picture());
  leave();
  actions.take(newStep({ item: id, title }));
});
$("detail-also").addEventListener("click", () => {
  const { id } = picture();
  const title = titleOf(picture());
  leave();
  actions.add([{ item: id, title }]);
});
$("detail-unlike").addEventListener("click", () => {
  const one = picture();
  leave();
  actions.unlike(one);
});
$("detail-copy").addEventListener("click", async () => {
  const text = picture().path ?? picture().name;
  $("detail-note").textContent = (await copy(text)) ? `Copied: ${text}` : `This browser does not let the page copy. Mark it here: ${text}`;
});
$("detail-download").addEventListener("click", (event) => {
  event.preventDefault();
  const { id, name } = picture();
  const saved = originals ? download(`v1/items/${id}/original`, name) : download(`v1/items/${id}/image`, `${name.replace(/\.\w+$/, "")}.jpg`);
  saved.catch((error) => ($("detail-note").textContent = `It cannot be downloaded: ${error.message}.`));
});

for (const [id, act] of [["detail-open", "open"], ["detail-show", "show"]]) {
  $(id).addEventListener("click", async () => {
    $("detail-note").textContent = "";
    await postJson(`v1/local/items/${picture().id}/${act}`).catch((error) => ($("detail-note").textContent = `${capital(error.message)}.`));
  });
}

let touched = null;
$("detail-plate").addEventListener("touchstart", ({ touches }) => (touched = touches.length === 1 ? touches[0] : null), { passive: true });
$("detail-plate").addEventListener("touchend", ({ changedTouches: [end] }) => {
  if (!touched) return;
  const [across, down] = [end.clientX - touched.clientX, end.clientY - touched.clientY];
  if (Math.abs(across) > SWIPE_PIXELS && Math.abs(across) > 2 * Math.abs(down)) go(across < 0 ? 1 : -1);
  touched = null;
});
