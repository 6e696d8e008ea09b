// Requests about the current step: what to send, sending a picture once, and giving up what was overtaken.

import { Refused, fetchPicture, get, post } from "./api.js";
import { bytes } from "./dom.js";
import { covered, deviceEncoder, encodeStep, isUnderstood, pseudoWords } from "./ondevice.js";
import { endWaiting, waitForResults } from "./results.js";
import { toSend } from "./shrink.js";
import { chosen, step, wanted } from "./state.js";
import { inOrder } from "./sort.js";
import { PAGE, asks, hasReference, lookedAt, references } from "./steps.js";
import * as view from "./view.js";
import { hideWhy, showWhy, waitForWhy } from "./why.js";

const SEARCH = "v1/search";
let asking = new AbortController();
let reading = new AbortController();
let unread = null; // the step whose sentence is not known yet
let answered = null; // the step whose results are shown
let explained = null; // the sentence made here whose maps are shown
let device = null; // while queries are encoded here: the encoder, promised
let muteWords = () => {};

// `mute` is called with a step and the numbers of its pseudo-words that are switched off.
export function whenMuted(mute) {
  muteWords = mute;
}

// What names the step's reference to the server: a name where it has one, else the file itself, made smaller if large.
async function named(one) {
  if (one.item !== undefined) return { item: one.item };
  if (one.sentence) return { sentence: one.sentence };
  return { picture: (await toSend(one.file)).file };
}

// The step's further references, and the weights of all; files travel before, each once, to get their names.
async function beside(one) {
  if (!one.also.length) return {};
  const [items, own] = [one.also.filter(({ file }) => !file), one.also.filter(({ file }) => file)];
  await Promise.all(own.map(name));
  const weight = [...(hasReference(one) ? [one] : []), ...items, ...own].map((reference) => reference.weight);
  return { also_item: items.map(({ item }) => item), also_sentence: own.map(({ sentence }) => sentence), weight };
}

async function name(reference) {
  if (reference.sentence) return;
  reference.naming ??= toSend(reference.file)
    .then(({ file }) => post("v1/sentence", { picture: file }))
    .finally(() => (reference.naming = undefined));
  reference.sentence = (await reference.naming).answer.sentence;
}

// Posts about a step's references; sends their files again where the server has forgotten their sentences.
async function postAbout(address, one, fields, signal) {
  const send = async () => post(address, { ...(await named(one)), ...(address === SEARCH && (await beside(one))), ...fields }, signal);
  try {
    return await send();
  } catch (error) {
    const known = (one.also ? references(one) : [one]).filter(({ file, sentence }) => file && sentence);
    if (!(error instanceof Refused) || error.status !== 404 || !known.length) throw error;
    for (const reference of known) reference.sentence = undefined;
    return send();
  }
}

// ---- ranking ----

// Asks for the current step's results, in place of what is on its way.
export async function refresh() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  waitForResults();
  try {
    await (asks(step()) ? rank(step(), signal) : list(signal));
    if (!signal.aborted) view.hideProblem();
  } catch (error) {
    if (signal.aborted) return;
    if (view.isAnswer(error) || answered !== step()) view.showNothing();
    if (device && error.name !== "QueryError") hideHere();
    view.showProblem(error);
  }
  if (signal.aborted) return;
  endWaiting();
  readOnce();
}

// Gives a function of an offset that gives the page there; undefined, with the problem shown, where it cannot be had.
function pages(signal, ask) {
  return async (offset) => {
    try {
      return await ask(offset);
    } catch (error) {
      if (!signal.aborted) view.showProblem(error);
      return undefined;
    }
  };
}

// A ranking can be paged through to this place; sorted by a column are the best ones.
const DEEPEST = 10_000;
const SORTED = 100;

async function rank(one, signal) {
  const encoder = await device;
  const start = performance.now();
  const common = { not_text: one.not, not_item: one.unlike, where: chosen.condition(), k: chosen.sort ? SORTED : PAGE };
  const ask = async (offset) => {
    const paged = { ...common, offset };
    const done = await (encoder ? rankHere(encoder, one, paged, signal) : rankThere(one, paged, signal));
    const { results, fits_from: fitsFrom, best_fit: bestFit } = done.answer;
    for (const result of results) Object.assign(result, { fitsFrom, bestFit });
    return done;
  };
  const at = chosen.sort ? 0 : pageOf(wanted());
  const { answer, sent } = await ask(at);
  if (signal.aborted) return;
  const spent = performance.now() - start;
  answered = one;
  addCost(one, encoder ? "device" : "server", spent, sent);
  if (!encoder) view.showNote(answer.not_understood, answer.hints);
  if (chosen.sort) answer.results = inOrder(answer.results, chosen);
  const all = answer.more && !chosen.sort ? Math.min(answer.total, DEEPEST) : at + answer.results.length;
  view.showRanking(answer, at, all, pages(signal, async (offset) => (await ask(offset)).answer.results), spent);
}

const pageOf = (place) => Math.min(Math.floor(place / PAGE) * PAGE, DEEPEST - PAGE);

// A picture that is on its way goes on travelling when its query is overtaken by the next letter.
async function rankThere(one, common, signal) {
  if (one.sending) await one.sending.catch(() => {});
  signal.throwIfAborted();
  const fields = { text: one.text, balance: one.balance, muted: one.muted, titles: one.titles ? undefined : false, ...common };
  if (one.text.trim()) fields.exclude_content = await Promise.all(references(one).filter(({ file }) => file).map(async ({ file }) => (await toSend(file)).digest));
  signal.throwIfAborted();
  if (!hasReference(one)) return post(SEARCH, fields, signal);
  if (!one.file || one.sentence) return postAbout(SEARCH, one, fields, signal);
  one.sending = postAbout(SEARCH, one, fields, reading.signal)
    .then((done) => {
      one.sentence = done.answer.sentence;
      return done;
    })
    .finally(() => (one.sending = undefined));
  const done = await one.sending;
  signal.throwIfAborted();
  return done;
}

async function rankHere(encoder, one, common, signal) {
  const unknown = one.text.trim() ? await encoder.notUnderstood(one.text) : [];
  if (!hasReference(one) && !isUnderstood(one.text, unknown)) {
    view.showNote(unknown);
    return { answer: { results: [], more: false, understood: false }, sent: 0 };
  }
  const show = (sentence) => signal.aborted || explainHere(encoder, one, sentence);
  const fields = await encodeStep(encoder, one, content, show);
  const exclude = one.text.trim() ? references(one).map(({ item }) => item).filter((item) => item !== undefined) : [];
  signal.throwIfAborted();
  view.showNote(unknown);
  return post(SEARCH, { ...fields, exclude, ...common }, signal);
}

// A reference's file: one's own, or the gallery's as the server shows it.
async function content({ file, item }) {
  return file ?? fetchPicture(`v1/items/${item}/image`);
}

async function list(signal) {
  const { sort, descending } = chosen;
  const ask = (offset) => get("v1/items", { k: PAGE, offset, where: chosen.condition(), sort, descending: (sort && descending) || undefined }, signal);
  const at = Math.floor(wanted() / PAGE) * PAGE;
  const page = await ask(at);
  if (signal.aborted) return;
  answered = step();
  view.showGallery(page, at, pages(signal, async (offset) => (await ask(offset)).items));
}

// Of each way the time of the first query, which has read the picture, and of the last; and all bytes sent.
function addCost(one, way, spent, sent) {
  one.costs ??= {};
  const { first = spent, total = 0 } = one.costs[way] ?? {};
  one.costs[way] = { first, last: spent, total: total + sent };
  view.showCosts(one);
}

// ---- what the model read ----

// Another reference is shown: what was being read of the last one is given up.
export function readLater(one) {
  explained = null;
  unread = hasReference(one) ? one : null;
  reading.abort();
  reading = new AbortController();
  if (hasReference(one)) waitForWhy();
  else hideWhy();
}

// Another of the step's references is looked at. A search that is bringing the step's picture reads when it is done.
export function lookAt(one) {
  if (one.sending) {
    unread = one;
    waitForWhy();
    return;
  }
  readLater(one);
  if (device) refresh();
  else readOnce();
}

// The picture travels once: the search brings it, and the sentence is then asked for by the name that it got.
function readOnce() {
  const one = unread;
  if (!one || device) return;
  const { item, sentence } = lookedAt(one);
  if (item !== undefined || sentence) {
    unread = null;
    readSentence(one, reading.signal);
  } else hideWhy(); // a file that was refused would be refused again
}

async function readSentence(one, signal) {
  const read = lookedAt(one);
  try {
    const { answer } = await postAbout("v1/sentence", read, {}, signal);
    if (signal.aborted) return;
    if (read.file) read.sentence = answer.sentence;
    read.adds = answer.pseudo_words.map(({ adds }) => adds);
    read.readsAs = answer.reads_as;
    explain(one, answer.reads_as, answer.pseudo_words, answer.region);
  } catch (error) {
    if (signal.aborted) return;
    hideWhy();
    // A picture that cannot be read fails the search too, which shows why.
    if (!(error instanceof Refused)) view.showProblem(error);
  }
}

// Words of the step's own reference alone can be switched off.
function explain(one, phrases, words, region) {
  const at = references(one).indexOf(lookedAt(one));
  showWhy(phrases, words, region, one.muted, at ? null : (muted) => muteWords(one, muted));
}

// The maps of a sentence that was made here, once; what it reads as is there if the server was asked before.
async function explainHere(encoder, one, sentence) {
  if (explained === sentence) return;
  explained = sentence;
  const [width, height] = await view.referenceSize();
  if (explained !== sentence) return;
  const region = covered(encoder.config.query_preprocessing, width, height);
  const read = lookedAt(one);
  const words = pseudoWords(sentence).map((word, place) => ({ ...word, adds: read.adds?.[place] ?? [] }));
  explain(one, read.readsAs ?? [], words, region);
}

function hideHere() {
  explained = null;
  hideWhy();
}

// ---- on this device ----

// From the moment it is switched on nothing but vectors is sent: queries wait until the model is here.
export async function switchDevice(on) {
  const promised = on ? deviceEncoder(showFetched) : null;
  device = promised;
  view.showDevice(on);
  readLater(step());
  try {
    await promised;
  } catch (error) {
    if (device !== promised) return;
    device = null;
    view.showDevice(false);
    hideWhy();
    view.showProblem(error);
    return;
  }
  if (device !== promised) return;
  view.noteDevice("Encoded here; only the vector is sent.");
  refresh();
}

function showFetched({ loaded, total }) {
  const part = total ? ` of ${bytes(total)}` : "";
  view.noteDevice(`Fetching the model: ${bytes(loaded)}${part}`);
}
