// Asks the control process for the overview each second, and with it for what the page at hand shows: slower while it fails,
// not at all while nobody looks. What people ask for is sent with the same key.

const OVERVIEW = "/api/v1/overview";
const EVERY_MS = 1000;
const RETRY_MS = [1000, 2000, 5000]; // the last one stays
const PATIENCE_MS = 10_000;
const STORED_KEY = "predis.api-key";

/** The server's no, in its words. `code` is stable. */
class Refusal extends Error {
  constructor(status, { error, code } = {}) {
    super(error ?? `the server answered ${status}`);
    Object.assign(this, { status, code });
  }
}

/**
 * `wants()` names the page's own documents: { name: { path, every } }, `every` in milliseconds, a second where there is none.
 * Calls `seen(overview)`, `lost(reason, retry_ms)` or `locked(reason)` after each answer. `page()` has of every name { value } or
 * { error }, or nothing yet.
 */
export class Client {
  #timer = null;
  #failures = 0;
  #busy = false;
  #again = false;
  #locked = false;
  #kept = new Map();
  #changed = 0; // what was asked before is old

  constructor({ wants, seen, lost, locked }) {
    Object.assign(this, { wants, seen, lost, locked });
  }

  start() {
    document.addEventListener("visibilitychange", () => this.wake());
    window.addEventListener("online", () => this.wake());
    this.wake();
  }

  get hasKey() {
    return stored() !== null;
  }

  /** Use this API key from now on, until the tab is closed. */
  unlock(key) {
    store(key);
    this.#restart();
  }

  forget() {
    store(null);
    this.#restart();
  }

  /** Ask now: another page is shown, or something has changed. */
  wake() {
    clearTimeout(this.#timer);
    if (this.#busy) this.#again = true;
    else if (!document.hidden && !this.#locked) this.#ask();
  }

  /** Change something; what the server says to it. Throws a Refusal, or an Error where there is no answer. */
  async send(method, path, body) {
    let response;
    try {
      response = await this.#fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch (error) {
      throw new Error(said(error));
    }
    if (!response.ok) throw new Refusal(response.status, await refused(response));
    this.#changed = performance.now();
    this.wake();
    return response.status === 204 ? null : response.json();
  }

  /** The page's documents as far as they are known. */
  page() {
    return Object.fromEntries(Object.entries(this.wants()).map(([name, { path }]) => [name, this.#kept.get(path)?.answer]));
  }

  #restart() {
    this.#locked = false;
    this.#kept.clear();
    this.wake();
  }

  async #ask() {
    this.#busy = true;
    let pause = EVERY_MS;
    try {
      const [overview] = await Promise.all([this.#fetch(OVERVIEW), ...this.#due().map((path) => this.#keep(path))]);
      await this.#answer(overview);
      this.#failures = 0;
    } catch (error) {
      pause = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
      this.lost(said(error), pause);
    }
    this.#busy = false;
    if (this.#again) pause = 0;
    this.#again = false;
    if (!document.hidden && !this.#locked) this.#timer = setTimeout(() => this.#ask(), pause);
  }

  #due() {
    const wanted = Object.values(this.wants());
    const paths = new Set(wanted.map(({ path }) => path));
    for (const path of this.#kept.keys()) if (!paths.has(path)) this.#kept.delete(path);
    return wanted.filter(({ path, every = EVERY_MS }) => {
      const at = this.#kept.get(path)?.at ?? -Infinity;
      return at <= this.#changed || performance.now() - at > every * 0.9;
    }).map(({ path }) => path);
  }

  async #keep(path) {
    const at = performance.now();
    const response = await this.#fetch(path);
    if (response.ok) this.#kept.set(path, { at, answer: { value: await response.json() } });
    else this.#kept.set(path, { at, answer: { error: (await refused(response)).error ?? `the server answered ${response.status}` } });
  }

  #fetch(path, more = {}) {
    const key = stored();
    return fetch(path, {
      headers: key === null ? {} : { Authorization: `Bearer ${key}` },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
      ...more,
    });
  }

  async #answer(response) {
    if (response.status === 401 || response.status === 403) {
      this.#locked = true;
      this.locked(refusal(response.status, this.hasKey));
    } else if (response.ok) {
      this.seen(await response.json());
    } else {
      throw new Error(`the server answered ${response.status}`);
    }
  }
}

async function refused(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}

let held = null; // where the browser forbids storage, the key lasts as long as the page

function stored() {
  try {
    return sessionStorage.getItem(STORED_KEY) ?? held;
  } catch {
    return held;
  }
}

function store(key) {
  held = key;
  try {
    if (key === null) sessionStorage.removeItem(STORED_KEY);
    else sessionStorage.setItem(STORED_KEY, key);
  } catch {
    // held is enough
  }
}

function refusal(status, hadKey) {
  if (status === 403) return "This API key may not read the overview. Use one with a role that may.";
  return hadKey ? "This API key was refused. Check that it is complete and was not revoked." : "";
}

function said(error) {
  if (error.name === "TimeoutError") return `no answer within ${PATIENCE_MS / 1000} s`;
  if (error instanceof TypeError) return "the server cannot be reached";
  if (error instanceof SyntaxError) return "the answer is not JSON";
  return error.message;
}
