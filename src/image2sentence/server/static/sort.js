// The order of the pictures: a column of the metadata, or a fact about files.

import { $, capital, element } from "./dom.js";
import { chosen, step } from "./state.js";
import { asks } from "./steps.js";

const FACTS = [["@name", "File name"], ["@date", "Date"], ["@size", "File size"], ["@width", "Width"], ["@height", "Height"]];
const order = $("sort");
let drawn = "";

// The choices for the current step, which of a ranking are what its results tell of themselves.
export function drawSort() {
  const ranked = asks(step());
  const facts = FACTS.filter(([name]) => !ranked || name !== "@date");
  const columns = chosen.columns.map(({ name }) => [name, capital(name.replaceAll("_", " "))]);
  const choices = [["", ranked ? "Best first" : "As indexed"], ...columns, ...facts];
  if (chosen.sort && !choices.some(([name]) => name === chosen.sort)) choices.push([chosen.sort, chosen.sort]);
  if (drawn !== JSON.stringify(choices)) order.replaceChildren(...choices.map(([value, textContent]) => element("option", { value, textContent })));
  drawn = JSON.stringify(choices);
  order.value = chosen.sort;
  const way = $("sort-way");
  way.hidden = !chosen.sort;
  way.textContent = chosen.descending ? "↓" : "↑";
  way.setAttribute("aria-label", chosen.descending ? "Downwards: change to upwards" : "Upwards: change to downwards");
}

// `changed` is called when another order is chosen.
export function whenSorted(changed) {
  order.addEventListener("change", () => {
    chosen.sort = order.value;
    drawSort();
    changed();
  });
  $("sort-way").addEventListener("click", () => {
    chosen.descending = !chosen.descending;
    drawSort();
    changed();
  });
}

// Results in the order that is chosen; those without a value last.
export function inOrder(results, { sort, descending }) {
  const value = (one) => (sort.startsWith("@") && !(sort in one.metadata) ? one[sort.slice(1)] : one.metadata[sort]);
  const known = (one) => value(one) !== undefined && value(one) !== null;
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    return typeof a === "string" && typeof b === "string" ? a.localeCompare(b) : a < b ? -1 : a > b ? 1 : 0;
  };
  const sorted = results.filter(known).sort((one, other) => (descending ? -1 : 1) * compare(one, other));
  return [...sorted, ...results.filter((one) => !known(one))];
}
