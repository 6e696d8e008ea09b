// Pictures of one's own, kept in this browser so that a reload, Back and a saved search find them again.

const NAME = "image2sentence";
const STORE = "pictures";
const MOST = 30;
const BYTES = 200 * 2 ** 20;

let opened = null;

function database() {
  opened ??= new Promise((done, fail) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
  return opened;
}

function promised(request) {
  return new Promise((done, fail) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
}

async function store(mode) {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

// Keeps a picture file under a name, which it gives; undefined where this browser keeps nothing. `needed` are the names of
// pictures that stay even if they are the oldest.
export async function keepPicture(file, needed) {
  try {
    const id = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    await promised((await store("readwrite")).put({ id, file, name: file.name ?? "picture", bytes: file.size, time: Date.now() }));
    await forgetOldest(new Set([...needed, id]));
    return id;
  } catch {
    return undefined; // the picture is there until the page is left
  }
}

export async function ownPicture(id) {
  try {
    const found = await promised((await store("readonly")).get(id));
    return found?.file;
  } catch {
    return undefined;
  }
}

export async function forgetPictures() {
  try {
    await promised((await store("readwrite")).clear());
  } catch {
    // nothing was kept
  }
}

// Within a bound of number and bytes, the newest stay.
async function forgetOldest(needed) {
  const kept = (await promised((await store("readonly")).getAll())).sort((one, other) => other.time - one.time);
  let bytes = 0;
  const gone = kept.filter((one, at) => (bytes += one.bytes) > BYTES || at >= MOST).filter(({ id }) => !needed.has(id));
  for (const { id } of gone) await promised((await store("readwrite")).delete(id));
}
