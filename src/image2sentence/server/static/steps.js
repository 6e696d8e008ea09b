// A step of the trail, and the address that carries it.
//
// A step: { item } or { file, url } or neither; the words `text`; words not wanted `not`; ids of pictures that
// results should not look like `unlike`; `balance`, 0 to 1; the numbers
// of the pseudo-words switched off `muted`; its `id` in the history; and `sentence` once the server has named it. Filters hold for all steps.

export const NEUTRAL = 0.5;
export const PAGE = 24;

let made = 0;

export function newStep(from = {}) {
  return { id: ++made, text: "", not: [], unlike: [], balance: NEUTRAL, muted: [], ...from };
}

export const hasReference = (one) => one.item !== undefined || one.file !== undefined;
export const asks = (one) => hasReference(one) || Boolean(one.text.trim());

// Behind the "#", so that words are not written into logs of servers between.
export function addressOf(one, chosen, shown = PAGE) {
  const shared = new URLSearchParams();
  if (one.item !== undefined) shared.set("item", one.item);
  if (one.text.trim()) shared.set("text", one.text.trim());
  for (const words of one.not) shared.append("not", words);
  for (const item of one.unlike) shared.append("unlike", item);
  if (one.balance !== NEUTRAL) shared.set("balance", one.balance);
  if (one.muted.length) shared.set("muted", one.muted.join(","));
  for (const [name, value] of chosen.pairs()) shared.append(`in.${name}`, value);
  if (shown > PAGE) shared.set("shown", shown);
  return `#${shared}`;
}

// The step, the chosen filters as pairs, and how many results were shown.
export function readAddress() {
  const shared = new URLSearchParams(location.hash.slice(1));
  const whole = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : undefined);
  const balance = Number.parseFloat(shared.get("balance"));
  const step = newStep({
    item: whole(shared.get("item")),
    text: shared.get("text") || "",
    not: shared.getAll("not").filter((words) => words.trim()),
    unlike: shared.getAll("unlike").map(whole).filter((item) => item !== undefined),
    balance: balance >= 0 && balance <= 1 ? balance : NEUTRAL,
    muted: (shared.get("muted") || "").split(",").map(whole).filter(Boolean),
  });
  const pairs = [...shared].filter(([key]) => key.startsWith("in.")).map(([key, value]) => [key.slice(3), value]);
  return { step, pairs, shown: Math.min(whole(shared.get("shown")) || PAGE, 100) };
}
