// The list: a grid of which only the rows in sight are in the document. All rows are of one height, so a row's place follows
// from its number. Rows are kept by their alarm's id: what is selected, or pressed with the mouse, stays the same alarm
// however the list moves.

import { element, fullTime, now, number, showResource, sign, span } from "./words.mjs";

// So many rows are made above and below what is in sight.
const ROWS_BEYOND = 8;
const COLUMNS = ["severity", "age", "site", "resource", "type", "text", "count", "state"];

/** What people did to an alarm, and what else is to be known of it, as `[kind, word, title]`. */
export function marks({ acknowledged, assigned, shelved, suppressed, stale, silent, pending, via }) {
  const found = [];
  if (stale) found.push(["stale", "stale", `${silent ?? "its reporter"} is not heard from since ${fullTime(stale.since)}`]);
  if (pending?.length) {
    found.push(["pending", "pending", `${pending.length === 1 ? "an action is" : `${number(pending.length)} actions are`} on the way to ${via}`]);
  }
  if (acknowledged) {
    found.push(["acknowledged", "ack", `acknowledged by ${acknowledged.by}, ${fullTime(acknowledged.at)}`]);
  }
  if (assigned) found.push(["assigned", `→ ${assigned.to}`, `assigned to ${assigned.to} by ${assigned.by}`]);
  if (shelved) found.push(["shelved", "shelved", `by ${shelved.by} until ${fullTime(shelved.until)}: ${shelved.reason}`]);
  if (suppressed) found.push(["suppressed", "suppressed", "its type is suppressed"]);
  return found;
}

/** The grid in `#grid`. */
export class Grid {
  /** The rows in their order. */
  rows = [];
  /** The id of the selected alarm. */
  selected = undefined;

  #root;
  #space;
  #shown = new Map();
  #selectedIndex = -1;
  #rowHeight = 1;
  #act;
  #frame = 0;

  /** `act.selected(id)` is called when the selection moves by hand, `act.opened(id)` when a row is opened. */
  constructor(root, act) {
    this.#root = root;
    this.#space = root.querySelector(".space");
    this.#act = act;
    root.addEventListener("scroll", () => this.#later(), { passive: true });
    root.addEventListener("keydown", (event) => this.#key(event));
    this.#space.addEventListener("click", (event) => {
      const id = event.target.closest("[role=row]")?.dataset.id;
      if (!id || !getSelection().isCollapsed) return;
      this.select(id);
      this.#act.opened(id);
    });
    new ResizeObserver(() => this.#measure()).observe(root);
    this.#measure();
  }

  /** Shows `rows`. What is in sight stays in sight, unless the list stands at its beginning. */
  show(rows) {
    const anchor = this.#anchor();
    this.rows = rows;
    const found = this.selected ? rows.findIndex((row) => row.id === this.selected) : -1;
    // Where the selected alarm was is where the keys go on from.
    this.#selectedIndex = found >= 0 ? found : Math.min(this.#selectedIndex, rows.length - 1);
    this.#space.style.height = `${rows.length * this.#rowHeight}px`;
    this.#root.setAttribute("aria-rowcount", String(rows.length + 1));
    if (anchor) {
      const index = rows.findIndex((row) => row.id === anchor.id);
      if (index >= 0) this.#root.scrollTop = index * this.#rowHeight - anchor.offset;
    }
    this.#render();
  }

  /** Selects an alarm, wherever it is. */
  select(id) {
    this.selected = id;
    const index = id ? this.rows.findIndex((row) => row.id === id) : -1;
    if (index >= 0) this.#selectedIndex = index;
    this.#render();
  }

  /** Goes `step` rows on from the selected one. */
  move(step) {
    if (this.#selectedIndex < 0) return this.#moveTo(0);
    // Where an alarm that is gone was, the next one is.
    const isGone = !this.#isSelectedListed() && step > 0;
    return this.#moveTo(this.#selectedIndex + (isGone ? step - 1 : step));
  }

  /** Brings the selected row in sight. */
  reveal() {
    if (!this.#isSelectedListed()) return;
    const top = this.#selectedIndex * this.#rowHeight;
    const room = this.#root.clientHeight - this.#space.offsetTop;
    if (top < this.#root.scrollTop) this.#root.scrollTop = top;
    else if (top + this.#rowHeight > this.#root.scrollTop + room) this.#root.scrollTop = top + this.#rowHeight - room;
  }

  /** Time has passed. */
  tick() {
    for (const shown of this.#shown.values()) showAge(shown);
  }

  #isSelectedListed() {
    return this.selected !== undefined && this.rows[this.#selectedIndex]?.id === this.selected;
  }

  #moveTo(index) {
    if (this.rows.length === 0) return;
    this.#selectedIndex = Math.max(0, Math.min(index, this.rows.length - 1));
    this.selected = this.rows[this.#selectedIndex].id;
    this.reveal();
    this.#render();
    this.#act.selected(this.selected);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((this.#root.clientHeight - this.#space.offsetTop) / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Home") this.#moveTo(0);
    else if (event.key === "End") this.#moveTo(this.rows.length - 1);
    else if (event.key === "Enter" && this.#isSelectedListed()) this.#act.opened(this.selected);
    else return;
    event.preventDefault();
  }

  /** The row that is to stay where it is: the selected one if it is in sight, else the first in sight. */
  #anchor() {
    const { scrollTop } = this.#root;
    if (scrollTop === 0 || this.rows.length === 0) return undefined;
    const first = Math.floor(scrollTop / this.#rowHeight);
    const isInSight =
      this.#isSelectedListed() && this.#selectedIndex >= first && this.#shown.has(this.selected);
    const index = isInSight ? this.#selectedIndex : first;
    const row = this.rows[index];
    return row && { id: row.id, offset: index * this.#rowHeight - scrollTop };
  }

  #measure() {
    const height = Number.parseFloat(getComputedStyle(this.#root).getPropertyValue("--row")) || 32;
    const first = this.#root.scrollTop / this.#rowHeight;
    const isOther = height !== this.#rowHeight;
    this.#rowHeight = height;
    if (isOther) {
      this.#space.style.height = `${this.rows.length * height}px`;
      this.#root.scrollTop = first * height;
    }
    this.#render();
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => this.#render());
  }

  #render() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const first = Math.max(0, Math.floor(this.#root.scrollTop / this.#rowHeight) - ROWS_BEYOND);
    const inSight = Math.ceil(this.#root.clientHeight / this.#rowHeight);
    const wanted = this.rows.slice(first, first + inSight + 2 * ROWS_BEYOND);
    const ids = new Set(wanted.map((row) => row.id));
    for (const [id, shown] of this.#shown) {
      if (ids.has(id)) continue;
      shown.root.remove();
      this.#shown.delete(id);
    }
    let before = null;
    wanted.forEach((row, offset) => {
      let shown = this.#shown.get(row.id);
      if (!shown) {
        shown = makeRow(row.id);
        this.#shown.set(row.id, shown);
      }
      fill(shown, row);
      place(shown, first + offset, (first + offset) * this.#rowHeight, row.id === this.selected);
      // In the document they stand in their order, too.
      const next = before ? before.nextSibling : this.#space.firstChild;
      if (next !== shown.root) this.#space.insertBefore(shown.root, next);
      before = shown.root;
    });
    const active = this.#shown.get(this.selected);
    if (active) this.#root.setAttribute("aria-activedescendant", active.root.id);
    else this.#root.removeAttribute("aria-activedescendant");
  }
}

function makeRow(id) {
  const cells = {};
  const root = element("div", { role: "row", id: `row-${id}`, "data-id": id });
  COLUMNS.forEach((name, index) => {
    cells[name] = element("div", { role: "gridcell", class: name, "aria-colindex": index + 1 });
    root.append(cells[name]);
  });
  return { root, cells, row: undefined, index: -1, top: -1, age: "" };
}

function place(shown, index, top, isSelected) {
  if (shown.top !== top) {
    shown.top = top;
    shown.root.style.transform = `translateY(${top}px)`;
  }
  if (shown.index !== index) {
    shown.index = index;
    shown.root.setAttribute("aria-rowindex", String(index + 2));
  }
  shown.root.setAttribute("aria-selected", String(isSelected));
}

function fill(shown, row) {
  const old = shown.row?.alarm;
  const { alarm } = row;
  if (old === alarm) return;
  shown.row = row;
  const { cells } = shown;
  if (old?.severity !== alarm.severity) {
    cells.severity.replaceChildren(sign(alarm.severity), alarm.severity);
    shown.root.dataset.severity = alarm.severity;
  }
  if (!old) {
    cells.site.textContent = alarm.site;
    cells.resource.append(showResource(alarm.resource));
    cells.resource.title = alarm.qualifier ? `${alarm.resource}\nqualifier: ${alarm.qualifier}` : alarm.resource;
    cells.type.textContent = alarm.alarm_type;
    cells.type.title = alarm.alarm_type;
  }
  if (!old || old.text !== alarm.text) {
    cells.text.textContent = alarm.text ?? alarm.alarm_type;
    cells.text.title = alarm.text ?? "";
    cells.text.classList.toggle("none", alarm.text === undefined);
  }
  cells.count.textContent = alarm.count > 1 ? `×${number(alarm.count)}` : "";
  cells.count.title = `reported ${number(alarm.count)} times, last ${fullTime(alarm.last_reported_at)}`;
  cells.age.title = `raised ${fullTime(alarm.raised_at)}`;
  const found = marks(alarm);
  cells.state.replaceChildren(...found.map(([kind, word, title]) => element("span", { class: `mark ${kind}`, title }, word)));
  shown.root.classList.toggle("seen", alarm.acknowledged !== undefined);
  shown.root.classList.toggle("aside", row.isHidden);
  showAge(shown);
}

function showAge(shown) {
  const age = span(now() - shown.row.raised);
  if (age === shown.age) return;
  shown.age = age;
  shown.cells.age.textContent = age;
}
