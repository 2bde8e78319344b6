// Where the reader is: the part of the address behind the #. What does not begin with / is a place on the overview.

import { h } from "./dom.js";

const made = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

/** Addresses of pages. */
export const to = {
  overview: () => "#/",
  alerts: () => made("alerts"),
  rollouts: () => made("rollouts"),
  rollout: (id) => made("rollouts", id),
  models: () => made("models"),
  cache: () => made("cache"),
  model: (name) => made("models", name),
  diff: (name, before, after) => made("models", name, before, after),
};

/** { page, ...what it is about }. An address that leads nowhere is the overview. */
export function place() {
  const [head, ...parts] = location.hash.slice(1).split("/").map(plain);
  const [page, name, before, after] = parts;
  if (head !== "") return { page: "overview" };
  if (page === "alerts") return { page };
  if (page === "rollouts") return /^\d+$/.test(name) ? { page: "rollout", id: Number(name) } : { page: "rollouts" };
  if (page === "cache") return { page: "cache" };
  if (page !== "models") return { page: "overview" };
  return name ? { page: "model", name, before: Number(before) || null, after: Number(after) || null } : { page: "models" };
}

function plain(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

export const go = (address) => {
  location.hash = address;
};

const PAGES = [["Overview", to.overview(), ["overview"]], ["Alerts", to.alerts(), ["alerts"]], ["Rollouts", to.rollouts(), ["rollouts", "rollout"]], ["Models", to.models(), ["models", "model"]], ["Cache", to.cache(), ["cache"]]];

export const pages = () => h("nav", { class: "pages", "aria-label": "Pages" }, PAGES.map(([title, address, own]) =>
  h("a", { key: address, href: address, "aria-current": own.includes(place().page) ? "page" : null }, title)));
