// Filters from the gallery's metadata: a menu for each column, and what is chosen as a condition.

import { get } from "./api.js";
import { capital, element } from "./dom.js";

const SEARCHING_MS = 160;

// What is chosen: values of text and boolean columns, ranges of numbers and dates.
export class Chosen {
  constructor() {
    this.columns = [];
    this.values = new Map();
    this.ranges = new Map();
    this.sort = ""; // a column, or a fact with "@"; "" for the gallery's own order, or the best first
    this.descending = false;
  }

  get empty() {
    return !this.values.size && !this.ranges.size;
  }

  clear() {
    this.values.clear();
    this.ranges.clear();
  }

  toggle(name, value) {
    const kept = this.values.get(name) ?? new Set();
    if (!kept.delete(value)) kept.add(value);
    if (kept.size) this.values.set(name, kept);
    else this.values.delete(name);
  }

  setRange(name, least, greatest) {
    if (least || greatest) this.ranges.set(name, [least, greatest]);
    else this.ranges.delete(name);
  }

  // For the address: [column, value], a range as "least..greatest".
  pairs() {
    const values = [...this.values].flatMap(([name, kept]) => [...kept].map((value) => [name, String(value)]));
    return [...values, ...[...this.ranges].map(([name, range]) => [name, range.join("..")])];
  }

  // Takes pairs of an address; columns that the gallery does not have are passed over.
  read(pairs) {
    this.clear();
    for (const [name, text] of pairs) {
      const column = this.columns.find((one) => one.name === name);
      if (!column) continue;
      if (isRange(column)) this.setRange(name, ...text.split("..", 2));
      else this.toggle(name, column.type === "boolean" ? text === "true" : text);
    }
  }

  // The condition in the filter language; undefined where nothing is chosen.
  condition() {
    const parts = [...this.values].map(([name, kept]) => `${quoted(name)} in (${[...kept].map(literal).join(", ")})`);
    for (const [name, [least, greatest]] of this.ranges) {
      const date = this.columns.find((one) => one.name === name)?.type === "date";
      const written = (value) => (date ? literal(value) : String(Number(value)));
      if (least) parts.push(`${quoted(name)} >= ${written(least)}`);
      if (greatest) parts.push(`${quoted(name)} <= ${written(greatest)}`);
    }
    return parts.length ? parts.join(" and ") : undefined;
  }
}

const isRange = ({ type }) => type === "number" || type === "date";
const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
const literal = (value) => (typeof value === "boolean" ? String(value) : `'${String(value).replaceAll("'", "''")}'`);
const label = (name) => capital(name.replaceAll("_", " "));
const offered = (column) => (isRange(column) ? column.least !== null && column.least !== column.greatest : column.many || column.values.length > 1);

// Draws the menus into `place`; `changed` is called after each choice.
export function drawFilters(place, chosen, changed) {
  const columns = chosen.columns.filter(offered);
  place.hidden = !columns.length;
  const menus = columns.map((column) => menu(column, chosen, changed));
  const clear = element("button", { type: "button", className: "quiet", id: "clear-filters", textContent: "Clear" });
  clear.setAttribute("aria-label", "Clear filters");
  clear.hidden = chosen.empty;
  clear.addEventListener("click", () => {
    chosen.clear();
    changed();
    drawFilters(place, chosen, changed);
    place.querySelector("summary")?.focus();
  });
  place.replaceChildren(...menus, clear);
}

function menu(column, chosen, changed) {
  const summary = element("summary");
  const showChosen = () => {
    const range = chosen.ranges.get(column.name);
    const kept = range ? [range.map((end) => end || "…").join(" – ")] : [...(chosen.values.get(column.name) ?? [])];
    summary.textContent = kept.length ? `${label(column.name)}: ${kept.join(", ")}` : label(column.name);
    summary.classList.toggle("chosen", kept.length > 0);
    const clear = document.getElementById("clear-filters");
    if (clear) clear.hidden = chosen.empty;
  };
  showChosen();
  const after = () => {
    showChosen();
    changed();
  };
  const inside = isRange(column) ? range(column, chosen, after) : column.many ? sought(column, chosen, after) : choices(column.values, column, chosen, after);
  const details = element("details", { name: "filter" }, summary, inside);
  details.addEventListener("toggle", () => {
    if (details.open) inside.opened?.();
    inside.classList.toggle("to-left", details.getBoundingClientRect().left + inside.offsetWidth > document.documentElement.clientWidth);
  });
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    details.open = false;
    summary.focus();
  });
  return details;
}

// Of many values those that hold what is typed, after those that are chosen.
function sought(column, chosen, after) {
  const input = element("input", { type: "search", placeholder: `Search ${label(column.name).toLowerCase()}`, autocomplete: "off", spellcheck: false, maxLength: 200 });
  input.setAttribute("aria-label", `Search the values of ${label(column.name)}`);
  const list = element("div");
  const more = element("p", { className: "fine" });
  const menu = element("div", { className: "menu sought" }, input, list, more);
  let asking = new AbortController();
  const show = async () => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const answer = await get("v1/values", { column: column.name, text: input.value.trim(), k: 40 }, signal).catch(({ name, message }) => ({ values: [], problem: name === "AbortError" ? "" : message }));
    if (signal.aborted) return;
    const kept = [...(chosen.values.get(column.name) ?? [])];
    const found = answer.values.filter(([value]) => !kept.includes(value));
    const values = [...kept.map((value) => [value, answer.values.find(([one]) => one === value)?.[1]]), ...found];
    list.replaceChildren(...choices(values, column, chosen, after).childNodes);
    const rest = found.length ? (answer.values.length === 40 ? `The first 40 of ${answer.distinct.toLocaleString("en")} different ones: type to find others.` : "") : "No value holds that.";
    more.textContent = answer.problem || rest;
  };
  let typing = 0;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(show, SEARCHING_MS);
  });
  menu.opened = () => {
    show();
    input.focus();
  };
  return menu;
}

function choices(values, column, chosen, after) {
  const list = element("div", { className: "menu" });
  for (const [value, count] of values) {
    const box = element("input", { type: "checkbox", checked: chosen.values.get(column.name)?.has(value) ?? false });
    box.addEventListener("change", () => {
      chosen.toggle(column.name, value);
      after();
    });
    list.append(element("label", {}, box, element("span", { textContent: String(value) }), element("small", { textContent: count?.toLocaleString("en") ?? "" })));
  }
  return list;
}

function range(column, chosen, after) {
  const day = (value) => String(value).slice(0, 10);
  const [type, ends] = column.type === "date" ? ["date", [day(column.least), day(column.greatest)]] : ["number", [column.least, column.greatest]];
  const kept = chosen.ranges.get(column.name) ?? ["", ""];
  const inputs = ["From", "To"].map((name, place) => {
    const input = element("input", { type, value: kept[place], min: ends[0], max: ends[1], placeholder: ends[place], step: "any" });
    input.addEventListener("change", () => {
      chosen.setRange(column.name, inputs[0].value, inputs[1].value);
      after();
    });
    input.caption = name;
    return input;
  });
  return element("div", { className: "menu" }, ...inputs.map((input) => element("label", { className: "end" }, element("span", { textContent: input.caption }), input)));
}

// Menus close when something else is clicked.
document.addEventListener("click", ({ target }) => {
  for (const open of document.querySelectorAll(".filters details[open]")) if (!open.contains(target)) open.open = false;
});
