// Where one is: the trail of steps, the chosen filters, and the browser's history and address that follow them.

import { Chosen } from "./filters.js";
import { remember, remembered } from "./dom.js";
import { ownPicture } from "./own.js";
import { addressOf, asks, hasReference, newStep, readAddress, references } from "./steps.js";

export const chosen = new Chosen();

let trail = [newStep()];
let current = 0;
let wantedAt = 0;

// Entries of the history name their step; those from before a reload have only their address.
const visit = Date.now();
const steps = new Map();

export const step = () => trail[current];
export const allSteps = () => trail;
// Names of all pictures of one's own that steps ask with.
export const ownPictures = () => trail.flatMap(references).map(({ own }) => own).filter(Boolean);
export const currentNumber = () => current;
// The place of the result that is to be the first in sight.
export const wanted = () => wantedAt;

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
  wantedAt = 0;
  history.pushState(place(), "", addressOf(step(), chosen));
  keepTrail();
}

// The current step has been changed in place.
export function rewrite() {
  wantedAt = 0;
  history.replaceState(place(), "", addressOf(step(), chosen));
  keepTrail();
}

// Other results of the current step are in sight.
export function keepPlace(at) {
  wantedAt = at;
  history.replaceState(place(), "", addressOf(step(), chosen, at));
}

// The step that the address carries, within the trail of before a reload where it was part of one. `typed` stands for its
// words.
export async function begin(typed) {
  await takeAddress();
  if (typed) step().text = typed;
  history.replaceState(place(), "");
}

// The trail as addresses, for a reload of this tab; a picture of one's own comes from what the browser keeps.
function keepTrail() {
  remember("trail", JSON.stringify(trail.map((one) => addressOf(one, new Chosen()))), () => sessionStorage);
}

async function keptTrail(shared) {
  const own = addressOf(shared, new Chosen());
  const kept = JSON.parse(remembered("trail", () => sessionStorage) ?? "[]");
  const at = kept.indexOf(own);
  if (at < 0) return [[shared], 0];
  const steps = await Promise.all(kept.map((hash, number) => (number === at ? shared : withPicture(readAddress(hash).step))));
  return [steps, at];
}

// A step whose pictures of one's own are fetched from what the browser keeps; `lost` where one is gone.
async function withPicture(one) {
  const found = await Promise.all(references(one).map(fetchOwn));
  one.lost = found.includes(false);
  one.also = one.also.filter((_, at) => found[at + 1]);
  return hasReference(one) ? one : leaveOwn(one);
}

// Whether a reference is there.
async function fetchOwn(reference) {
  if (!reference.own) return true;
  const file = await ownPicture(reference.own);
  if (file) Object.assign(reference, { file, url: URL.createObjectURL(file) });
  else reference.own = undefined;
  return Boolean(file);
}

// Without a reference of its own, which is gone or removed, the next one takes its place.
export function leaveOwn(one) {
  const [next, ...also] = one.also;
  const { weight = 1, ...own } = next ?? {};
  return Object.assign(one, { item: undefined, file: undefined, url: undefined, own: undefined, title: undefined, sentence: undefined, muted: [] }, own, { weight: also.length ? weight : 1, also });
}

// The browser went to an entry of its history.
export async function goBack(entry) {
  const known = entry?.visit === visit ? steps.get(entry.id) : undefined;
  if (!known) return takeAddress();
  if (!trail.includes(known)) trail = [known];
  current = trail.indexOf(known);
  takeChoices(readAddress());
}

async function takeAddress() {
  const shared = readAddress();
  takeChoices(shared);
  [trail, current] = await keptTrail(await withPicture(shared.step));
}

function takeChoices({ pairs, sort, descending, at }) {
  chosen.read(pairs);
  Object.assign(chosen, { sort, descending });
  wantedAt = at;
}
