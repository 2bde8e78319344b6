// Asks the control process for the overview each second: slower while it fails, not at all while nobody looks.

const OVERVIEW = "/api/v1/overview";
const EVERY_MS = 1000;
const RETRY_MS = [1000, 2000, 5000]; // the last one stays
const PATIENCE_MS = 10_000;
const STORED_KEY = "predis.api-key";

/** Calls `seen(overview)`, `lost(reason, retry_ms)` or `locked(reason)` after each answer. */
export class Client {
  #timer = null;
  #failures = 0;
  #busy = false;
  #locked = false;

  constructor({ seen, lost, locked }) {
    Object.assign(this, { seen, lost, locked });
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#wake());
    window.addEventListener("online", () => this.#wake());
    this.#wake();
  }

  get hasKey() {
    return stored() !== null;
  }

  /** Use this API key from now on, until the tab is closed. */
  unlock(key) {
    store(key);
    this.#locked = false;
    this.#wake();
  }

  forget() {
    store(null);
    this.#locked = false;
    this.#wake();
  }

  #wake() {
    clearTimeout(this.#timer);
    if (!document.hidden && !this.#locked && !this.#busy) this.#ask();
  }

  async #ask() {
    this.#busy = true;
    let pause = EVERY_MS;
    try {
      await this.#answer(await this.#fetch());
      this.#failures = 0;
    } catch (error) {
      pause = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
      this.lost(said(error), pause);
    }
    this.#busy = false;
    if (!document.hidden && !this.#locked) this.#timer = setTimeout(() => this.#ask(), pause);
  }

  #fetch() {
    const key = stored();
    return fetch(OVERVIEW, {
      headers: key === null ? {} : { Authorization: `Bearer ${key}` },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
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
