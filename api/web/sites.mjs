// The nodes below: a button that says how many there are and how many are silent, and a table of them. Of many the table has the
// first only, those that need a person before the others; whoever looks for another one types how its name begins.

import { ask } from "./feed.mjs";
import { SEVERITIES, element, fullTime, now, number, sign, span } from "./words.mjs";

const LOOK_EVERY_MS = 10_000;
const ROWS_MAX = 100;
// Letters come quickly one after the other, and so do sites that are connected anew together.
const SETTLED_MS = 200;
// Who needs a person stands above the others.
const ORDER = ["silent", "awaiting", "away", "moved", "enrolled", "connected"];
const NONE = "–";

export class Sites {
  #button;
  #dialog;
  #rows;
  #told;
  #hint;
  #prefix;
  #looked = 0;
  #soon = 0;

  /** `picked(name)` is called when somebody wants the alarms of a site. */
  constructor(button, dialog, picked) {
    this.#button = button;
    this.#dialog = dialog;
    this.#rows = dialog.querySelector("tbody");
    this.#told = dialog.querySelector(".told");
    this.#hint = dialog.querySelector(".hint");
    this.#prefix = dialog.querySelector("input");
    this.#prefix.addEventListener("input", () => this.soon());
    this.#rows.addEventListener("click", (event) => {
      const name = event.target.closest("button")?.dataset.site;
      if (!name) return;
      dialog.close();
      picked(name);
    });
    button.addEventListener("click", () => {
      this.#prefix.value = "";
      dialog.showModal();
      void this.#look();
    });
  }

  /** Looks for as long as the page is there, and not while nobody sees it. */
  async run() {
    for (;;) {
      if (!document.hidden) await this.#look();
      await new Promise((done) => setTimeout(done, LOOK_EVERY_MS));
    }
  }

  /** Looks when nothing more came for a moment. */
  soon() {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => void this.#look(), SETTLED_MS);
  }

  async #look() {
    const looked = (this.#looked += 1);
    try {
      const { states, total } = await ask("/api/v1/sites?limit=1");
      this.#button.hidden = total === 0;
      const some = (which) => which.filter((state) => states[state] > 0).map((state) => `${number(states[state])} ${state}`);
      this.#button.textContent = [`${number(total)} ${total === 1 ? "site" : "sites"}`, ...some(["silent", "awaiting"])].join(", ");
      this.#button.classList.toggle("urgent", states.silent > 0);
      if (!this.#dialog.open) return;
      const { sites, more } = await this.#first(ORDER.filter((state) => states[state] > 0));
      // Somebody typed on meanwhile.
      if (looked !== this.#looked) return;
      this.#told.textContent = `${some(ORDER).join(", ")}${more ? `; the first ${number(sites.length)} are shown` : ""}.`;
      this.#show(sites);
    } catch {
      // The page says elsewhere that the node does not answer.
    }
  }

  /** The first sites that are asked for, state by state; and whether there are more. */
  async #first(states) {
    const sites = [];
    const prefix = this.#prefix.value.trim();
    for (const state of states) {
      const room = ROWS_MAX - sites.length;
      if (room === 0) return { sites, more: true };
      const query = new URLSearchParams({ state, limit: room, ...(prefix && { prefix }) });
      const page = await ask(`/api/v1/sites?${query}`);
      sites.push(...page.sites);
      if (page.next) return { sites, more: true };
    }
    return { sites, more: false };
  }

  #show(sites) {
    const focused = document.activeElement?.dataset.site;
    this.#rows.replaceChildren(...sites.map(row));
    // Who stood on a site still does.
    if (focused) [...this.#rows.querySelectorAll("button")].find((button) => button.dataset.site === focused)?.focus();
    const asking = sites.find((site) => site.state === "awaiting");
    const command = asking ? `klaxon site approve ${asking.name}` : sites.length > 0 ? `klaxon site show ${sites[0].name}` : "klaxon sites";
    this.#hint.replaceChildren("To act on one: ", element("code", {}, command));
  }
}

/** A duration that may be negative, in milliseconds. */
function offset(value) {
  if (Math.abs(value) < 10_000) return `${Math.round(value)} ms`;
  return `${value < 0 ? "−" : ""}${span(Math.abs(value))}`;
}

/** Whether nothing is heard of a node further below: it is silent, or one through which it is heard of. */
function isUnheard(further, below) {
  for (const _ of below) {
    if (!further || further.silent_since) return Boolean(further);
    further = below.find((other) => other.name === further.via);
  }
  return false;
}

function row(site) {
  const { name, kind, state, version, below = [] } = site;
  const alarms = SEVERITIES.filter((severity) => site.alarms?.[severity] > 0);
  const counts = alarms.map((severity) => element("span", { class: severity, title: severity }, sign(severity), number(site.alarms[severity])));
  const since = site.silent_since && `since ${fullTime(site.silent_since)}`;
  const silent = below.filter((further) => isUnheard(further, below)).length;
  const further = below.length > 0 && `, ${number(below.length)} below${silent > 0 ? ` (${number(silent)} silent)` : ""}`;
  const waits = [
    state === "awaiting" && "for a person",
    site.moved && `moved to ${site.moved.to}`,
    site.missing > 0 && `${number(site.missing)} ${site.missing === 1 ? "record" : "records"} missing`,
    site.pending > 0 && `${number(site.pending)} ${site.pending === 1 ? "action" : "actions"} pending`,
  ].filter(Boolean);
  const cell = (label, title, ...content) => element("td", { "data-label": label, title, class: content[0] === NONE && "none" }, ...content);
  const heard = site.last_heard_at;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("button", { type: "button", "data-site": name, title: `The alarms of ${name}` }, name)),
    element("td", { class: `is-${state}`, title: since }, state),
    element("td", { class: "counts" }, ...(counts.length > 0 ? counts : [site.alarms && site.node ? "none" : NONE])),
    cell("heard", heard && fullTime(heard), heard ? span(now() - Date.parse(heard)) : NONE),
    cell("lag", "How old the newest change was when it was on the disk here", site.lag_ms === undefined ? NONE : offset(site.lag_ms)),
    cell("clock", "How far its clock is ahead of this node's", site.clock_offset_ms === undefined ? NONE : offset(site.clock_offset_ms)),
    cell("version", undefined, version ?? NONE),
    cell("kind", undefined, kind, further),
    element("td", { class: "waits" }, waits.join(", ")),
  );
}
