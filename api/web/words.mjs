// Small things that all parts of the page share: severities, times as people say them, elements with text.

/** The severities, the most urgent first. */
export const SEVERITIES = ["critical", "major", "minor", "warning", "indeterminate"];

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// How far the node's clock is ahead of ours: ages are by the node's.
let ahead = 0;

/** Takes the node's time from an answer. Its header knows whole seconds only, so a small difference is none. */
export function setClock(header) {
  const difference = Date.parse(header ?? "") - Date.now();
  if (!Number.isNaN(difference)) ahead = Math.abs(difference) > 3 * SECOND ? difference : 0;
}

/** The node's time. */
export const now = () => Date.now() + ahead;

/** A length of time in one unit. */
export function span(milliseconds) {
  const length = Math.max(0, milliseconds);
  if (length < MINUTE) return `${Math.floor(length / SECOND)} s`;
  if (length < HOUR) return `${Math.floor(length / MINUTE)} min`;
  if (length < 2 * DAY) return `${Math.floor(length / HOUR)} h`;
  return `${Math.floor(length / DAY)} d`;
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A time in full, as this browser's user writes it. */
export const fullTime = (time) => exact.format(new Date(time));

/** The time of day; with the date if it is not of today. */
export function shortTime(time) {
  const date = new Date(time);
  return (date.toDateString() === new Date().toDateString() ? clock : exact).format(date);
}

/** A number with its thousands apart. */
export const number = (value) => value.toLocaleString();

/** An element. What is given as text stays text, whatever stands in it: nothing here is ever read as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

/** The sign of a severity: a shape of its own, so that it is never told by colour alone. */
export const sign = (severity) => element("i", { class: `sign ${severity}`, "aria-hidden": "true" });

/** The elements of a resource, as `[name, value]`; the name is empty for an opaque one. */
export function resourceElements(text) {
  return text.split(/\.(?=[A-Za-z_][\w-]*=)/).map((part) => {
    const found = /^([A-Za-z_][\w-]*)=(.*)$/s.exec(part);
    return found ? [found[1], found[2]] : ["", part];
  });
}

/** A resource with its names quieter than its values. The text is what it was. */
export function showResource(text) {
  const parts = document.createDocumentFragment();
  resourceElements(text).forEach(([name, value], index) => {
    const quiet = (index > 0 ? "." : "") + (name ? `${name}=` : "");
    if (quiet) parts.append(element("span", { class: "quiet" }, quiet));
    parts.append(value);
  });
  return parts;
}
