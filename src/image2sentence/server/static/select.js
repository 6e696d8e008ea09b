// Selecting several results: their paths copied, saved as a list, or drawn into one picture.

import { fetchPicture } from "./api.js";
import { $, copy, element } from "./dom.js";
import { nameOf } from "./titles.js";

const MOST = 100;
const COLUMNS = 5, SIDE = 192, GAP = 16, LINE = 34;
const selected = new Map(); // of results by id, in the order in which they were selected
let on = false;

// Says of a card whether it is selected, while cards can be.
export function markCard(whole, result) {
  whole.dataset.id = result.id;
  mark(whole);
}

function mark(whole) {
  const look = whole.querySelector(".open");
  if (on) look.setAttribute("aria-pressed", selected.has(Number(whole.dataset.id)));
  else look.removeAttribute("aria-pressed");
  look.querySelector(".does").textContent = on ? ". Select" : ". Look closer";
}

// Selects a result or takes it out; false where results are not being selected.
export function select(result, whole) {
  if (!on) return false;
  if (selected.has(result.id)) selected.delete(result.id);
  else if (selected.size < MOST) selected.set(result.id, result);
  mark(whole);
  show();
  return true;
}

function show() {
  $("select").setAttribute("aria-pressed", on);
  $("selection").hidden = !on;
  $("selection-count").textContent = selected.size ? `${selected.size} selected` : "Choose results";
  for (const id of ["selection-copy", "selection-save", "selection-sheet", "selection-clear"]) $(id).disabled = !selected.size;
}

function redraw() {
  for (const whole of $("results").querySelectorAll("[data-id]")) mark(whole);
  show();
}

const lines = () => [...selected.values()].map((one) => one.path ?? one.name);

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

$("select").addEventListener("click", () => {
  on = !on;
  if (!on) selected.clear();
  redraw();
});
$("selection-clear").addEventListener("click", () => {
  selected.clear();
  redraw();
  $("select").focus();
});
$("selection-copy").addEventListener("click", async () => {
  const done = await copy(lines().join("\n"));
  $("selection-count").textContent = done ? `${selected.size} copied` : "This browser does not let the page copy: save the list";
});
$("selection-save").addEventListener("click", () => save(new Blob([`${lines().join("\n")}\n`], { type: "text/plain" }), "selection.txt"));
$("selection-sheet").addEventListener("click", async () => {
  $("selection-count").textContent = "Drawing …";
  save(await sheet([...selected.values()]), "selection.png");
  show();
});

// The pictures in rows with their names, as a PNG file.
async function sheet(results) {
  const columns = Math.min(COLUMNS, results.length);
  const canvas = element("canvas", {
    width: GAP + columns * (SIDE + GAP),
    height: GAP + Math.ceil(results.length / columns) * (SIDE + LINE + GAP),
  });
  const paper = canvas.getContext("2d");
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.font = "13px system-ui, sans-serif";
  for (const [number, result] of results.entries()) {
    const left = GAP + (number % columns) * (SIDE + GAP);
    const top = GAP + Math.floor(number / columns) * (SIDE + LINE + GAP);
    await draw(paper, result, left, top);
    paper.fillStyle = "#1d1c1f";
    paper.fillText(fitting(paper, nameOf(result)), left, top + SIDE + 20);
  }
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A picture whose file is gone leaves a grey plate.
async function draw(paper, result, left, top) {
  const picture = await fetchPicture(`v1/items/${result.id}/thumbnail`).then(createImageBitmap).catch(() => null);
  paper.fillStyle = "#e4e4e7";
  if (!picture) paper.fillRect(left, top, SIDE, SIDE);
  else {
    const scale = SIDE / Math.max(picture.width, picture.height);
    const [width, height] = [scale * picture.width, scale * picture.height];
    paper.drawImage(picture, left + (SIDE - width) / 2, top + (SIDE - height) / 2, width, height);
  }
}

function fitting(paper, text) {
  let shown = text;
  while (shown && paper.measureText(`${shown}…`).width > SIDE) shown = shown.slice(0, -1);
  return shown === text ? text : `${shown}…`;
}
