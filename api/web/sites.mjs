// The nodes below: a button that says how many there are and how many are silent, and a table of them.

import { ask } from "./feed.mjs";
import { SEVERITIES, element, fullTime, now, number, sign, span } from "./words.mjs";

const LOOK_EVERY_MS = 10_000;
const ROWS_MAX = 1_000;
// Who needs a person stands above the others.
const ORDER = ["silent", "awaiting", "away", "moved", "enrolled", "connected"];

export class Sites {
  #button;
  #dialog;
  #rows;
  #told;

  constructor(button, dialog) {
    this.#button = button;
    this.#dialog = dialog;
    this.#rows = dialog.querySelector("tbody");
    this.#told = dialog.querySelector(".told");
    button.addEventListener("click", () => {
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

  async #look() {
    let answer;
    try {
      answer = await ask(`/api/v1/sites?limit=${ROWS_MAX}`);
    } catch {
      // The page says elsewhere that the node does not answer.
      return;
    }
    const { sites, states, total } = answer;
    this.#button.hidden = total === 0;
    const urgent = ["silent", "awaiting"].filter((state) => states[state] > 0).map((state) => `${number(states[state])} ${state}`);
    this.#button.textContent = [`${number(total)} ${total === 1 ? "site" : "sites"}`, ...urgent].join(", ");
    this.#button.classList.toggle("urgent", states.silent > 0);
    if (!this.#dialog.open) return;
    const counts = ORDER.filter((state) => states[state] > 0).map((state) => `${number(states[state])} ${state}`);
    const cut = sites.length < total ? `; the first ${number(sites.length)} are shown` : "";
    this.#told.textContent = `${counts.join(", ")}${cut}.`;
    sites.sort((one, other) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state));
    this.#rows.replaceChildren(...sites.map(row));
  }
}

function row(site) {
  const heard = site.last_heard_at ? element("td", { title: fullTime(site.last_heard_at) }, span(now() - Date.parse(site.last_heard_at))) : element("td", {}, "–");
  const alarms = SEVERITIES.filter((severity) => site.alarms?.[severity] > 0);
  const counts = alarms.map((severity) => element("span", { class: severity, title: severity }, sign(severity), number(site.alarms[severity])));
  const state = element("td", { class: `is-${site.state}` }, site.state);
  const waits = [site.missing > 0 && `${number(site.missing)} records missing`, site.pending > 0 && `${number(site.pending)} actions pending`];
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, site.name),
    element("td", {}, site.kind),
    state,
    heard,
    element("td", { class: "counts" }, ...counts),
    element("td", {}, waits.filter(Boolean).join(", ")),
  );
}
