// A list of any length of which only the rows in sight are in the page.
//
// Items come in pages of PAGE when their rows come into sight; those of far pages are let go of. The space of all other
// rows is the padding of the list, so that the scroll bar has the length of the whole.

import { PAGE } from "./steps.js";

const ROWS_BEYOND = 3; // rows made above and below what is in sight
const PAGES_KEPT = 100;
const LOADING_MS = 60; // scrolling past a page for a shorter time does not fetch it
const TALLEST = 16_000_000; // pixels; Firefox draws no taller element
const FIRST_ROW = 280; // pixels, until a row has been measured

export class VirtualList {
  // `make(item, place)` gives an item's <li>, `wait(place)` what stands there until it comes.
  constructor(place, make, wait) {
    this.place = place;
    this.make = make;
    this.wait = wait;
    this.items = [];
    this.load = null;
    this.pages = new Map(); // asked for or here, those used last at the end
    this.cards = new Map(); // place -> <li>
    this.here = 0; // where the keyboard is
    this.loading = 0;
    this.drawing = 0;
    this.columns = 1;
    this.rowHeight = FIRST_ROW;
    const soon = () => {
      this.drawing ||= requestAnimationFrame(() => {
        this.drawing = 0;
        this.draw();
      });
    };
    addEventListener("scroll", soon, { passive: true });
    new ResizeObserver(() => this.resized()).observe(place);
    place.addEventListener("focusin", ({ target }) => {
      const at = target.closest("li")?.dataset.place;
      if (at !== undefined) this.here = Number(at);
    });
  }

  get length() {
    return this.items.length;
  }

  // Another list: `found` are its items from `offset` on, `count` how many there are, and `load(offset)` gives a page.
  fill(found, offset, count, load) {
    const items = new Array(Math.min(count, this.most()));
    found.slice(0, Math.max(0, items.length - offset)).forEach((item, at) => (items[offset + at] = item));
    items.need = (at) => this.need(at);
    this.items = items;
    this.load = load;
    this.here = offset;
    this.pages = new Map();
    for (let at = offset; at < offset + found.length; at += PAGE) this.pages.set(Math.floor(at / PAGE), Promise.resolve());
    this.cards.clear();
    this.place.replaceChildren();
    this.measure();
    this.draw();
    this.measure();
    this.draw();
  }

  clear() {
    this.fill([], 0, 0, null);
  }

  // The item at a place, once it is here; undefined where it cannot be had.
  async need(at) {
    if (at < 0 || at >= this.length) return undefined;
    if (!this.items[at]) await this.ask(Math.floor(at / PAGE));
    return this.items[at];
  }

  // The first place of the uppermost row that is in sight.
  top() {
    const above = -this.place.getBoundingClientRect().top;
    return above <= 0 ? 0 : Math.min(Math.floor(above / this.rowHeight + 0.2) * this.columns, Math.max(0, this.length - 1));
  }

  scrollTo(at) {
    const row = Math.floor(at / this.columns);
    window.scrollTo({ top: scrollY + this.place.getBoundingClientRect().top + row * this.rowHeight - 12, behavior: "instant" });
    this.draw();
  }

  // Gives the keyboard to the card at a place, once it is there.
  async focus(at) {
    const items = this.items;
    if (at < 0 || at >= this.length) return;
    this.here = at;
    if (!this.cards.has(at)) this.scrollTo(at);
    await this.need(at);
    if (items !== this.items || this.here !== at) return;
    this.draw();
    this.cards.get(at)?.querySelector("button")?.focus();
  }

  // How many items can be shown: elements have a largest height.
  most() {
    return Math.floor(TALLEST / this.rowHeight) * this.columns;
  }

  measure() {
    const style = getComputedStyle(this.place);
    this.columns = style.gridTemplateColumns.split(" ").length;
    const card = this.place.querySelector("li:not(.skeleton)");
    if (!card) return; // what stands for a card has the height of the last one
    const { height } = card.getBoundingClientRect();
    this.rowHeight = height + (Number.parseFloat(style.rowGap) || 0);
    this.place.style.setProperty("--card-height", `${height}px`);
  }

  resized() {
    const [columns, rowHeight] = [this.columns, this.rowHeight];
    const top = this.top();
    this.measure();
    if (columns === this.columns && Math.abs(rowHeight - this.rowHeight) < 0.5) return;
    if (top) this.scrollTo(top);
    else this.draw();
  }

  // Makes what is in sight, and takes away what is not.
  draw() {
    if (!this.length) return;
    const rows = Math.ceil(this.length / this.columns);
    const { top } = this.place.getBoundingClientRect();
    const clamp = (row) => Math.min(Math.max(row, 0), rows);
    const first = Math.min(clamp(Math.floor(-top / this.rowHeight) - ROWS_BEYOND), Math.max(0, rows - 1));
    const last = Math.max(clamp(Math.ceil((innerHeight - top) / this.rowHeight) + ROWS_BEYOND), first + 1);
    const [from, to] = [first * this.columns, Math.min(last * this.columns, this.length)];
    for (const [at, card] of this.cards) if (at < from || at >= to) this.takeAway(at, card);
    let next = this.place.firstElementChild;
    for (let at = from; at < to; at++) {
      const card = this.card(at);
      if (card.parentNode === this.place) next = card.nextElementSibling;
      else this.place.insertBefore(card, next);
    }
    this.place.style.paddingTop = `${first * this.rowHeight}px`;
    this.place.style.paddingBottom = `${Math.max(0, rows - last) * this.rowHeight}px`;
    clearTimeout(this.loading);
    this.loading = setTimeout(() => this.loadBetween(from, to), LOADING_MS);
  }

  takeAway(at, card) {
    // The list keeps the keyboard, and its arrows go on from where the card was.
    if (card.contains(document.activeElement)) this.place.focus({ preventScroll: true });
    card.remove();
    this.cards.delete(at);
  }

  card(at) {
    const known = this.cards.get(at);
    const waits = known?.classList.contains("skeleton");
    if (known && !(waits && this.items[at])) return known;
    const card = this.items[at] ? this.make(this.items[at], at) : this.wait(at);
    card.dataset.place = at;
    card.setAttribute("aria-setsize", this.length);
    card.setAttribute("aria-posinset", at + 1);
    if (known) known.replaceWith(card);
    this.cards.set(at, card);
    return card;
  }

  async loadBetween(from, to) {
    const items = this.items;
    for (let page = Math.floor(from / PAGE); page * PAGE < to; page++) {
      await this.ask(page);
      if (items !== this.items) return;
    }
  }

  // A page of the list, asked for once.
  ask(page) {
    const items = this.items;
    const asked = this.pages.get(page) ?? this.fetch(page, items);
    this.pages.delete(page);
    this.pages.set(page, asked);
    for (const [old] of this.pages) {
      if (this.pages.size <= PAGES_KEPT) break;
      this.pages.delete(old);
      for (let at = old * PAGE; at < Math.min((old + 1) * PAGE, items.length); at++) delete items[at];
    }
    return asked;
  }

  async fetch(page, items) {
    const found = await this.load(page * PAGE);
    if (items !== this.items) return;
    if (!found) this.pages.delete(page); // could not be had now
    else found.slice(0, items.length - page * PAGE).forEach((item, at) => (items[page * PAGE + at] = item));
    if (found) this.draw();
  }
}
