// Indexing folders of the computer that the server runs on, for those who sit at it.

import { get, postJson } from "./api.js";
import { $, capital, element } from "./dom.js";

const WATCH_MS = 1000;
const SHOW_MS = 5000;
const NOTICED_MS = 1500; // the server looks for changes once a second
const BUSY = new Set(["starting", "running", "stopping"]);
const dialog = $("folders");

let listed = null; // the folder that is shown
let progress = { state: "none" };
let watching = 0;
let shownAt = 0;
let asking = new AbortController();
// shows(final): the gallery has changed, for the last time where final; called while a run goes on and when it ends.
let actions = {};

export function whenIndexed(given) {
  actions = given;
}

// Whether this client may index; a gallery without pictures begins with it.
export async function offerFolders(local, pictures) {
  $("add").hidden = !local;
  if (!local) return;
  take(await get("v1/local/progress"));
  if (!pictures && !BUSY.has(progress.state)) openFolders();
}

// Opens the dialog; `dropped` is the name of a folder that was dropped on the page, which does not say where it lies.
export async function openFolders(dropped = "") {
  if (!dialog.open) dialog.showModal();
  $("folders-note").textContent = "";
  try {
    const here = await get("v1/local");
    take(here.progress);
    showModel(here.model);
    showUsual(here);
    const found = dropped && (await find(dropped, here.usual));
    await list(found || listed?.path || here.indexed[0] || here.usual[0]?.[1] || "~");
    if (dropped && !found) $("folders-note").textContent = `A browser does not tell where a dropped folder lies: choose “${dropped}” below.`;
  } catch (error) {
    showProblem(error);
  }
}

// The path of a folder of this name in one of the usual places; "" where there is none.
async function find(name, usual) {
  for (const [, path] of usual) {
    const { folders } = await get("v1/local/folders", { path }).catch(() => ({ folders: [] }));
    if (folders.includes(name)) return below(path, name);
  }
  return "";
}

const below = (path, name) => `${path}${/[\\/]$/.test(path) ? "" : path.includes("\\") ? "\\" : "/"}${name}`;

function showModel(model) {
  const { name, knows } = model ?? {};
  $("folders-model").textContent = name ? `Pictures are read by the model ${name}${knows ? `, which knows ${knows}` : ""}.` : "";
}

function showUsual({ usual, indexed }) {
  const known = indexed.map((path) => [`Update ${path.split(/[\\/]/).pop()}`, path]);
  $("folders-usual").replaceChildren(
    ...[...usual, ...known].map(([name, path]) => {
      const button = element("button", { type: "button", textContent: name, title: path });
      button.addEventListener("click", () => list(path).catch(showProblem));
      return element("li", {}, button);
    }),
  );
}

async function list(path) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const found = await get("v1/local/folders", { path }, signal);
  listed = found;
  $("folders-problem").hidden = true;
  $("folders-path").value = found.path;
  $("folders-up").disabled = !found.parent;
  $("folders-list").replaceChildren(...found.folders.map(folderEntry));
  $("folders-none").hidden = found.folders.length > 0;
  const pictures = found.pictures === 1 ? "1 picture" : `${found.pictures.toLocaleString("en")} pictures`;
  const inside = found.folders.length ? "; the folders in it are indexed, too" : "";
  $("folders-count").textContent = `${pictures} in this folder itself${inside}.${found.whole ? "" : " Not all of it is listed: type the path."}`;
  const table = $("folders-table");
  const kept = table.value;
  table.replaceChildren(element("option", { value: "", textContent: "no table" }), ...found.tables.map((name) => element("option", { value: below(found.path, name), textContent: name })));
  if ([...table.options].some(({ value }) => value === kept)) table.value = kept;
  $("folders-table-row").hidden = !found.tables.length;
}

function folderEntry(name) {
  const button = element("button", { type: "button", textContent: name });
  button.addEventListener("click", async () => {
    await list(below(listed.path, name)).catch(showProblem);
    ($("folders-list").querySelector("button") ?? $("folders-start")).focus();
  });
  return element("li", {}, button);
}

function showProblem(error) {
  if (error.name === "AbortError") return;
  $("folders-problem").textContent = capital(error.message);
  $("folders-problem").hidden = false;
}

// ---- the run ----

async function start() {
  try {
    const path = $("folders-path").value.trim();
    if (path !== listed?.path) await list(path);
    take(await postJson("v1/local/index", { folder: path, table: $("folders-table").value || null }));
    $("run-stop").focus();
  } catch (error) {
    showProblem(error);
  }
}

async function watch() {
  try {
    take(await get("v1/local/progress"));
  } catch {
    again(); // the server may be busy, or restart
  }
}

function again() {
  clearTimeout(watching);
  watching = setTimeout(watch, WATCH_MS);
}

// What the server says of the run, shown; asked again as long as it goes on.
function take(told) {
  const wasBusy = BUSY.has(progress.state);
  const busy = BUSY.has(told.state);
  const moved = told.done !== progress.done;
  progress = told;
  showRun();
  if (busy) again();
  if (wasBusy && !busy) setTimeout(() => actions.shows(true), NOTICED_MS);
  else if (busy && moved && Date.now() - shownAt > SHOW_MS) {
    shownAt = Date.now();
    actions.shows(false);
  }
}

function showRun() {
  const { state, done, total, failed, reasons } = progress;
  const busy = BUSY.has(state);
  $("run").hidden = state === "none";
  $("run-stop").hidden = !busy;
  $("run-stop").disabled = state === "stopping";
  $("folders-start").disabled = busy;
  $("run-title").textContent = title(progress);
  const bar = $("run-bar");
  bar.hidden = !busy;
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  const status = statusOf(progress);
  if ($("run-status").textContent !== status) $("run-status").textContent = status;
  $("run-facts").replaceChildren(...factsOf(progress).map((text) => element("li", { textContent: text })));
  $("run-failed").hidden = !failed;
  $("run-failed").firstElementChild.textContent = `${failed === 1 ? "One file" : `${(failed ?? 0).toLocaleString("en")} files`} could not be read`;
  $("run-reasons").replaceChildren(...(reasons ?? []).map(([path, reason]) => element("li", {}, element("b", { textContent: path }), `: ${reason}`)));
  $("add-name").textContent = busy ? (total ? `Indexing ${Math.floor((100 * done) / total)} %` : "Indexing …") : "Add pictures";
}

function title({ state, folder }) {
  const name = folder?.split(/[\\/]/).pop() || folder;
  return { starting: `Indexing ${name}`, running: `Indexing ${name}`, stopping: "Stopping", done: `${name} is indexed`, stopped: "Stopped: what was finished is in the gallery, and the next run goes on from there", failed: `${name} could not be indexed` }[state] ?? "";
}

function statusOf({ state, done, total, rate, left, seconds, error }) {
  if (state === "failed") return capital(error ?? "");
  if (!BUSY.has(state)) return `${inWords(seconds ?? 0)} in all`;
  if (state === "starting") return "Loading the model";
  if (!total) return "Looking through the folder";
  return [`${done.toLocaleString("en")} of ${total.toLocaleString("en")} files`, rate && `${rate.toLocaleString("en")} a second`, left !== null && done < total && `${inWords(left)} left`].filter(Boolean).join(" · ");
}

function factsOf({ counts = {}, outside, columns }) {
  const named = { encoded: "new", unchanged: "known already", moved: "moved", duplicates: "copies of others", deleted: "gone and forgotten" };
  const of = Object.entries(named).filter(([name]) => counts[name]).map(([name, said]) => `${counts[name].toLocaleString("en")} ${said}`);
  const facts = of.length ? [`Pictures: ${of.join(", ")}.`] : counts.found === 0 ? ["There are no pictures in it."] : [];
  if (outside) facts.push(`${Math.round(100 * outside)} % of the new pictures look like nothing that this model knows: words will hardly find them. For a model of anything: image2sentence models`);
  if (columns) {
    facts.push(`Table: ${columns.rows.toLocaleString("en")} rows with a picture here give ${columns.columns.map(([name, kind]) => `${name} (${kind})`).join(", ")}.`);
    if (columns.unmatched) facts.push(`${columns.unmatched.toLocaleString("en")} rows name no picture here, such as ${columns.examples.slice(0, 3).join(", ")}.`);
  }
  return facts;
}

function inWords(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  return whole < 5400 ? `${Math.round(whole / 60)} min` : `${(whole / 3600).toFixed(1)} h`;
}

// ---- what is done in the dialog ----

$("add").addEventListener("click", () => openFolders());
$("folders-close").addEventListener("click", () => dialog.close());
$("folders-up").addEventListener("click", () => list(listed.parent).catch(showProblem));
$("folders-path-form").addEventListener("submit", (event) => {
  event.preventDefault();
  list($("folders-path").value.trim()).catch(showProblem);
});
$("folders-start").addEventListener("click", start);
$("run-stop").addEventListener("click", async () => {
  $("run-stop").disabled = true;
  await postJson("v1/local/stop").then(take, showProblem);
});
