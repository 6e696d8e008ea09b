// A step of the trail, and the address that carries it.
//
// A step: { item } or { file, url, own } or neither, where `own` names the picture in what the browser keeps; the words `text`; words not wanted `not`; ids of pictures that
// results should not look like `unlike`; `balance`, 0 to 1; `titles`, whether words in titles count; the numbers
// of the pseudo-words switched off `muted`; its `id` in the history; and `sentence` once the server has named it. Filters hold for all steps.

export const NEUTRAL = 0.5;
export const PAGE = 48;

let made = 0;

export function newStep(from = {}) {
  return { id: ++made, text: "", not: [], unlike: [], balance: NEUTRAL, titles: true, muted: [], ...from };
}

export const hasReference = (one) => one.item !== undefined || one.file !== undefined;
export const asks = (one) => hasReference(one) || Boolean(one.text.trim());

// Behind the "#", so that words are not written into logs of servers between.
export function addressOf(one, chosen, at = 0) {
  const shared = new URLSearchParams();
  if (one.item !== undefined) shared.set("item", one.item);
  if (one.own) shared.set("own", one.own);
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

// The step, the chosen filters as pairs, the order, and the place of the first result in sight.
export function readAddress(hash = location.hash) {
  const shared = new URLSearchParams(hash.slice(1));
  const whole = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : undefined);
  const balance = Number.parseFloat(shared.get("balance"));
  const step = newStep({
    item: whole(shared.get("item")),
    own: shared.get("own") || undefined,
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
