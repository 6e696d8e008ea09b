// Large photographs are made smaller before they travel. The server reads a JPEG at half its size or less where that
// leaves 512 pixels a side, so nothing that it looks at is lost.

const FROM_BYTES = 1 << 20;
const SHORT_SIDE = 1_024;
const QUALITY = 0.92;

const made = new WeakMap(); // file -> promise of what is sent in its place

// What to send of a file: { file, digest }. `digest`, the SHA-256 of the original, is there where the file was made
// smaller, so that the server can still leave out its copies in the gallery.
export function toSend(file) {
  if (!made.has(file)) made.set(file, prepared(file));
  return made.get(file);
}

async function prepared(file) {
  const small = file.size >= FROM_BYTES && (await isJpeg(file)) && canDigest() ? await smaller(file) : null;
  return small && small.size < file.size ? { file: small, digest: await digest(file) } : { file };
}

// Without TLS, on other devices, browsers compute no digest; the file then travels as it is.
const canDigest = () => globalThis.crypto?.subtle !== undefined;

async function isJpeg(file) {
  const [first, second, third] = new Uint8Array(await file.slice(0, 3).arrayBuffer());
  return first === 0xff && second === 0xd8 && third === 0xff;
}

// Upright, in sRGB and without what the camera wrote; null where it is not large, or this browser cannot do it.
async function smaller(file) {
  let whole;
  try {
    whole = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = SHORT_SIDE / Math.min(whole.width, whole.height);
    if (scale > 0.5) return null;
    const [width, height] = [whole.width, whole.height].map((side) => Math.round(side * scale));
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(whole, 0, 0, width, height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    return blob && new File([blob], file.name, { type: blob.type });
  } catch {
    return null; // the server may be able to read it, and says so where it is not
  } finally {
    whole?.close();
  }
}

export async function digest(file) {
  return [...new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
