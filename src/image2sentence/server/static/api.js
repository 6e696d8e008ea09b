// Talking to the server: the token, requests, and patience when it is busy.

const TRIES_WHEN_BUSY = 4;
let token = sessionStorage.getItem("token") || "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

// A picture of the gallery as something an <img> can show; with a token it has to be fetched.
export async function showPicture(img, address) {
  if (!token) {
    img.src = address;
    return;
  }
  const url = URL.createObjectURL(await (await ask(address)).blob());
  img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  img.src = url;
}

export async function items(k, offset) {
  return (await ask(`/v1/items?k=${k}&offset=${offset}`)).json();
}

// `fields`: picture (File), item, sentence, text, k, offset; those undefined, null or "" are left out.
export async function post(address, fields, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null && value !== "") body.append(name, value);
  }
  return (await ask(address, { method: "POST", body, signal })).json();
}

async function ask(address, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let tries = 1; ; tries++) {
    const answer = await fetch(address, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status === 429 && tries < TRIES_WHEN_BUSY) {
      await pause(Number(answer.headers.get("Retry-After")) || 1);
      continue;
    }
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error || `the server answered ${answer.status}`);
  }
}

function pause(seconds) {
  return new Promise((done) => setTimeout(done, 1000 * seconds));
}
