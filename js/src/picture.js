// Pictures that anyone may have made -> RGBA pixels: upright, first frame, sRGB, on an opaque ground.

import { ImageError } from "./errors.js";
import { groundOf, isTransparent, onGround } from "./ground.js";
import { turned, withoutOrientation } from "./orientation.js";
import { reduce } from "./resample.js";

/** @typedef {import("./resample.js").Pixels} Pixels */
/** @typedef {import("./index.js").Picture} Picture */

/** Largest picture read, in pixels: above the 108 megapixels of large phone cameras. */
const MAX_PIXELS = 120_000_000;

/** Python reads references no larger than they are needed, too: see image2sentence.query. */
const AT_LEAST = 512;

const JPEG_SCALES = [8, 4, 2, 1];

/**
 * The pixels of a picture, reduced by a whole factor that leaves both sides 512 pixels or more, as Python does it.
 * Colour profiles are applied by the browser.
 * @param {Picture} picture
 * @returns {Promise<Pixels>}
 * @throws {ImageError} not a picture that this browser reads, or too large
 */
export async function readPicture(picture) {
  if (isImageData(picture)) {
    checkSize(picture.width, picture.height);
    return reduced(onGround(picture), false);
  }
  if (isBitmap(picture)) return reduced(drawn(picture), false);
  const { blob, orientation } = await withoutOrientation(asBlob(picture));
  const bitmap = await decoded(blob);
  try {
    return turned(reduced(drawn(bitmap), await isJpeg(blob)), orientation);
  } finally {
    bitmap.close();
  }
}

/**
 * Refuse what is no picture.
 * @param {unknown} picture
 * @throws {ImageError}
 */
export function checkPicture(picture) {
  if (!isImageData(picture) && !isBitmap(picture)) asBlob(picture);
}

/** @param {unknown} picture @returns {picture is ImageData} */
function isImageData(picture) {
  return typeof ImageData !== "undefined" && picture instanceof ImageData;
}

/** @param {unknown} picture @returns {picture is ImageBitmap} */
function isBitmap(picture) {
  return typeof ImageBitmap !== "undefined" && picture instanceof ImageBitmap;
}

/**
 * @param {unknown} picture
 * @returns {Blob}
 */
function asBlob(picture) {
  if (picture instanceof Blob) return picture;
  if (picture instanceof ArrayBuffer || ArrayBuffer.isView(picture)) {
    return new Blob([/** @type {BufferSource} */ (picture)]);
  }
  throw new ImageError(
    `expected a picture as Blob or File, its bytes, ImageData or ImageBitmap; got ${Object.prototype.toString.call(picture)}`,
  );
}

/** @param {Blob} blob */
async function decoded(blob) {
  if (!blob.size) throw new ImageError("the file is empty");
  try {
    return await createImageBitmap(blob, {
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
      colorSpaceConversion: "default",
    });
  } catch (error) {
    throw new ImageError("the file is damaged, or not of a format that this browser reads (JPEG, PNG, WebP, GIF, BMP)", {
      cause: error,
    });
  }
}

/** @param {Blob} blob */
async function isJpeg(blob) {
  const [first, second, third] = new Uint8Array(await blob.slice(0, 3).arrayBuffer());
  return first === 0xff && second === 0xd8 && third === 0xff;
}

/**
 * @param {ImageBitmap} bitmap
 * @returns {Pixels}
 */
function drawn(bitmap) {
  const { width, height } = bitmap;
  checkSize(width, height);
  // In software: graphics cards scale colours, and blend, in ways of their own.
  const context = canvas(width, height).getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new ImageError(`this browser has no canvas of ${width} x ${height} pixels: send it smaller`);
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  if (!isTransparent(pixels)) return pixels;
  // Once more on its ground: what has been read back from a transparent canvas is rounded.
  const ground = groundOf(pixels);
  context.fillStyle = `rgb(${ground}, ${ground}, ${ground})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/**
 * @param {number} width @param {number} height
 * @returns {OffscreenCanvas}
 */
function canvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  const made = document.createElement("canvas");
  Object.assign(made, { width, height });
  return /** @type {any} */ (made);
}

/** @param {number} width @param {number} height */
function checkSize(width, height) {
  if (width * height <= MAX_PIXELS) return;
  throw new ImageError(`${width} x ${height} pixels, more than the limit of ${MAX_PIXELS.toLocaleString("en")}`);
}

/**
 * Python has the JPEG decoder do the first reduction, by 2, 4 or 8.
 * @param {Pixels} pixels @param {boolean} jpeg
 * @returns {Pixels}
 */
function reduced(pixels, jpeg) {
  const factor = room(pixels);
  const scale = jpeg ? JPEG_SCALES.find((one) => one <= factor) : 1;
  const smaller = reduce(pixels, scale ?? 1);
  return reduce(smaller, room(smaller));
}

/** @param {Pixels} pixels */
function room({ width, height }) {
  return Math.max(1, Math.floor(Math.min(width, height) / AT_LEAST));
}
