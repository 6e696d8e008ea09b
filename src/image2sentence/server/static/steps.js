// A step of the trail, and the address that carries it.
//
// A reference: { item } or { file, url, own }, where `own` names the picture in what the browser keeps, with its `weight`
// among several. A step: a reference of its own or none; further ones `also`; the words `text`; words not wanted `not`; ids
// of pictures that results should not look like `unlike`; `balance`, 0 to 1; `titles`, whether words in titles count; the numbers
// of the pseudo-words of its own reference switched off `muted`; the place of the reference that is
// looked at closely `looked`, the first if none; its `id` in the history; and `sentence` once the server has named it.
// Filters hold for all steps.

export const NEUTRAL = 0.5;
export const PAGE = 48;
export const MAX_REFERENCES = 8; // as the server has it
const LIGHTEST = 0.01, HEAVIEST = 100;

let made = 0;

export function newStep(from = {}) {
  return { id: ++made, weight: 1, also: [], text: "", not: [], unlike: [], balance: NEUTRAL, titles: true, muted: [], ...from };
}

// All references of a step that has its own.
export const references = (one) => [one, ...one.also];
export const hasReference = (one) => one.item !== undefined || one.file !== undefined;
// The reference whose sentence is explained.
export const lookedAt = (one) => references(one)[one.looked] ?? one;
export const asks = (one) => hasReference(one) || Boolean(one.text.trim());

// Behind the "#", so that words are not written into logs of servers between.
export function addressOf(one, chosen, at = 0) {
  const shared = new URLSearchParams();
  if (one.item !== undefined) shared.set("item", one.item);
  if (one.own) shared.set("own", one.own);
  for (const { own, item, weight } of one.also) if (own || item !== undefined) shared.append("also", `${own ? `own-${own}` : item},${weight}`);
  if (one.weight !== 1) shared.set("weight", one.weight);
  if (one.text.trim()) shared.set("text", one.text.trim());
  for (const words of one.not) shared.append("not", words);
  for (const item of one.unlike) shared.append("unlike", item);
  if (one.balance !== NEUTRAL) shared.set("balance", one.balance);
  if (!one.titles) shared.set("titles", 0);
  if (one.muted.length) shared.set("muted", one.muted.join(","));
  for (const [name, value] of chosen.pairs()) shared.append(`in.${name}`, value);
  if (chosen.sort) shared.set("sort", chosen.sort);
  if (chosen.sort && chosen.descending) shared.set("down", 1);
  if (at) shared.set("at", at);
  return `#${shared}`;
}

const whole = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : undefined);

function weightOf(text) {
  const weight = Number(text ?? 1);
  return weight >= LIGHTEST && weight <= HEAVIEST ? weight : 1;
}

// "12,2" or "own-0f3c…,0.5"; a picture of one's own that the browser did not keep is not in the address.
function readAlso(text) {
  const [name, weight] = text.split(",");
  const [item, own] = [whole(name), /^own-(\w+)$/.exec(name)?.[1]];
  if (item === undefined && !own) return undefined;
  return own ? { own, weight: weightOf(weight) } : { item, weight: weightOf(weight) };
}

// The step, the chosen filters as pairs, the order, and the place of the first result in sight.
export function readAddress(hash = location.hash) {
  const shared = new URLSearchParams(hash.slice(1));
  const balance = Number.parseFloat(shared.get("balance"));
  const step = newStep({
    item: whole(shared.get("item")),
    own: shared.get("own") || undefined,
    weight: weightOf(shared.get("weight")),
    also: shared.getAll("also").map(readAlso).filter(Boolean).slice(0, MAX_REFERENCES - 1),
    text: shared.get("text") || "",
    not: shared.getAll("not").filter((words) => words.trim()),
    unlike: shared.getAll("unlike").map(whole).filter((item) => item !== undefined),
    balance: balance >= 0 && balance <= 1 ? balance : NEUTRAL,
    titles: shared.get("titles") !== "0",
    muted: (shared.get("muted") || "").split(",").map(whole).filter(Boolean),
  });
  const pairs = [...shared].filter(([key]) => key.startsWith("in.")).map(([key, value]) => [key.slice(3), value]);
  return { step, pairs, sort: shared.get("sort") || "", descending: shared.get("down") === "1", at: whole(shared.get("at")) || 0 };
}
