// Small helpers for making elements.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Text for screen readers only.
export const unseen = (text) => element("span", { className: "sr", textContent: text });

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1000).toFixed(1)} KB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// What the browser keeps for this page; a browser that keeps nothing makes the page forget, not fail.
export function remembered(key, storage) {
  try {
    return storage().getItem(key);
  } catch {
    return null;
  }
}

export function remember(key, value, storage) {
  try {
    storage().setItem(key, value);
  } catch {
    // forgotten then
  }
}

// Puts text on the clipboard; says whether that was possible.
export async function copy(text) {
  return Boolean(await navigator.clipboard?.writeText(text).then(() => true, () => false));
}
