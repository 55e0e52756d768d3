// The page: puts feed, filter, grid and detail together. It only reads; acting needs the command line.

import { Detail } from "./detail.mjs";
import { Feed, ask, compareRows } from "./feed.mjs";
import { askedSeverities, parseFilter, withSeverities } from "./filter.mjs";
import { Grid } from "./grid.mjs";
import { Sites } from "./sites.mjs";
import { SEVERITIES, element, fullTime, now, number, shortTime, sign, span } from "./words.mjs";

// Drawing may take a fifth of the time; where there is very much, it is drawn less often.
const REST_FACTOR = 4;
const REST_MAX_MS = 1_000;
// A page that nobody sees keeps its title true, and no more.
const HIDDEN_REST_MS = 1_000;
const ADDRESS_AFTER_MS = 250;
// What can leave the list empty.
const EMPTYING = "kind=cleared&kind=retired&kind=shelved&kind=suppressed";

const find = (id) => document.getElementById(id);
const [link, heard, banner, empty, shown, aside, filterBox, filterError, help] =
  ["link", "heard", "banner", "empty", "shown", "aside", "filter", "filter-error", "help"].map(find);
const narrow = matchMedia("(max-width: 60rem)");

let filter = parseFilter("");
let showsAside = false;
let emptySince = undefined;
let isEmpty = false;
let drawnFor = 0;
let scheduled = 0;
let addressTimer = 0;

const feed = new Feed({
  changed: schedule,
  told: drawLink,
  happened: (change) => {
    if (isEmpty) emptySince = undefined;
    if (change.child) sites.soon();
    detail.happened(change, feed.rows.get(change.alarm?.id));
  },
  reloaded: () => {
    emptySince = undefined;
    detail.refresh();
  },
});
const grid = new Grid(find("grid"), {
  selected: (id) => {
    if (detail.id) detail.open(id, feed.rows.get(id));
    address();
  },
  opened: open,
});
const detail = new Detail(find("detail"), close);
const sites = new Sites(find("sites"), find("sites-list"), (site) => setFilter(`site=${/\s/.test(site) ? `"${site}"` : site}`));
const chips = makeChips();

function open(id) {
  detail.open(id, feed.rows.get(id));
  // Where the pane lies over the list it takes the keys, too.
  if (narrow.matches) find("detail").focus();
  grid.reveal();
  address();
}

function close() {
  detail.close();
  find("grid").focus();
  address();
}

// --- Drawing ---

/** Draws soon: once for all that comes until then. */
function schedule() {
  if (scheduled) return;
  const rest = document.hidden ? HIDDEN_REST_MS : Math.min(drawnFor * REST_FACTOR, REST_MAX_MS);
  scheduled = setTimeout(() => (document.hidden ? draw() : requestAnimationFrame(draw)), rest < 16 ? 0 : rest);
}

function draw() {
  clearTimeout(scheduled);
  scheduled = 0;
  const began = performance.now();
  const counts = [0, 0, 0, 0, 0];
  const sites = new Set();
  const rows = [];
  const withAside = showsAside || filter.asksForHidden;
  let hidden = 0;
  for (const row of feed.rows.values()) {
    sites.add(row.alarm.site);
    if (row.isHidden) hidden += 1;
    if (row.isHidden && !withAside) continue;
    counts[row.rank] += 1;
    if (filter.test(row)) rows.push(row);
  }
  rows.sort(compareRows);
  find("grid").classList.toggle("sites", sites.size > 1);
  grid.show(rows);
  drawCounts(feed.isPartial ? SEVERITIES.map((severity) => feed.counts[severity]) : counts);
  drawTools(rows.length, hidden);
  drawEmpty(rows.length, hidden);
  detail.update(feed.rows.get(detail.id));
  drawnFor = performance.now() - began;
}

function makeChips() {
  return SEVERITIES.map((severity) => {
    const count = element("b", {}, "0");
    const chip = element("button", { type: "button", class: `chip ${severity}`, "aria-pressed": "false" }, sign(severity), count, element("span", {}, severity));
    chip.title = `Only ${severity}; with Shift these, too`;
    chip.addEventListener("click", (event) => {
      const asked = askedSeverities(filterBox.value);
      const others = event.shiftKey ? asked.filter((other) => other !== severity) : [];
      const isOff = asked.includes(severity) && (event.shiftKey || asked.length === 1);
      setFilter(withSeverities(filterBox.value, isOff ? others : SEVERITIES.filter((one) => one === severity || others.includes(one))));
    });
    find("counts").append(chip);
    return { severity, chip, count };
  });
}

function drawCounts(counts) {
  chips.forEach(({ chip, count }, rank) => {
    count.textContent = number(counts[rank]);
    chip.classList.toggle("none", counts[rank] === 0);
  });
  const [critical, major] = counts;
  const urgent = [critical && `${number(critical)} critical`, major && `${number(major)} major`].filter(Boolean).join(", ");
  document.title = `${feed.phase === "lost" ? "⚠ " : ""}${urgent ? `${urgent} · ` : ""}Klaxon`;
}

function drawTools(count, hidden) {
  const held = feed.rows.size - (showsAside || filter.asksForHidden ? 0 : hidden);
  if (!feed.isLoaded && feed.phase === "loading") shown.textContent = `loading ${number(feed.rows.size)} of ${number(feed.total)}`;
  else if (feed.isPartial) {
    const all = `the ${number(feed.rows.size)} most severe of ${number(feed.total)}`;
    shown.textContent = filter.isEmpty ? all : `${number(count)} of ${all}`;
  } else shown.textContent = filter.isEmpty ? `${number(count)} ${count === 1 ? "alarm" : "alarms"}` : `${number(count)} of ${number(held)}`;
  aside.hidden = hidden === 0 && !showsAside;
  aside.textContent = `${number(hidden)} shelved or suppressed`;
  aside.setAttribute("aria-pressed", String(showsAside));
  aside.title = showsAside ? "Hide them (s)" : "Show them (s)";
}

function drawEmpty(count, hidden) {
  isEmpty = count === 0;
  empty.hidden = !isEmpty;
  if (!isEmpty) {
    emptySince = undefined;
    empty.replaceChildren();
    return;
  }
  const say = (title, ...lines) => {
    const parts = lines.filter(Boolean).map((line) => (line instanceof Node ? line : element("p", {}, line)));
    const isSame = [title, ...parts.map((part) => part.textContent)].join("") === empty.textContent;
    // A button that has the focus is to keep it.
    if (!isSame) empty.replaceChildren(element("h2", {}, title), ...parts);
  };
  empty.classList.toggle("well", feed.isLoaded && filter.isEmpty && feed.phase !== "lost");
  if (!feed.isLoaded) return feed.phase === "lost" ? say("The node does not answer", feed.reason || "Trying again.") : say("Loading…");
  if (!filter.isEmpty) {
    const all = element("button", { type: "button" }, "Show all");
    all.addEventListener("click", () => setFilter(""));
    return say("No alarm matches the filter", all);
  }
  const others = hidden > 0 && `${number(hidden)} ${hidden === 1 ? "alarm is" : "alarms are"} shelved or suppressed.`;
  if (feed.phase === "lost") return say("All was well", `That was at ${shortTime(feed.heardAt)}; since then the node is silent.`, others);
  if (emptySince === undefined) {
    emptySince = null;
    void learnSince();
  }
  const since = emptySince && emptySince !== "ever" && `Since ${shortTime(emptySince)}, for ${span(now() - Date.parse(emptySince))}.`;
  if (emptySince === "ever" && !others) {
    say("All is well", "Nothing was ever reported to this node. To see something here:", element("code", {}, "klaxon event send --resource host=web-1 --type disk.full --severity major"));
  } else {
    say("All is well", since, others);
  }
}

/** Since when the list is empty. */
async function learnSince() {
  try {
    const { changes } = await ask(`/api/v1/history?${EMPTYING}&limit=1`);
    const before = changes.length === 0 && (await ask("/api/v1/history?limit=1")).changes;
    emptySince = changes[0]?.at ?? (before.length === 0 ? "ever" : "");
  } catch {
    emptySince = "";
  }
  schedule();
}

/** How the page stands with the node. Said once when it changes; how old the list is goes on beside it. */
function drawLink() {
  const word = { loading: "loading", live: "live", lost: "reconnecting" }[feed.phase];
  if (link.textContent !== word) link.textContent = word;
  document.body.dataset.link = feed.phase;
  banner.hidden = feed.phase !== "lost" || !feed.isLoaded;
  tick();
  schedule();
}

function tick() {
  grid.tick();
  heard.title = feed.heardAt ? `last heard of the node ${fullTime(feed.heardAt)}` : "";
  const age = span(Date.now() - feed.heardAt);
  heard.textContent = feed.phase === "lost" && feed.isLoaded ? `${age} old` : "";
  if (!banner.hidden) {
    const why = feed.reason ? `The node refuses: ${feed.reason}.` : "The node does not answer.";
    banner.textContent = `${why} What you see is as it was at ${shortTime(feed.heardAt)}, ${age} ago.`;
  }
  if (isEmpty && filter.isEmpty) drawEmpty(0, [...feed.rows.values()].filter((row) => row.isHidden).length);
}

// --- Filter and address ---

function setFilter(text) {
  filterBox.value = text;
  refilter();
}

function refilter() {
  filter = parseFilter(filterBox.value);
  filterError.textContent = filter.error;
  filterBox.setAttribute("aria-invalid", String(filter.error !== ""));
  const asked = askedSeverities(filterBox.value);
  for (const { severity, chip } of chips) chip.setAttribute("aria-pressed", String(asked.includes(severity)));
  address();
  schedule();
}

function setAside(shows) {
  showsAside = shows;
  address();
  schedule();
}

/** Keeps the filter and the open alarm in the address. */
function address() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const said = new URLSearchParams();
    if (filterBox.value.trim()) said.set("filter", filterBox.value.trim());
    if (showsAside) said.set("aside", "shown");
    if (detail.id) said.set("alarm", detail.id);
    const hash = String(said) && `#${said}`;
    if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname);
  }, ADDRESS_AFTER_MS);
}

function readAddress() {
  clearTimeout(addressTimer);
  const said = new URLSearchParams(location.hash.slice(1));
  showsAside = said.get("aside") === "shown";
  setFilter(said.get("filter") ?? "");
  const id = said.get("alarm");
  if (id) {
    grid.select(id);
    detail.open(id, feed.rows.get(id));
  } else if (detail.id) {
    detail.close();
  }
}

// --- Keys ---

filterBox.addEventListener("input", refilter);
filterBox.addEventListener("keydown", (event) => {
  if (!["Enter", "ArrowDown", "Escape"].includes(event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  find("grid").focus();
  if (event.key !== "Escape" && grid.rows.length > 0) grid.move(0);
});
aside.addEventListener("click", () => setAside(!showsAside));
find("keys").addEventListener("click", () => help.showModal());

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open || find("sites-list").open) return;
  if (event.target === filterBox) return;
  const acts = {
    "/": () => {
      filterBox.focus();
      filterBox.select();
    },
    "?": () => help.showModal(),
    Escape: () => detail.id && close(),
    s: () => setAside(!showsAside),
    j: () => step(1),
    k: () => step(-1),
  };
  const act = Object.hasOwn(acts, event.key) && acts[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

function step(by) {
  if (!find("detail").contains(document.activeElement)) find("grid").focus();
  grid.move(by);
}

addEventListener("hashchange", readAddress);
document.addEventListener("visibilitychange", () => {
  // What waits for a frame that nobody sees waits for too long.
  clearTimeout(scheduled);
  scheduled = 0;
  schedule();
});
setInterval(tick, 1_000);
readAddress();
drawLink();
void feed.run();
void sites.run();
