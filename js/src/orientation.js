// EXIF orientations that browsers do not heed when they decode a file for a script: those of WebP, and in JPEG and PNG
// those written as LONG, which the standard does not allow and Pillow reads.

/** @typedef {import("./resample.js").Pixels} Pixels */
/** @typedef {{start: number, size: number, from: number, to: number}} Place an EXIF block, and what it is wrapped in */

const WEBP_HEADER = 12; // "RIFF", size, "WEBP"
const EXIF_FLAG = 0x08; // in the first byte of the chunk VP8X
const PNG_HEADER = 8;
const [APP1, SCAN] = [0xe1, 0xda]; // JPEG segments; nothing about the picture comes after the start of a scan
const ORIENTATION = 0x0112;
const [SHORT, LONG] = [3, 4];

/**
 * A file that no browser turns in another way, and how its pixels are still to be turned.
 * @param {Blob} blob
 * @returns {Promise<{blob: Blob, orientation: number}>}
 */
export async function withoutOrientation(blob) {
  const head = new Uint8Array(await blob.slice(0, 30).arrayBuffer());
  if (latin(head, 0, 4) === "RIFF" && latin(head, 8, 8) === "WEBPVP8X" && head[20] & EXIF_FLAG) return webp(blob);
  if (latin(head, 0, 3) === "\xff\xd8\xff") return unlessHeeded(blob, jpegExif);
  if (latin(head, 0, PNG_HEADER) === "\x89PNG\r\n\x1a\n") return unlessHeeded(blob, pngExif);
  return { blob, orientation: 1 };
}

/**
 * @param {Blob} blob
 * @returns {Promise<{blob: Blob, orientation: number}>}
 */
async function webp(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const place = webpExif(bytes);
  if (place === null) return { blob, orientation: 1 };
  const { orientation } = orientationOf(bytes, place);
  bytes[20] &= ~EXIF_FLAG;
  bytes.set([..."none"].map((letter) => letter.charCodeAt(0)), place.from); // an unknown chunk is passed over
  return { blob: new Blob([bytes], { type: "image/webp" }), orientation };
}

/**
 * A file as it is, for the browser to turn; without its EXIF block where that has the orientation as LONG.
 * @param {Blob} blob @param {(bytes: Uint8Array) => Place | null} find
 * @returns {Promise<{blob: Blob, orientation: number}>}
 */
async function unlessHeeded(blob, find) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const place = find(bytes);
  const { orientation, type } = place ? orientationOf(bytes, place) : UPRIGHT;
  if (!place || type !== LONG) return { blob, orientation: 1 };
  const rest = [bytes.subarray(0, place.from), bytes.subarray(place.to)];
  return { blob: new Blob(rest, { type: blob.type }), orientation };
}

/**
 * @param {Uint8Array} bytes @param {number} start @param {number} length
 */
function latin(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

/** @param {Uint8Array} bytes */
function viewed(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @param {Uint8Array} bytes @returns {Place | null} */
function webpExif(bytes) {
  for (let at = WEBP_HEADER; at + 8 <= bytes.length; ) {
    const size = viewed(bytes).getUint32(at + 4, true);
    const to = at + 8 + size + (size & 1);
    if (latin(bytes, at, 4) === "EXIF") return { start: at + 8, size, from: at, to };
    at = to;
  }
  return null;
}

/** @param {Uint8Array} bytes @returns {Place | null} */
function pngExif(bytes) {
  for (let at = PNG_HEADER; at + 8 <= bytes.length; ) {
    const size = viewed(bytes).getUint32(at);
    const to = at + 12 + size; // its checksum comes last
    if (latin(bytes, at + 4, 4) === "eXIf") return { start: at + 8, size, from: at, to };
    at = to;
  }
  return null;
}

/** @param {Uint8Array} bytes @returns {Place | null} */
function jpegExif(bytes) {
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== SCAN; ) {
    if (bytes[at + 1] === 0xff) {
      at += 1; // fills
      continue;
    }
    const size = viewed(bytes).getUint16(at + 2) - 2;
    const to = at + 4 + Math.max(0, size);
    if (bytes[at + 1] === APP1 && latin(bytes, at + 4, 6) === "Exif\0\0") return { start: at + 4, size, from: at, to };
    at = to;
  }
  return null;
}

const UPRIGHT = { orientation: 1, type: SHORT };

/**
 * The orientation, 1 to 8, in an EXIF block, and of which type it is; 1 (upright) where it is missing or damaged.
 * @param {Uint8Array} bytes @param {Place} place
 */
function orientationOf(bytes, { start: first, size }) {
  const exif = viewed(bytes.subarray(first, first + Math.max(0, size)));
  try {
    const start = exif.getUint32(0) === 0x45786966 ? 6 : 0; // some write "Exif\0\0" first
    const little = exif.getUint16(start) === 0x4949;
    const table = start + exif.getUint32(start + 4, little);
    const count = exif.getUint16(table, little);
    for (let entry = table + 2; entry < table + 2 + 12 * count; entry += 12) {
      const type = exif.getUint16(entry + 2, little);
      if (exif.getUint16(entry, little) !== ORIENTATION || ![SHORT, LONG].includes(type)) continue;
      const value = type === LONG ? exif.getUint32(entry + 8, little) : exif.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? { orientation: value, type } : UPRIGHT;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it points outside of itself
  }
  return UPRIGHT;
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
