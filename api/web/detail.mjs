// One alarm in full: what it is, what to do about it, what people did, and how it came to be so.

import { FORGETTING, ask } from "./feed.mjs";
import { marks } from "./grid.mjs";
import { element, fullTime, now, number, shortTime, showResource, sign, span } from "./words.mjs";

const HISTORY_ROWS = 20;
// Whoever walks through the list does not want all that lies between.
const ASK_AFTER_MS = 120;

const HAPPENED = {
  raised: "raised",
  updated: "updated",
  "severity-changed": "severity changed",
  cleared: "cleared",
  acknowledged: "acknowledged",
  unacknowledged: "acknowledgement taken back",
  assigned: "assigned",
  noted: "noted",
  shelved: "shelved",
  unshelved: "taken off the shelf",
  staled: "gone stale",
  refreshed: "heard from again",
  retired: "retired",
  purged: "purged",
  realigned: "brought to how its site says it stands",
  pending: "ordered, on its way to its site",
};
/** Why an action was refused; as the command line says it. */
const REFUSED = {
  "no-such-alarm": "there is no such alarm",
  "raised-again": "the alarm was raised again since it was seen",
  expired: "the action's time was over",
  "already-cleared": "the alarm is cleared already",
  "not-cleared": "the alarm is not cleared",
  "no-effect": "it is so already",
  "until-is-past": "the time until which it was to hold is over",
  "limit-reached": "as many are held as there may be",
  superseded: "somebody did the like later",
  unanswered: "its time was over, and its site has not said what became of it",
  "owner-gone": "the site that owns the alarm is there no more",
};
const ENDED_BY = {
  report: "by a report",
  operator: "by an operator",
  realignment: "while its site was not heard; how is not known",
  "ends-at": "at the end it was given",
  lifetime: "at the end of its lifetime",
};

/** The pane in `#detail`. */
export class Detail {
  #root;
  #content;
  #id = undefined;
  #alarm = undefined;
  #catalogue = undefined;
  #history = [];
  #pending = [];
  #problem = "";
  #isForgotten = false;
  #timer = 0;
  #asked = new AbortController();

  constructor(root, closed) {
    this.#root = root;
    this.#content = root.querySelector(".content");
    root.querySelector(".close").addEventListener("click", closed);
  }

  /** Which alarm is shown; undefined if the pane is closed. */
  get id() {
    return this.#id;
  }

  /** Shows the alarm `id`: first what the list knows of it, then all. */
  open(id, row) {
    if (id === this.#id) return;
    this.#id = id;
    this.#alarm = row?.alarm;
    this.#catalogue = undefined;
    this.#history = [];
    this.#pending = [];
    this.#problem = "";
    this.#isForgotten = false;
    this.#root.hidden = false;
    this.#content.scrollTop = 0;
    this.#draw();
    this.#ask(ASK_AFTER_MS);
  }

  /** Closes the pane. */
  close() {
    this.#asked.abort();
    clearTimeout(this.#timer);
    this.#id = undefined;
    this.#root.hidden = true;
  }

  /** The list was loaded anew: what is shown may be, too. */
  refresh() {
    if (this.#id) this.#ask(0);
  }

  /** The list knows of this now. */
  update(row) {
    if (!row || row.id !== this.#id || row.alarm === this.#alarm) return;
    this.#alarm = row.alarm;
    if (this.#lacksPending()) this.#ask(0);
    this.#draw();
  }

  /** A change was committed; `row` is what the list knows behind it. */
  happened(change, row) {
    if (!this.#id || (change.alarm?.id ?? change.refusal?.alarm) !== this.#id) return;
    // What stands in history only says how it was, not how it is; so does a refusal.
    if (!change.past && change.alarm) {
      this.#alarm = row?.alarm ?? change.alarm;
      this.#isForgotten = FORGETTING.has(change.kind);
      if (this.#lacksPending()) this.#ask(0);
    }
    const isIt = (known) => known.seq === change.seq && known.epoch === change.epoch && known.site === change.site;
    if (!this.#history.some(isIt)) {
      this.#history = [change, ...this.#history].slice(0, HISTORY_ROWS);
    }
    this.#draw();
  }

  /** Whether the list knows of an action on its way of which nothing more is known yet. */
  #lacksPending() {
    const known = new Set(this.#pending.map(({ action }) => action));
    return this.#alarm?.pending?.some((action) => !known.has(action));
  }

  #ask(after) {
    clearTimeout(this.#timer);
    this.#asked.abort();
    const id = this.#id;
    this.#asked = new AbortController();
    const { signal } = this.#asked;
    this.#timer = setTimeout(async () => {
      try {
        const answer = await this.#answer(id, signal);
        if (signal.aborted) return;
        if (isNewer(answer.alarm, this.#alarm)) this.#alarm = answer.alarm;
        this.#catalogue = answer.catalogue;
        this.#history = answer.history;
        this.#pending = answer.pending;
        this.#isForgotten = FORGETTING.has(this.#history.find((change) => !change.past)?.kind);
        this.#problem = this.#alarm ? "" : "This alarm is not known here.";
      } catch (error) {
        if (signal.aborted) return;
        this.#problem = error.status ? error.message : "The node cannot be reached; this is what was known.";
      }
      this.#draw();
    }, after);
  }

  /** Its last changes, and what the catalogue knows of its type. What was purged or retired is in history only. */
  async #answer(id, signal) {
    const { changes } = await ask(`/api/v1/history?alarm=${encodeURIComponent(id)}&limit=${HISTORY_ROWS}`, signal);
    const alarm = (changes.find((change) => !change.past && change.alarm) ?? changes[0])?.alarm;
    const { catalogued, alarm_type: type } = this.#alarm ?? alarm ?? {};
    const catalogue = catalogued ? await ask(`/api/v1/catalogue/${encodeURIComponent(type)}`, signal) : undefined;
    const isPending = this.#alarm?.pending?.length > 0;
    const { pending = [] } = isPending ? await ask(`/api/v1/alarms/${encodeURIComponent(id)}?limit=1`, signal) : {};
    return { alarm, catalogue, history: changes, pending };
  }

  #draw() {
    const alarm = this.#alarm;
    const problem = this.#problem && element("p", { class: "problem" }, this.#problem);
    this.#root.dataset.severity = alarm?.severity ?? "";
    if (!alarm) {
      this.#content.replaceChildren(problem || element("p", { class: "quiet" }, "Loading…"));
      return;
    }
    this.#content.replaceChildren(
      ...[problem, this.#head(alarm), this.#onTheWay(alarm), this.#cause(alarm), this.#notes(alarm), this.#facts(alarm), this.#past()].filter(Boolean),
    );
  }

  #head(alarm) {
    const since = span(now() - Date.parse(alarm.raised_at));
    const state = alarm.cleared ? `cleared ${shortTime(alarm.cleared_at)} ${ENDED_BY[alarm.cleared_by] ?? ""}` : `for ${since}`;
    const forgotten = this.#isForgotten && element("p", { class: "quiet" }, "It is forgotten; only the history has it still.");
    return element(
      "header",
      {},
      element("p", { class: `severity ${alarm.cleared ? "over" : ""}` }, sign(alarm.severity), `${alarm.severity}, `, state),
      forgotten,
      element("h2", {}, this.#catalogue?.title ?? alarm.alarm_type),
      element("p", { class: "resource" }, showResource(alarm.resource)),
      alarm.text && element("p", { class: "text" }, alarm.text),
      element("p", { class: "marks" }, ...marks(alarm).map(([kind, word, title]) => element("span", { class: `mark ${kind}`, title }, word))),
    );
  }

  /** What was ordered here and waits for the site that owns the alarm; or that it was refused, if nothing happened since. */
  #onTheWay({ pending = [], via }) {
    const last = this.#history.find((change) => !change.past);
    const { refusal, actor } = last ?? {};
    if (pending.length === 0) {
      if (!refusal) return undefined;
      const said = element("p", { class: "refused" }, REFUSED[refusal.reason] ?? refusal.reason);
      return element("section", {}, element("h3", {}, "Refused"), said, element("p", { class: "quiet" }, `what ${actor ?? "somebody"} ordered; ${shortTime(last.at)}`));
    }
    const list = element("ol", { class: "waiting" });
    for (const id of pending) {
      const found = this.#pending.find(({ action }) => action === id);
      const { verb = "an action", actor, child = via, since, expires_at: until } = found ?? {};
      const by = actor && `by ${actor}, ${shortTime(since)}; waits for ${child}`;
      list.append(
        element(
          "li",
          {},
          element("p", {}, verb, by ? element("span", { class: "quiet" }, ` ${by}`) : ` waits for ${child}`),
          until && element("p", { class: "quiet" }, `given up ${fullTime(until)}`),
        ),
      );
    }
    return element("section", {}, element("h3", {}, "On its way"), list);
  }

  #cause(alarm) {
    const repair = alarm.repair_action;
    const { text, thresholds, runbook } = this.#catalogue ?? {};
    if (!repair && !text) return undefined;
    const isLink = /^https?:\/\//.test(runbook ?? "");
    const link = isLink && element("a", { href: runbook, target: "_blank", rel: "noreferrer noopener" }, runbook);
    return element(
      "section",
      {},
      repair && element("h3", {}, "What to do"),
      repair && element("p", {}, repair),
      runbook && element("p", {}, "Runbook: ", link || runbook),
      text && element("h3", {}, "What it means"),
      text && element("p", {}, text),
      thresholds && element("p", { class: "quiet" }, thresholds),
    );
  }

  #facts(alarm) {
    const { acknowledged, assigned, shelved, stale, owner, via } = alarm;
    const words = (value) => value && String(value).replaceAll("-", " ");
    const facts = [
      ["Raised", alarm.raised_at && `${fullTime(alarm.raised_at)}${alarm.raise_seq > 1 ? `, for the ${ordinal(alarm.raise_seq)} time` : ""}`],
      ["First raised", alarm.raise_seq > 1 && fullTime(alarm.first_raised_at)],
      ["Happened", alarm.event_time && alarm.event_time !== alarm.raised_at && `${fullTime(alarm.event_time)}, says the reporter`],
      ["Reported", `${number(alarm.count)} ${alarm.count === 1 ? "time" : "times"}, last ${shortTime(alarm.last_reported_at)}`],
      ["Reporter", alarm.producer],
      ["Acknowledged", acknowledged && `by ${acknowledged.by}, ${shortTime(acknowledged.at)}${acknowledged.note ? `: ${acknowledged.note}` : ""}`],
      ["Assigned", assigned && `to ${assigned.to} by ${assigned.by}, ${shortTime(assigned.at)}`],
      ["Shelved", shelved && `by ${shelved.by} until ${fullTime(shelved.until)}: ${shelved.reason}`],
      ["Suppressed", alarm.suppressed && "its type is suppressed"],
      ["Stale", stale && `${alarm.silent ?? "its reporter"} is not heard from since ${fullTime(stale.since)}`],
      ["Site", alarm.site],
      ["Owner", owner && `${owner}${via && via !== owner ? `, by way of ${via}` : ""}; only there it changes`],
      ["Type", alarm.alarm_type + (alarm.catalogued ? "" : ", which the catalogue does not know")],
      ["Qualifier", alarm.qualifier],
      ["Event type", words(alarm.event_type)],
      ["Probable cause", words(alarm.probable_cause)],
      ["Service", alarm.service_affecting === undefined ? undefined : alarm.service_affecting ? "affected" : "not affected"],
      ...Object.entries(alarm.attributes ?? {}),
      ["Labels", Object.entries(alarm.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ")],
      ["Id", alarm.id],
    ];
    const list = element("dl", {});
    for (const [name, value] of facts) {
      if (value) list.append(element("dt", {}, name), element("dd", {}, String(value)));
    }
    const hint = element("p", { class: "quiet" }, "To act on it: ", element("code", {}, `klaxon alarms ack ${alarm.id.slice(0, 8)}`));
    return element("section", {}, element("h3", {}, "Facts"), list, !alarm.cleared && !this.#isForgotten && hint);
  }

  #notes({ notes = [] }) {
    if (notes.length === 0) return undefined;
    const list = element("ol", { class: "notes" });
    for (const note of notes) {
      list.append(element("li", {}, element("p", { class: "text" }, note.text), element("p", { class: "quiet" }, `${note.by}, ${shortTime(note.at)}`)));
    }
    return element("section", {}, element("h3", {}, "Notes"), list);
  }

  #past() {
    if (this.#history.length === 0) return undefined;
    const list = element("ol", { class: "history" });
    for (const change of this.#history) {
      const { alarm, previous_severity: before } = change;
      let words = HAPPENED[change.kind] ?? change.kind;
      if (before && alarm) words = `${before} → ${alarm.severity}`;
      else if (change.kind === "assigned") words = alarm?.assigned ? `assigned to ${alarm.assigned.to}` : "assigned to nobody";
      else if (change.kind === "raised" && alarm) words = `raised, ${alarm.severity}`;
      if (change.refusal) words = `refused: ${REFUSED[change.refusal.reason] ?? change.refusal.reason}`;
      if (change.past) words = `${words}, as became known later`;
      list.append(
        element(
          "li",
          {},
          element("time", { datetime: change.at, title: fullTime(change.at) }, shortTime(change.at)),
          element("span", { class: change.refusal && "refused" }, words, change.actor && element("span", { class: "quiet" }, ` by ${change.actor}`), change.note && `: ${change.note}`),
        ),
      );
    }
    return element("section", {}, element("h3", {}, "History"), list);
  }
}

/** Whether `one` tells of a later change than `other`. Repeats are no changes: what the list knows of them stays. */
function isNewer(one, other) {
  if (!one || !other) return Boolean(one);
  return one.last_change.epoch !== other.last_change.epoch || one.last_change.seq > other.last_change.seq;
}

function ordinal(value) {
  const ends = { one: "st", two: "nd", few: "rd", other: "th" };
  return `${value}${ends[new Intl.PluralRules("en", { type: "ordinal" }).select(value)]}`;
}
