// What stands in the filter box: words and conditions, all of which an alarm must meet.
//
//   web "disk full" -test severity>=major type=disk.* site=north resource=host=web-1 is=stale is!=acknowledged
//
// A word is looked for in resource, text, type, qualifier and site, in whatever case. What looks like a condition on a field
// that is not known here is a word: `host=web-1` finds resources.

import { SEVERITIES } from "./words.mjs";

const TOKENS = /(?:[^\s"]|"[^"]*"?)+/g;
const CONDITION = /^([a-z]+)(>=|<=|!=|=|>|<)(.*)$/i;

/** What `is=` can ask for. */
export const STATES = {
  acknowledged: (alarm) => alarm.acknowledged !== undefined,
  assigned: (alarm) => alarm.assigned !== undefined,
  shelved: (alarm) => alarm.shelved !== undefined,
  suppressed: (alarm) => alarm.suppressed === true,
  stale: (alarm) => alarm.stale !== undefined,
  pending: (alarm) => alarm.pending?.length > 0,
};

const urgency = (severity) => SEVERITIES.length - SEVERITIES.indexOf(severity);

/** A text that may end in `*`. */
function pattern(value) {
  const wanted = value.toLowerCase();
  if (wanted.endsWith("*")) return (text) => (text ?? "").toLowerCase().startsWith(wanted.slice(0, -1));
  return (text) => (text ?? "").toLowerCase() === wanted;
}

const anyOf = (value, make) => {
  const tests = value.split(",").map(make);
  return (alarm) => tests.some((test) => test(alarm));
};

/** The fields: from a value to a test. They throw what is wrong with the value. */
const FIELDS = {
  severity: (value) => anyOf(value, (word) => (alarm) => alarm.severity === severityOf(word)),
  type: (value) => anyOf(value, (word) => ((is) => (alarm) => is(alarm.alarm_type))(pattern(word))),
  site: (value) => anyOf(value, (word) => ((is) => (alarm) => is(alarm.site))(pattern(word))),
  assigned: (value) => ((is) => (alarm) => is(alarm.assigned?.to))(pattern(value)),
  resource: (value) => {
    // It, or what lies under it.
    const wanted = value.toLowerCase();
    return ({ resource }) => {
      const text = resource.toLowerCase();
      return text.startsWith(wanted) && (text.length === wanted.length || /^\.[a-z_][\w-]*=/.test(text.slice(wanted.length)));
    };
  },
  is: (value) => anyOf(value, (word) => {
    const found = Object.keys(STATES).find((state) => word !== "" && state.startsWith(word.toLowerCase()));
    if (!found) throw new Error(`is= takes ${Object.keys(STATES).join(", ")}`);
    return STATES[found];
  }),
};

function severityOf(word) {
  const found = SEVERITIES.find((severity) => word !== "" && severity.startsWith(word.toLowerCase()));
  if (!found) throw new Error(`“${word}” is none of ${SEVERITIES.join(", ")}`);
  return found;
}

function condition(field, operator, value) {
  if (field === "severity" && /[<>]/.test(operator)) {
    const bound = urgency(severityOf(value));
    return {
      ">=": (alarm) => urgency(alarm.severity) >= bound,
      "<=": (alarm) => urgency(alarm.severity) <= bound,
      ">": (alarm) => urgency(alarm.severity) > bound,
      "<": (alarm) => urgency(alarm.severity) < bound,
    }[operator];
  }
  if (/[<>]/.test(operator)) throw new Error(`${field} takes = and != only`);
  if (value === "") throw new Error(`${field}${operator} wants a value`);
  if (field === "severity") value.split(",").forEach(severityOf);
  const test = FIELDS[field](value);
  return operator === "!=" ? (alarm) => !test(alarm) : test;
}

/** Reads `text`: `{ test(row), error, isEmpty, asksForHidden }`. What cannot be used is told and left out. */
export function parseFilter(text) {
  const tests = [];
  let error = "";
  let asksForHidden = false;
  for (const token of text.match(TOKENS) ?? []) {
    const negated = token.length > 1 && token.startsWith("-");
    const bare = (negated ? token.slice(1) : token).replaceAll('"', "");
    const found = CONDITION.exec(bare);
    const field = found?.[1].toLowerCase();
    let test;
    if (found && Object.hasOwn(FIELDS, field) && !token.startsWith('"')) {
      try {
        const meets = condition(field, found[2], found[3]);
        test = ({ alarm }) => meets(alarm);
        asksForHidden ||= field === "is" && !negated && found[2] === "=" && /\bs[hu]/i.test(found[3]);
      } catch (refused) {
        error = refused.message;
        continue;
      }
    } else if (bare) {
      const word = bare.toLowerCase();
      test = (row) => row.words.includes(word);
    } else {
      continue;
    }
    tests.push(negated ? (row) => !test(row) : test);
  }
  return { test: (row) => tests.every((test) => test(row)), error, isEmpty: tests.length === 0 && !error, asksForHidden };
}

/** The severities that `text` asks for with `severity=`, if it does. */
export function askedSeverities(text) {
  const found = /(?:^|\s)severity=(\S*)/i.exec(text);
  return found ? SEVERITIES.filter((severity) => found[1].toLowerCase().split(",").includes(severity)) : [];
}

/** `text`, asking for exactly `severities`, or for none in particular. */
export function withSeverities(text, severities) {
  const rest = text.replace(/(^|\s)severity(?:[<>!]?=|[<>])\S*/gi, "").trim();
  const asked = severities.length ? `severity=${severities.join(",")}` : "";
  return [asked, rest].filter(Boolean).join(" ");
}
