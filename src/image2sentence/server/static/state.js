// Where one is: the trail of steps, the chosen filters, and the browser's history and address that follow them.

import { Chosen } from "./filters.js";
import { PAGE, addressOf, asks, newStep, readAddress } from "./steps.js";

export const chosen = new Chosen();

let trail = [newStep()];
let current = 0;
let wantedShown = PAGE;

// Entries of the history name their step; those from before a reload have only their address.
const visit = Date.now();
const steps = new Map();

export const step = () => trail[current];
export const allSteps = () => trail;
export const currentNumber = () => current;
// How many results the current step is to show.
export const wanted = () => wantedShown;

function place() {
  steps.set(step().id, step());
  return { visit, id: step().id };
}

// Puts a step after the current one, or in its place where that asks nothing; steps that lay ahead are left to the
// browser's history. Gives its number.
export function append(one) {
  const start = asks(step()) ? current + 1 : current;
  trail = [...trail.slice(0, start), one];
  return start;
}

// Makes a step of the trail the current one.
export function enter(number) {
  current = number;
  wantedShown = PAGE;
  history.pushState(place(), "", addressOf(step(), chosen));
}

// The current step has been changed in place.
export function rewrite() {
  wantedShown = PAGE;
  history.replaceState(place(), "", addressOf(step(), chosen));
}

// More results of the current step are shown.
export function keepShown(count) {
  history.replaceState(place(), "", addressOf(step(), chosen, count));
}

// The step that the address carries is the only one; the history then knows it. `typed` stands for its words.
export function begin(typed) {
  takeAddress();
  if (typed) step().text = typed;
  history.replaceState(place(), "");
}

// The browser went to an entry of its history.
export function goBack(entry) {
  const known = entry?.visit === visit ? steps.get(entry.id) : undefined;
  if (!known) {
    takeAddress();
    return;
  }
  if (!trail.includes(known)) trail = [known];
  current = trail.indexOf(known);
  wantedShown = PAGE;
  chosen.read(readAddress().pairs);
}

function takeAddress() {
  const shared = readAddress();
  chosen.read(shared.pairs);
  trail = [shared.step];
  current = 0;
  wantedShown = shared.shown;
}
