// Filters from the gallery's metadata: a menu for each column, and what is chosen as a condition.

import { capital, element } from "./dom.js";

// What is chosen: values of text and boolean columns, ranges of numbers and dates.
export class Chosen {
  constructor() {
    this.columns = [];
    this.values = new Map();
    this.ranges = new Map();
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
const offered = (column) => (isRange(column) ? column.least !== null && column.least !== column.greatest : column.values.length > 1);

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
  const inside = isRange(column) ? range(column, chosen, after) : choices(column, chosen, after);
  const details = element("details", { name: "filter" }, summary, inside);
  details.addEventListener("toggle", () => {
    inside.classList.toggle("to-left", details.getBoundingClientRect().left + inside.offsetWidth > document.documentElement.clientWidth);
  });
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    details.open = false;
    summary.focus();
  });
  return details;
}

function choices(column, chosen, after) {
  const list = element("div", { className: "menu" });
  for (const [value, count] of column.values) {
    const box = element("input", { type: "checkbox", checked: chosen.values.get(column.name)?.has(value) ?? false });
    box.addEventListener("change", () => {
      chosen.toggle(column.name, value);
      after();
    });
    list.append(element("label", {}, box, element("span", { textContent: String(value) }), element("small", { textContent: count.toLocaleString("en") })));
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
