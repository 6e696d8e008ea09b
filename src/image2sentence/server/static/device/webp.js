// The EXIF orientation of WebP files, which Chromium does not heed when it decodes them for a script.

/** @typedef {import("./resample.js").Pixels} Pixels */

const HEADER = 12; // "RIFF", size, "WEBP"
const EXIF_FLAG = 0x08; // in the first byte of the chunk VP8X
const ORIENTATION = 0x0112;
const SHORT = 3;

/**
 * A WebP file whose decoding no browser turns, and how it is to be turned; other files as they are.
 * @param {Blob} blob
 * @returns {Promise<{blob: Blob, orientation: number}>}
 */
export async function withoutOrientation(blob) {
  const head = new Uint8Array(await blob.slice(0, 30).arrayBuffer());
  const extended = latin(head, 0, 4) === "RIFF" && latin(head, 8, 8) === "WEBPVP8X";
  if (!extended || !(head[20] & EXIF_FLAG)) return { blob, orientation: 1 };
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const place = chunk(bytes, "EXIF");
  if (place === null) return { blob, orientation: 1 };
  const orientation = orientationOf(new DataView(bytes.buffer, place.start, place.size));
  bytes[20] &= ~EXIF_FLAG;
  bytes.set([..."none"].map((letter) => letter.charCodeAt(0)), place.start - 8); // an unknown chunk is passed over
  return { blob: new Blob([bytes], { type: "image/webp" }), orientation };
}

/**
 * @param {Uint8Array} bytes @param {number} start @param {number} length
 */
function latin(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

/**
 * @param {Uint8Array} bytes @param {string} name
 * @returns {{start: number, size: number} | null} where a chunk's content is
 */
function chunk(bytes, name) {
  const view = new DataView(bytes.buffer);
  for (let at = HEADER; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    if (latin(bytes, at, 4) === name) return { start: at + 8, size: Math.min(size, bytes.length - at - 8) };
    at += 8 + size + (size & 1);
  }
  return null;
}

/**
 * The orientation, 1 to 8, in an EXIF block; 1 (upright) where it is missing or damaged.
 * @param {DataView} exif
 */
function orientationOf(exif) {
  try {
    const start = exif.getUint32(0) === 0x45786966 ? 6 : 0; // some write "Exif\0\0" first
    const little = exif.getUint16(start) === 0x4949;
    const table = start + exif.getUint32(start + 4, little);
    const count = exif.getUint16(table, little);
    for (let entry = table + 2; entry < table + 2 + 12 * count; entry += 12) {
      if (exif.getUint16(entry, little) !== ORIENTATION || exif.getUint16(entry + 2, little) !== SHORT) continue;
      const value = exif.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it points outside of itself
  }
  return 1;
}

/**
 * A picture turned upright by its EXIF orientation.
 * @param {Pixels} pixels @param {number} orientation
 * @returns {Pixels}
 */
export function turned(pixels, orientation) {
  if (orientation === 1) return pixels;
  const { width, height } = pixels;
  const onItsSide = orientation >= 5;
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const fromBelow = [3, 4, 6, 7].includes(orientation);
  const [wide, high] = onItsSide ? [height, width] : [width, height];
  const from = new Uint32Array(pixels.data.slice().buffer);
  const to = new Uint32Array(wide * high);
  for (let place = 0; place < to.length; place++) {
    const [across, down] = [place % wide, Math.floor(place / wide)];
    const [x, y] = onItsSide ? [down, across] : [across, down];
    to[place] = from[(fromBelow ? height - 1 - y : y) * width + (fromRight ? width - 1 - x : x)];
  }
  return { width: wide, height: high, data: new Uint8ClampedArray(to.buffer) };
}
