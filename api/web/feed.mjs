// What the page knows of the node's alarms, and whether that is still so.
//
//   load: the list, page by page ─▶ follow: the stream from the position of the first page
//     ▲                                │
//     └── reset, or another epoch ─────┤
//         wait, then follow again ◀────┘  the stream broke off: it goes on behind the last id, if that is not long ago
//
// The stream is read with fetch and not with EventSource, which shows neither the heartbeats, without which a dead connection
// looks like a quiet one, nor the reason for which the node refuses. Alarms are replaced, never changed in place.

import { SEVERITIES, setClock } from "./words.mjs";

/** The most alarms that are held; of more, these are the most severe. */
export const ALARMS_MAX = 50_000;
const PAGE_ROWS = 2_000;
// The node sends something every 15 s; a connection that is silent for longer is dead.
const SILENCE_MAX_MS = 45_000;
const ANSWER_MAX_MS = 40_000;
// After a longer absence a list is quicker than all that happened meanwhile.
const RESUME_MAX_MS = 60_000;
const RETRY_WAITS_MS = [500, 1_000, 2_000, 5_000, 10_000];
// The counts of all are asked for when not all are held, at most so often.
const COUNT_EVERY_MS = 5_000;
// What is on its way to a site ends with a change that names it. Where that was lost, the node is asked, about so many at a time.
const SETTLE_EVERY_MS = 30_000;
const SETTLE_MAX = 20;
/** What becomes of a site so that its alarms are stale, or are not any more. */
const SILENCING = new Set(["silent", "heard", "moved"]);
/** The kinds of changes after which an alarm is not there any more. */
export const FORGETTING = new Set(["retired", "purged"]);

/** One alarm, with what is needed to sort and search it. */
export class Row {
  #words;

  constructor(alarm) {
    this.alarm = alarm;
    this.id = alarm.id;
    this.rank = SEVERITIES.indexOf(alarm.severity);
    this.raised = Date.parse(alarm.raised_at);
  }

  /** Where words are looked for. */
  get words() {
    const { resource, text, alarm_type, qualifier, site } = this.alarm;
    return (this.#words ??= [resource, text, alarm_type, qualifier, site].join("\n").toLowerCase());
  }

  /** Whether somebody set it aside. */
  get isHidden() {
    return this.alarm.shelved !== undefined || this.alarm.suppressed === true;
  }
}

/** The action that led to a change, if one did. */
const actionOf = (change) => change.refusal?.action ?? change.reasons?.find((reason) => reason.action)?.action;

/** The default order: severity, then the newest. */
export const compareRows = (one, other) =>
  one.rank - other.rank || other.raised - one.raised || (one.id < other.id ? 1 : -1);

/** Why the node said no: its own words. */
async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return Object.assign(new Error(problem.detail || `the node answered ${response.status}`), { status: response.status });
}

/** Asks the API. */
export async function ask(path, signal = AbortSignal.timeout(ANSWER_MAX_MS)) {
  const response = await fetch(path, { cache: "no-store", headers: { accept: "application/json" }, signal });
  setClock(response.headers.get("date"));
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** The alarms, kept up to date. */
export class Feed {
  /** The alarms by id. */
  rows = new Map();
  /** `loading`, `live` or `lost`. */
  phase = "loading";
  /** When the node was last heard of, by our clock. */
  heardAt = 0;
  /** Why it is lost, if the node said so. */
  reason = "";
  /** How many alarms there are, while they are being loaded and where they are more than are held. */
  total = 0;
  /** The node's counts by severity, where more alarms exist than are held. */
  counts = undefined;
  /** Whether a list has come. */
  isLoaded = false;

  #lastId = undefined;
  #tries = 0;
  #wake = () => {};
  #counting = 0;
  #endStream = () => {};
  #wantsList = false;
  #watch;

  /** `watch.changed()` is called when alarms changed, `watch.told()` when the connection did, `watch.happened(change)`. */
  constructor(watch) {
    this.#watch = watch;
    setInterval(() => void this.#settle(), SETTLE_EVERY_MS);
    addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  /** Whether there are more alarms than are held. */
  get isPartial() {
    return this.counts !== undefined;
  }

  /** Goes on for as long as the page is there. */
  async run() {
    for (;;) {
      try {
        if (Date.now() - this.heardAt > RESUME_MAX_MS) this.#lastId = undefined;
        if (this.#lastId === undefined) await this.#load();
        const wantsList = await this.#follow();
        if (!wantsList) this.#lose("");
      } catch (error) {
        // What broke below HTTP has words of the browser that help nobody.
        this.#lose(error.status ? error.message : "");
        // The node does not know this position, or not this id.
        if (error.status === 400) this.#lastId = undefined;
      }
      await this.#pause();
    }
  }

  #lose(reason) {
    this.phase = "lost";
    this.reason = reason;
    this.#watch.told();
  }

  #pause() {
    const wait = RETRY_WAITS_MS[Math.min(this.#tries++, RETRY_WAITS_MS.length - 1)];
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, wait * (0.75 + Math.random() / 2));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #load() {
    const fresh = new Map();
    // The first list is shown as it comes; a later one when it is whole.
    if (!this.isLoaded) this.rows = fresh;
    let from;
    let cursor = "";
    do {
      const page = await ask(`/api/v1/alarms?limit=${PAGE_ROWS}${cursor && `&cursor=${cursor}`}`);
      from ??= page;
      this.heardAt = Date.now();
      this.total = page.counts.active;
      for (const alarm of page.alarms) {
        if (fresh.size < ALARMS_MAX) fresh.set(alarm.id, new Row(alarm));
      }
      cursor = page.next;
      this.counts = cursor && fresh.size >= ALARMS_MAX ? page.counts.by_severity : undefined;
      if (this.rows === fresh) {
        this.#watch.changed();
        this.#watch.told();
      }
    } while (cursor && fresh.size < ALARMS_MAX);
    this.rows = fresh;
    this.isLoaded = true;
    this.#lastId = `${from.epoch}-${from.position}`;
    this.#watch.changed();
    this.#watch.reloaded();
  }

  /** Takes what comes until the stream ends. True if it says that the list must be asked for anew. */
  async #follow() {
    const ended = new AbortController();
    let watchdog = setTimeout(() => ended.abort(), ANSWER_MAX_MS);
    try {
      const headers = { accept: "text/event-stream", "last-event-id": this.#lastId };
      const response = await fetch("/api/v1/stream", { cache: "no-store", headers, signal: ended.signal });
      if (!response.ok) throw await refusal(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      this.#endStream = () => void reader.cancel();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return this.#mustList();
        clearTimeout(watchdog);
        watchdog = setTimeout(() => ended.abort(), SILENCE_MAX_MS);
        this.heardAt = Date.now();
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          if (this.#take(event)) return true;
        }
      }
    } finally {
      clearTimeout(watchdog);
      ended.abort();
    }
  }

  /** One event of the stream. True if the list must be asked for anew. */
  #take(text) {
    const fields = {};
    for (const line of text.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    const data = fields.data && JSON.parse(fields.data);
    switch (fields.event) {
      case "hello":
        this.#tries = 0;
        this.phase = "live";
        this.reason = "";
        this.#watch.told();
        break;
      case "reset":
        this.#wantsList = true;
        break;
      case "change":
        this.#change(data);
        break;
      case "touched":
        this.#touch(data);
        break;
    }
    if (fields.id) this.#lastId = fields.id;
    return this.#mustList();
  }

  #mustList() {
    if (!this.#wantsList) return false;
    this.#wantsList = false;
    this.#lastId = undefined;
    return true;
  }

  #change(change) {
    const action = actionOf(change);
    if (action && change.kind !== "pending") this.#arrived(action, change.alarm?.id ?? change.refusal?.alarm);
    // What stands in history only has changed nothing else in the list.
    if (change.past) {
      this.#watch.happened(change);
      return;
    }
    if (change.alarm) {
      const { alarm } = change;
      const known = this.rows.get(alarm.id)?.alarm.last_change;
      // Later pages of the list may be ahead of the stream, which begins at the first.
      const isLater = change.kind !== "realigned";
      if (isLater && known && known.epoch === alarm.last_change.epoch && known.seq > alarm.last_change.seq) return;
      const pending = new Set(this.rows.get(alarm.id)?.alarm.pending);
      if (change.kind === "pending" && action) pending.add(action);
      if (alarm.cleared || FORGETTING.has(change.kind)) this.rows.delete(alarm.id);
      else this.rows.set(alarm.id, new Row(pending.size ? { ...alarm, pending: [...pending] } : alarm));
      if (this.rows.size > ALARMS_MAX || this.isPartial) this.#recount();
    } else if (change.suppression) {
      const suppressed = change.kind === "suppressed";
      for (const [id, { alarm }] of this.rows) {
        if (alarm.alarm_type === change.alarm_type) this.rows.set(id, new Row({ ...alarm, suppressed }));
      }
    }
    // All alarms of a site are stale with it, and are not sent each for that.
    if (SILENCING.has(change.child?.what)) this.#wantsList = true;
    this.#watch.happened(change);
    this.#watch.changed();
  }

  /** An action is on its way no more: to one alarm, or to all it was for. */
  #arrived(action, alarm) {
    const rows = alarm ? [this.rows.get(alarm)] : [...this.rows.values()];
    for (const row of rows) {
      if (!row?.alarm.pending?.includes(action)) continue;
      const left = row.alarm.pending.filter((other) => other !== action);
      this.rows.set(row.id, new Row({ ...row.alarm, pending: left.length ? left : undefined }));
      this.#watch.changed();
    }
  }

  async #settle() {
    if (document.hidden || this.phase !== "live") return;
    const actions = new Set();
    for (const { alarm } of this.rows.values()) {
      for (const action of alarm.pending ?? []) if (actions.size < SETTLE_MAX) actions.add(action);
    }
    for (const action of actions) {
      // One that is not remembered any more is not on its way either.
      const { status } = await ask(`/api/v1/actions/${action}`).catch((error) => (error.status === 404 ? {} : { status: "pending" }));
      if (status !== "pending") this.#arrived(action);
    }
  }

  #touch({ alarm: id, ...said }) {
    const row = this.rows.get(id);
    if (!row) return;
    this.rows.set(id, new Row({ ...row.alarm, ...said }));
    this.#watch.changed();
  }

  /** Not all are held: lets the least severe go, and asks for the counts of all. */
  #recount() {
    if (this.rows.size > ALARMS_MAX + PAGE_ROWS) {
      const kept = [...this.rows.values()].sort(compareRows).slice(0, ALARMS_MAX);
      this.rows = new Map(kept.map((row) => [row.id, row]));
    }
    this.#counting ||= setTimeout(() => this.#count(), COUNT_EVERY_MS);
  }

  async #count() {
    try {
      const summary = await ask("/api/v1/alarms/summary");
      this.total = summary.active;
      this.counts = summary.active > this.rows.size ? summary.by_severity : undefined;
      // So many have gone that there is room for those that are not held.
      this.#wantsList ||= this.isPartial && this.rows.size < ALARMS_MAX / 2;
      if (this.#wantsList) this.#endStream();
      this.#watch.changed();
    } catch {
      // The stream tells, too, when the node is gone; the next change asks again.
    } finally {
      this.#counting = 0;
    }
  }
}
