// Transparent pictures on a ground that shows them, as image2sentence.images.colour chooses it.

/** @typedef {import("./resample.js").Pixels} Pixels */

/** What transparent pictures are put on: the first of these grey values that shows enough of them. */
const GROUNDS = [255, 0, 128];

/** Share of a picture's visible pixels that may look like the ground. */
const MAX_LOST = 0.25;

/** Difference in every channel below which a pixel looks like the ground. */
const ALIKE = 48;

/**
 * The grey value that a picture's transparent parts become: white, else black, else grey, decided by its visible pixels.
 * @param {Pixels} pixels
 */
export function groundOf({ data }) {
  let visible = 0;
  const lost = GROUNDS.map(() => 0);
  for (let place = 0; place < data.length; place += 4) {
    const alpha = data[place + 3];
    visible += alpha;
    if (alpha === 0) continue;
    for (let number = 0; number < GROUNDS.length; number++) {
      const [low, high] = [GROUNDS[number] - ALIKE, GROUNDS[number] + ALIKE];
      const [red, green, blue] = [data[place], data[place + 1], data[place + 2]];
      const isAlike = red > low && red < high && green > low && green < high && blue > low && blue < high;
      if (isAlike) lost[number] += alpha;
    }
  }
  if (!visible) return GROUNDS[0];
  const shown = lost.findIndex((share) => share <= MAX_LOST * visible);
  return GROUNDS[shown < 0 ? lost.indexOf(Math.min(...lost)) : shown];
}

/**
 * Whether any pixel is not opaque.
 * @param {Pixels} pixels
 */
export function isTransparent({ data }) {
  for (let place = 3; place < data.length; place += 4) if (data[place] !== 255) return true;
  return false;
}

/**
 * As Pillow pastes a picture on its ground through its own transparency.
 * @param {Pixels} pixels
 * @returns {Pixels}
 */
export function onGround(pixels) {
  const { width, height, data } = pixels;
  const ground = groundOf(pixels);
  const out = new Uint8ClampedArray(data.length);
  for (let place = 0; place < data.length; place += 4) {
    const alpha = data[place + 3];
    for (let channel = place; channel < place + 3; channel++) {
      const sum = ground * (255 - alpha) + data[channel] * alpha + 128;
      out[channel] = (sum + (sum >> 8)) >> 8;
    }
    out[place + 3] = 255;
  }
  return { width, height, data: out };
}
