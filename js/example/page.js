// The example page: a picture and words become a query vector, as one types.

import { Image2SentenceError, loadEncoder } from "/src/index.js";

const $ = (id) => document.getElementById(id);
const arrived = new Map();
let encoder;
let sentence = null;
let readMs = null;
let latest = 0;
let vector = [];

function showProgress({ file, loaded, total, cached }) {
  arrived.set(file, { loaded, total: total ?? loaded, cached });
  const sum = (key) => [...arrived.values()].reduce((all, one) => all + one[key], 0);
  $("progress").value = sum("loaded") / Math.max(1, sum("total"));
}

function showReady(start) {
  const kept = [...arrived.values()].filter(({ cached }) => cached).length;
  const where = kept ? "kept from the last visit" : "downloaded, and kept for the next visit";
  const threads = crossOriginIsolated ? "with threads" : "on one thread: the page is not cross-origin isolated";
  $("status").textContent = `Ready after ${Math.round(performance.now() - start)} ms (${where}; ${threads}).`;
  $("progress").hidden = true;
  for (const id of ["picture", "words"]) $(id).disabled = false;
}

function showProblem(error) {
  if (!(error instanceof Image2SentenceError)) console.error(error);
  $("note").textContent = error.message;
  $("note").classList.add("bad");
}

// ---- asking ----

async function read(file) {
  const start = performance.now();
  sentence = await encoder.encodeSentence(file);
  readMs = performance.now() - start;
  URL.revokeObjectURL($("shown").src);
  $("shown").src = URL.createObjectURL(file);
  $("shown").hidden = false;
  $("invitation").hidden = true;
}

async function ask() {
  const words = $("words").value;
  const mine = ++latest;
  if (!sentence && !words.trim()) return;
  const start = performance.now();
  const answer = await encoder.encodeQuery(sentence, words);
  const spent = performance.now() - start;
  const unknown = await encoder.notUnderstood(words);
  if (mine !== latest) return; // something newer has been asked
  vector = answer;
  showUnknown(unknown);
  const read = readMs === null ? "" : `picture ${readMs.toFixed(0)} ms, `;
  $("caption").textContent = `${vector.length} numbers, ${4 * vector.length} bytes · ${read}words ${spent.toFixed(1)} ms`;
  $("answer").hidden = false;
  draw();
}

function showUnknown(unknown) {
  $("note").classList.remove("bad");
  $("note").textContent = unknown
    .map(({ word, near }) => `Not understood: ${word}${near.length ? ` (near: ${near.join(", ")})` : ""}`)
    .join(" · ");
}

function draw() {
  const canvas = $("vector");
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  canvas.ariaLabel = `The query vector's ${vector.length} numbers as bars`;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  const [step, middle] = [canvas.width / vector.length, canvas.height / 2];
  const most = Math.max(...vector.map(Math.abs));
  vector.forEach((value, place) => {
    context.fillRect(place * step, middle, Math.max(1, step * 0.7), (-value / most) * middle * 0.9);
  });
}

const tried = (action) => (event) => {
  event.preventDefault();
  action(event).catch(showProblem);
};
$("ask").addEventListener("submit", tried(ask));
$("words").addEventListener("input", tried(ask));
$("picture").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) read(file).then(ask).catch(showProblem);
});
$("copy").addEventListener("click", tried(() => navigator.clipboard.writeText(JSON.stringify([...vector]))));

try {
  const start = performance.now();
  encoder = await loadEncoder("/model/", { runtime: "/runtime/", worker: true, progress: showProgress });
  showReady(start);
} catch (error) {
  $("status").textContent = "";
  showProblem(error);
}
