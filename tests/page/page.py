"""The checks of the page. page.py KLAXON CHROMIUM FOLDER PICTURES

Each check has a node and a page of its own. Nothing waits for a time: the browser is asked until it shows what is expected.
With KLAXON_PAGE_FILES=api/web the files of that folder are shown in place of the program's: for work on the page.
"""

import json
import os
import re
import sys
import time
import traceback
from datetime import datetime, timedelta, timezone

from node import Node
from playwright.sync_api import Error, expect, sync_playwright

CHROMIUM_ARGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage""".split()
WAIT_MS = 20_000
# The exit code that page.sh takes for a browser that does not start.
NO_BROWSER = 77
MANNER = {"viewport": {"width": 1280, "height": 760}, "locale": "en-US", "timezone_id": "UTC"}
ROWS_IN_DOCUMENT_MAX = 80
MANY = 10_000

# As it might be at three in the morning: resource, type, severity, text.
NIGHT = [
    ("host=db-2.filesystem=/var/lib/postgresql", "disk.full", "critical", "97.4 % used, 3.1 GiB left; full in about 40 min"),
    ("rack=4.ups=A", "power.on-battery", "critical", "On battery, 22 min left at this load"),
    ("host=edge-7.port=eth1", "link.down", "major", "No carrier; it was up for 41 d"),
    ("service=checkout", "service.slow", "major", "p99 is 4.2 s, the limit is 1.5 s"),
    ("host=db-2", "database.replication-lag", "major", "Replica db-3 is 312 s behind"),
    ("host=kvm-3.sensor=CPU1", "temperature.high", "minor", "82 °C, the limit is 80 °C"),
    ("host=edge-7", "time.unsynchronised", "minor", "Offset −184 ms, no server reachable"),
    ("host=backup-1.job=nightly", "backup.overdue", "minor", "The last good one is 31 h old"),
    ("certificate=api.example.net", "certificate.expiring", "warning", "Expires in 9 d"),
    ("host=kvm-3.disk=nvme1n1", "disk.failing", "warning", "Rated wear 93 %"),
    ("host=mail-1.queue=deferred", "queue.growing", "warning", "1 240 messages, 85 more each minute"),
    ("host=old-4", "configuration.out-of-date", "indeterminate", "The agent answers with an unknown version"),
    ("host=web-1.filesystem=/var", "disk.full", "major", "91 % used"),
]


class Shown:
    """A page, and all that is wrong with it on its own account."""

    def __init__(self, browser, node, path="/", answers=None, limits=None, **manner):
        self.node, self.faults, self.foreign, self.policy = node, [], [], None
        self.context = browser.new_context(**{**MANNER, **manner})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.add_init_script(
            "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective));"
            "window.born = Math.random();"
        )
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self.asked)
        files = os.environ.get("KLAXON_PAGE_FILES")
        if files:
            self.page.route("**/*", lambda route: self.from_folder(route, files))
        if limits:
            self.page.route("**/page/feed.mjs", lambda route: self.with_limits(route, limits))
        if answers:
            change = lambda route: (answer := route.fetch()) and route.fulfill(response=answer, json=answers(answer.json()))
            self.page.route("**/api/v1/alarms?*", change)
        answer = self.page.goto(node.base + path)
        self.policy = answer.headers.get("content-security-policy")
        self.born = self.page.evaluate("born")

    def from_folder(self, route, files):
        path = route.request.url.removeprefix(self.node.base).split("?")[0].split("#")[0]
        name = "index.html" if path == "/" else path.removeprefix("/page/")
        if path != "/" and not path.startswith("/page/"):
            return route.continue_()
        try:
            return route.fulfill(response=route.fetch(), path=f"{files}/{name}")
        except Error:
            return route.abort()

    def with_limits(self, route, limits):
        answer = route.fetch()
        text = answer.text()
        if files := os.environ.get("KLAXON_PAGE_FILES"):
            with open(f"{files}/feed.mjs") as file:
                text = file.read()
        for name, limit in limits.items():
            text, found = re.subn(rf"const {name} = [0-9_]+;", f"const {name} = {limit};", text)
            assert found == 1, name
        route.fulfill(response=answer, body=text)

    def heard(self, message):
        # A node that is away is a failed request to the browser; the page tells of it in its own way.
        if message.type in ("error", "warning") and "net::ERR_" not in message.text:
            self.faults.append(message.text)

    def asked(self, request):
        if not request.url.startswith(self.node.base + "/"):
            self.foreign.append(request.url)

    def end(self):
        """Nothing broke, nothing was fetched from elsewhere, and it was one page all the time."""
        violations = self.page.evaluate("violations")
        assert self.page.evaluate("born") == self.born, "the page was loaded anew"
        assert not violations and not self.faults, (violations, self.faults)
        assert not self.foreign, self.foreign
        assert not self.context.cookies()
        self.context.close()

    # What stands on it.

    @property
    def rows(self):
        return self.page.locator("#grid .space [role=row]")

    def row(self, resource):
        return self.rows.filter(has=self.page.locator(f'.resource[title="{resource}"]'))

    def filter(self, text):
        self.page.locator("#filter").fill(text)

    def resources(self):
        return self.page.locator("#grid .space .resource").all_inner_texts()

    def until_live(self):
        expect(self.page.locator("#link")).to_have_text("live", timeout=WAIT_MS)
        return self

    def until(self, expression, wanted=True):
        """Until the script `expression` says what is wanted."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while (found := self.page.evaluate(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression}: {found!r}, not {wanted!r}"
            self.page.wait_for_timeout(20)


def check_changes_are_shown_as_they_happen(node, show):
    node.raise_("host=a", "disk.full", "minor", "80 % used")
    shown = show().until_live()
    expect(shown.row("host=a").locator(".severity")).to_have_text("minor")
    expect(shown.row("host=a").locator(".text")).to_have_text("80 % used")
    node.raise_("host=b", "link.down", "major", "No carrier")
    expect(shown.row("host=b").locator(".type")).to_have_text("link.down")
    shown.until("document.title", "1 major · Klaxon")
    assert shown.resources() == ["host=b", "host=a"]
    node.raise_("host=a", "disk.full", "critical", "99 % used")
    expect(shown.row("host=a").locator(".severity")).to_have_text("critical")
    expect(shown.row("host=a").locator(".text")).to_have_text("99 % used")
    expect(shown.rows.first).to_contain_text("host=a")
    assert shown.resources() == ["host=a", "host=b"]
    shown.until("document.title", "1 critical, 1 major · Klaxon")
    expect(shown.page.locator(".chip.critical b")).to_have_text("1")
    node.report(*[dict(resource="host=a", alarm_type="disk.full", severity="critical", text="99 % used")] * 4)
    expect(shown.row("host=a").locator(".count")).to_have_text("×6")
    node.act("ack", node.id("host=a"))
    expect(shown.row("host=a").locator(".mark.acknowledged")).to_have_text("ack")
    node.act("assign", "--to", "ada", node.id("host=b"))
    expect(shown.row("host=b").locator(".mark.assigned")).to_have_text("→ ada")
    node.clear("host=a", "disk.full")
    expect(shown.row("host=a")).to_have_count(0)
    expect(shown.page.locator("#grid.sites")).to_have_count(0)
    node.raise_("host=c", "link.down", "warning", site="north")
    expect(shown.row("host=c").locator(".site")).to_be_visible()
    expect(shown.row("host=c").locator(".site")).to_have_text("north")
    shown.end()


def check_what_is_set_aside_is_hidden_until_asked_for(node, show):
    for host in "abc":
        node.raise_(f"host={host}", f"type.{host}", "major")
    shown = show().until_live()
    expect(shown.rows).to_have_count(3)
    node.act("shelve", "--for", "1h", "--reason", "new disks on Monday", node.id("host=a"))
    expect(shown.row("host=a")).to_have_count(0)
    node.act("suppress", "type.b", "--reason", "too loud")
    expect(shown.row("host=b")).to_have_count(0)
    aside = shown.page.locator("#aside")
    expect(aside).to_have_text("2 shelved or suppressed")
    aside.click()
    expect(shown.row("host=a").locator(".mark")).to_have_text("shelved")
    expect(shown.row("host=b").locator(".mark")).to_have_text("suppressed")
    shown.page.locator("#grid").focus()
    shown.page.keyboard.press("s")
    expect(shown.rows).to_have_count(1)
    node.act("unsuppress", "type.b")
    expect(shown.rows).to_have_count(2)
    shown.filter("is=shelved")
    expect(shown.row("host=a")).to_have_count(1)
    shown.end()


def check_the_filter_understands_words_and_conditions(node, show):
    for resource, alarm_type, severity, text in NIGHT:
        node.raise_(resource, alarm_type, severity, text)
    node.raise_("host=web-10.filesystem=/var", "disk.full", "minor", "far away", site="north")
    shown = show().until_live()
    for text, count in [
        ("", 14),
        ("disk", 4),
        ("DISK full", 3),
        ('"no carrier"', 1),
        ("severity>=major", 6),
        ("severity>major", 2),
        ("severity<=warning", 4),
        ("severity=critical,warning", 5),
        ("severity!=critical", 12),
        ("type=disk.*", 4),
        ("type=disk.full severity=major", 1),
        ("site=north", 1),
        ("resource=host=db-2", 2),
        ("resource=host=web-1", 1),
        ("host=web-1", 2),
        ("-disk", 10),
        ("-type=disk.* -service", 9),
        ("is=acknowledged", 0),
    ]:
        shown.filter(text)
        expect(shown.rows, text).to_have_count(count)
        expect(shown.page.locator("#filter-error")).to_be_empty()
    expect(shown.page.locator("#empty")).to_contain_text("No alarm matches")
    for text, complaint in [("severity>=majr", "majr"), ("is=gone", "is="), ("type>x", "type takes"), ("site=", "wants a value")]:
        shown.filter(text)
        expect(shown.page.locator("#filter-error")).to_contain_text(complaint)
        expect(shown.rows).to_have_count(14)
    shown.filter("host")
    shown.page.locator(".chip.major").click()
    expect(shown.page.locator("#filter")).to_have_value("severity=major host")
    expect(shown.page.locator(".chip.major")).to_have_attribute("aria-pressed", "true")
    expect(shown.rows).to_have_count(3)
    shown.page.locator(".chip.minor").click(modifiers=["Shift"])
    expect(shown.page.locator("#filter")).to_have_value("severity=major,minor host")
    expect(shown.page.locator("#shown")).to_have_text("7 of 14")
    shown.until("location.hash.includes('filter=severity%3Dmajor%2Cminor+host')")
    # The address says it all.
    other = show(shown.page.evaluate("location.pathname + location.hash")).until_live()
    expect(other.page.locator("#filter")).to_have_value("severity=major,minor host")
    expect(other.rows).to_have_count(7)
    other.end()
    shown.page.locator(".chip.minor").click()
    shown.page.locator(".chip.minor").click()
    expect(shown.page.locator("#filter")).to_have_value("host")
    shown.end()


def check_keys_lead_through_the_list_and_the_selection_stays(node, show):
    for number in range(5):
        node.raise_(f"host=h{number}", "link.down", "minor", f"number {number}")
    shown = show().until_live()
    expect(shown.rows).to_have_count(5)
    keys = shown.page.keyboard
    selected = shown.page.locator("#grid [aria-selected=true] .resource")
    keys.press("j")
    expect(selected).to_have_text("host=h4")
    keys.press("j")
    keys.press("ArrowDown")
    expect(selected).to_have_text("host=h2")
    keys.press("k")
    expect(selected).to_have_text("host=h3")
    active = shown.page.locator("#grid").get_attribute("aria-activedescendant")
    assert active == f"row-{node.id('host=h3')}", active
    # What comes above does not move the selection to another alarm.
    node.raise_("host=new", "link.down", "critical")
    expect(shown.row("host=new")).to_have_count(1)
    expect(selected).to_have_text("host=h3")
    keys.press("Enter")
    detail = shown.page.locator("#detail")
    expect(detail).to_contain_text("number 3")
    keys.press("j")
    expect(detail).to_contain_text("number 2")
    # Where an alarm was that is gone the keys go on.
    node.clear("host=h2", "link.down")
    expect(shown.row("host=h2")).to_have_count(0)
    expect(detail).to_contain_text("cleared")
    keys.press("j")
    expect(selected).to_have_text("host=h1")
    keys.press("Escape")
    expect(detail).to_be_hidden()
    keys.press("End")
    expect(selected).to_have_text("host=h0")
    keys.press("Home")
    expect(selected).to_have_text("host=new")
    keys.press("/")
    expect(shown.page.locator("#filter")).to_be_focused()
    keys.type("h1")
    expect(shown.rows).to_have_count(1)
    keys.press("Enter")
    expect(shown.page.locator("#grid")).to_be_focused()
    expect(selected).to_have_text("host=h1")
    keys.press("?")
    expect(shown.page.locator("#help")).to_be_visible()
    shown.page.screenshot(path=f"{PICTURES}/help.png")
    keys.press("Escape")
    expect(shown.page.locator("#help")).to_be_hidden()
    shown.end()


def check_an_alarm_is_shown_in_full(node, show):
    node.raise_("host=a", "disk.full", "major", "91 % used", attributes={"inodes": "12 %"}, producer="agent-a")
    node.raise_("host=a", "disk.full", "critical", "98 % used")
    id = node.id("host=a")
    shown = show().until_live()
    shown.row("host=a").click()
    detail = shown.page.locator("#detail")
    expect(detail.locator("h2")).to_have_text("File system nearly full")
    for text in ["What to do", "Find what has grown", "What it means", "98 % used", "major → critical", "raised, major", "12 %", id]:
        expect(detail).to_contain_text(text)
    node.act("note", "--message", "<b>called</b> the owner", id)
    expect(detail.locator(".notes")).to_contain_text("<b>called</b> the owner")
    expect(detail.locator(".history")).to_contain_text("noted")
    node.act("ack", id)
    expect(detail.locator(".history")).to_contain_text("acknowledged by")
    shown.until("location.hash.includes('alarm=')")
    other = show(shown.page.evaluate("location.pathname + location.hash")).until_live()
    expect(other.page.locator("#detail h2")).to_have_text("File system nearly full")
    other.end()
    node.act("retire", id)
    expect(detail).to_contain_text("retired")
    gone = show(shown.page.evaluate("location.pathname + location.hash")).until_live()
    expect(gone.page.locator("#detail")).to_contain_text("forgotten")
    expect(gone.page.locator("#detail")).to_contain_text("Find what has grown")
    gone.end()
    shown.page.locator("#detail .close").click()
    expect(detail).to_be_hidden()
    shown.end()


def check_text_of_others_stays_text(node, show):
    evil = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    node.raise_(f"host={evil}", "disk.full", "major", evil, qualifier=evil, attributes={"a": evil})
    shown = show().until_live()
    expect(shown.rows).to_have_count(1)
    expect(shown.rows.locator(".text")).to_have_text(evil)
    shown.rows.first.click()
    expect(shown.page.locator("#detail")).to_contain_text("What to do")
    expect(shown.page.locator("#detail header .text")).to_have_text(evil)
    node.act("note", "--message", evil, node.id(f"host={evil}"))
    expect(shown.page.locator("#detail .notes .text")).to_have_text(evil)
    for name in ("img", "script"):
        expect(shown.page.locator(f"main {name}")).to_have_count(0)
    shown.until("document.title", "1 major · Klaxon")
    shown.end()


def check_the_nodes_below_are_a_button_and_a_table(node, show):
    shown = show().until_live()
    button, table = shown.page.locator("#sites"), shown.page.locator("#sites-list")
    expect(button).to_be_hidden()
    node.command("site", "add", "cell-2", "--approve")
    node.command("site", "add", "cell-1")
    # It looks every ten seconds.
    expect(button).to_have_text("2 sites, 1 awaiting")
    button.click()
    expect(table.locator("tbody tr")).to_have_count(2)
    expect(table.locator("tbody tr").first).to_contain_text("cell-2")
    expect(table).to_contain_text("1 awaiting, 1 enrolled.")
    shown.page.screenshot(path=f"{PICTURES}/sites.png")
    shown.page.keyboard.press("Escape")
    expect(table).to_be_hidden()
    shown.end()


QUICK = '[node]\nsite = "noc"\n[sites]\nheartbeat = "1s"\nsilent_after = "3s"\n'


def below(node, name):
    """A site of its own, on the same machine."""
    settings = f'[node]\nsite = "{name}"\n[uplink]\nretry_min = "20ms"\nretry_max = "200ms"\n'
    return Node(node.binary, f"{node.folder}/{name}", settings)


def check_what_is_ordered_for_a_silent_site_is_seen_until_it_is_done_or_refused(node, show):
    centre = Node(node.binary, f"{node.folder}/noc", QUICK)
    tower = below(node, "tower-1")
    try:
        centre.join(tower)
        for host in ("bts", "mast"):
            tower.raise_(f"host={host}", "link.down", "major", "No carrier")
        centre.raise_("host=core", "link.down", "minor")
        shown = show(node=centre).until_live()
        bts, mast = shown.row("host=bts"), shown.row("host=mast")
        expect(bts).to_have_count(1)
        expect(mast.locator(".mark")).to_have_count(0)
        bts.click()
        facts = shown.page.locator("#detail")
        expect(facts).to_contain_text("tower-1; only there it changes")
        # It falls silent: what it owns is stale because of it, and says so.
        tower.kill()
        expect(bts.locator(".mark.stale")).to_have_attribute("title", re.compile("^tower-1 is not heard from since "))
        expect(facts).to_contain_text("tower-1 is not heard from since")
        expect(shown.row("host=core").locator(".mark")).to_have_count(0)
        # At once, and not only when it looks the next time.
        expect(shown.page.locator("#sites")).to_have_text("1 site, 1 silent", timeout=3_000)
        # What is ordered meanwhile waits, seen by whoever looks, also after the page is loaded anew.
        centre.act("ack", centre.id("host=bts"), "-m", "on it")
        centre.act("ack", centre.id("host=mast"))
        expect(bts.locator(".mark.pending")).to_have_attribute("title", "an action is on the way to tower-1")
        waits = facts.locator(".waiting")
        expect(waits).to_contain_text(re.compile("^acknowledge by .+; waits for tower-1"))
        expect(waits).to_contain_text("given up ")
        shown.page.screenshot(path=f"{PICTURES}/pending.png")
        other = show(path=f"/#alarm={centre.id('host=bts')}", node=centre).until_live()
        expect(other.row("host=mast").locator(".mark.pending")).to_have_count(1)
        expect(other.page.locator("#detail .waiting")).to_contain_text("waits for tower-1")
        other.filter("is=pending")
        expect(other.rows).to_have_count(2)
        other.filter("is=pending -host=bts")
        expect(other.rows).to_have_count(1)
        other.filter("")
        # It was raised again at the site before the order came: that was not meant. The other takes effect.
        tower_alone(centre, tower, lambda: (tower.clear("host=mast", "link.down"), tower.raise_("host=mast", "link.down", "critical")))
        for page in (shown, other):
            expect(page.row("host=bts").locator(".mark.acknowledged")).to_have_count(1)
            expect(page.row("host=mast")).to_contain_text("critical")
            expect(page.page.locator("#grid .mark.pending, #grid .mark.stale")).to_have_count(0)
            expect(page.page.locator("#detail .waiting")).to_have_count(0)
        mast.click()
        expect(facts.locator("section > .refused")).to_have_text("the alarm was raised again since it was seen")
        expect(facts.locator(".history .refused")).to_contain_text("refused: the alarm was raised again since it was seen by ")
        shown.page.screenshot(path=f"{PICTURES}/refused.png")
        faint = shown.page.evaluate(CONTRAST)
        assert not faint, faint
        for page in (shown, other):
            page.end()
        tower.stop()
        centre.stop()
    finally:
        for one in (tower, centre):
            if one.process.poll() is None:
                one.kill()


def tower_alone(centre, tower, act):
    """Starts a site again where it cannot come up, lets it act, and lets it come up."""
    centre.kill()
    tower.start()
    act()
    centre.start()


def check_a_thousand_sites_are_a_table_to_search(node, show):
    centre = Node(node.binary, f"{node.folder}/noc", QUICK)
    towers = [below(node, name) for name in ("tower-1", "tower-2")]
    try:
        with open(f"{node.folder}/sites.csv", "w") as file:
            file.write("".join(f"cell-{n:04}\n" for n in range(998)))
        centre.command("site", "add", "--from", f"{node.folder}/sites.csv")
        for tower in towers:
            centre.join(tower)
        towers[0].raise_("host=bts", "link.down", "critical")
        towers[1].raise_("host=bts", "link.down", "major")
        shown = show(node=centre).until_live()
        expect(shown.rows).to_have_count(2)
        towers[1].kill()
        button, table = shown.page.locator("#sites"), shown.page.locator("#sites-list")
        expect(button).to_have_text("1,000 sites, 1 silent")
        centre.act("ack", "--all", "--site", "tower-2")
        button.click()
        rows = table.locator("tbody tr")
        expect(rows).to_have_count(100)
        expect(table.locator(".told")).to_have_text("1 silent, 998 enrolled, 1 connected; the first 100 are shown.")
        first = rows.first
        expect(first).to_contain_text("tower-2")
        expect(first).to_contain_text("1 action pending")
        assert shown.page.evaluate("document.querySelectorAll('#sites-list *').length") < 2_500
        shown.page.screenshot(path=f"{PICTURES}/sites-many.png")
        # Whoever looks for one types its name; every fact is what the API has of it.
        table.locator("input").fill("tower-")
        expect(rows).to_have_count(2)
        expect(table.locator(".told")).to_have_text("1 silent, 998 enrolled, 1 connected.")
        known = json.loads(centre.request("GET", "/api/v1/sites/tower-1")[2])
        up = rows.filter(has_text="tower-1")
        for part in ("connected", known["version"], "site"):
            expect(up).to_contain_text(part)
        expect(up.locator("[data-label=heard]")).to_have_text(re.compile(r"^\d+ s$"))
        expect(up.locator("[data-label=lag]")).to_have_text(re.compile(r"^\d+ ms$"))
        expect(up.locator("[data-label=clock]")).to_have_text(re.compile(r"^-?\d+ ms$"))
        expect(up.locator(".counts span.critical")).to_have_text("1")
        expect(rows.first.locator(".is-silent")).to_have_attribute("title", re.compile("^since "))
        expect(table.locator(".hint")).to_contain_text("klaxon site show tower-2")
        for width, height in ((1280, 700), (360, 640)):
            shown.page.set_viewport_size({"width": width, "height": height})
            wide = shown.page.evaluate("[document.documentElement.scrollWidth, document.getElementById('sites-list').scrollWidth]")
            assert max(wide) <= width, f"{wide} wide on {width}"
            faint = shown.page.evaluate(CONTRAST)
            assert not faint, f"hard to read: {faint}"
            shown.page.screenshot(path=f"{PICTURES}/sites-{width}.png")
        # Its name leads to its alarms.
        up.get_by_role("button").click()
        expect(table).to_be_hidden()
        expect(shown.page.locator("#filter")).to_have_value("site=tower-1")
        expect(shown.rows).to_have_count(1)
        expect(shown.rows.first.locator(".site")).to_be_visible()
        shown.filter("")
        shown.page.screenshot(path=f"{PICTURES}/sites-360-list.png")
        shown.end()
        towers[0].stop()
        centre.stop()
    finally:
        for one in (*towers, centre):
            if one.process.poll() is None:
                one.kill()


def check_the_page_is_held_to_what_it_may_do(node, show):
    shown = show().until_live()
    assert shown.policy.startswith("default-src 'none'; script-src 'self'; ") and "unsafe" not in shown.policy, shown.policy
    # The policy bites: what a page could do without it fails here.
    page = shown.page
    page.evaluate("const made = document.createElement('script'); made.textContent = 'window.broken = 1'; document.body.append(made)")
    shown.until("violations.length", 1)
    assert page.evaluate("window.broken") is None
    assert any("Content Security Policy" in fault for fault in shown.faults), shown.faults
    page.evaluate("violations.length = 0")
    shown.faults.clear()
    status, headers, _ = node.request("GET", "/page/app.mjs", headers={"accept-encoding": "gzip"})
    assert status == 200 and headers["content-encoding"] == "gzip", headers
    again = node.request("GET", "/page/app.mjs", headers={"accept-encoding": "gzip", "if-none-match": headers["etag"]})
    assert (again[0], again[2]) == (304, b""), again
    shown.end()


def check_a_lost_node_is_told_of_and_found_again(node, show):
    lose_and_find(node, show)


def check_after_a_long_absence_the_list_comes_anew(node, show):
    lose_and_find(node, show, limits={"RESUME_MAX_MS": 0})


def lose_and_find(node, show, **manner):
    for host in "abc":
        node.raise_(f"host={host}", "link.down", "major")
    shown = show(**manner).until_live()
    expect(shown.rows).to_have_count(3)
    shown.row("host=a").click()
    detail = shown.page.locator("#detail")
    expect(detail).to_contain_text("What it means")
    expect(detail.locator("header")).to_contain_text("major, for")
    node.kill()
    expect(shown.page.locator("#link")).to_have_text("reconnecting")
    expect(shown.page.locator("#banner")).to_contain_text("does not answer")
    shown.until("/^[1-9]\\d* s old$/.test(document.getElementById('heard').textContent)")
    expect(shown.rows).to_have_count(3)
    shown.until("document.title", "⚠ 3 major · Klaxon")
    shown.page.screenshot(path=f"{PICTURES}/lost.png")
    # What happens while the page is away is there when it comes back.
    node.start()
    node.clear("host=a", "link.down")
    node.raise_("host=d", "link.down", "critical")
    shown.until_live()
    expect(shown.page.locator("#banner")).to_be_hidden()
    expect(shown.rows).to_have_count(3)
    expect(shown.row("host=a")).to_have_count(0)
    expect(shown.rows.first).to_contain_text("host=d")
    expect(detail.locator("header")).to_contain_text("major, cleared")
    expect(detail.locator(".history")).to_contain_text("cleared")
    # A node that was set up anew numbers anew: the list is another one.
    node.kill()
    os.rename(f"{node.folder}/data", f"{node.folder}/old")
    node.start()
    node.raise_("host=z", "link.down", "minor")
    shown.until_live()
    expect(shown.row("host=z")).to_have_count(1)
    expect(shown.rows).to_have_count(1)
    shown.end()


def check_an_empty_list_says_that_all_is_well(node, show):
    shown = show().until_live()
    empty = shown.page.locator("#empty")
    expect(empty).to_contain_text("All is well")
    expect(empty).to_contain_text("Nothing was ever reported")
    node.raise_("host=a", "link.down", "major")
    expect(shown.rows).to_have_count(1)
    expect(empty).to_be_hidden()
    node.clear("host=a", "link.down")
    expect(empty).to_contain_text("All is well")
    expect(empty).to_contain_text("Since ")
    shown.until("document.title", "Klaxon")
    shown.page.screenshot(path=f"{PICTURES}/empty.png")
    node.kill()
    expect(empty).to_contain_text("All was well")
    node.start()
    shown.until_live()
    expect(empty).to_contain_text("All is well")
    shown.end()


def check_many_alarms_are_few_rows(node, show):
    severities = ["critical", "major", "minor", "warning", "indeterminate"]
    event = lambda n: dict(resource=f"host=h{n:05}.port=eth0", alarm_type="link.down", severity=severities[n % 5], text=f"number {n}")
    node.report(*[event(n) for n in range(MANY)])
    shown = show().until_live()
    expect(shown.page.locator("#shown")).to_have_text("10,000 alarms")
    bounded = lambda: shown.rows.count() <= ROWS_IN_DOCUMENT_MAX
    assert bounded()
    for part in (0.1, 0.5, 0.9):
        shown.page.evaluate(f"const g = document.getElementById('grid'); g.scrollTop = g.scrollHeight * {part}")
        shown.until("""(() => { const g = document.getElementById('grid').getBoundingClientRect();
            const at = document.elementFromPoint(g.left + 300, g.top + g.height / 2); return !!at?.closest('.space [role=row]'); })()""")
        assert bounded()
    shown.page.locator("#grid").focus()
    shown.page.keyboard.press("End")
    last = shown.page.locator(f'#grid [aria-rowindex="{MANY + 1}"]')
    expect(last).to_be_in_viewport()
    assert bounded()
    # With the list at its end, what comes on top does not move it.
    resource = last.locator(".resource").inner_text()
    node.raise_("host=new", "link.down", "critical")
    shown.until("document.getElementById('grid').getAttribute('aria-rowcount')", str(MANY + 2))
    expect(shown.page.locator(f'#grid [aria-rowindex="{MANY + 2}"] .resource')).to_have_text(resource)
    expect(shown.page.locator(f'#grid [aria-rowindex="{MANY + 2}"]')).to_be_in_viewport()
    shown.filter('"number 777"')
    expect(shown.rows).to_have_count(11)
    shown.filter("")
    frames = shown.page.evaluate(
        """async () => { const g = document.getElementById('grid'); g.scrollTop = 0; const took = []; let last = performance.now();
            for (let n = 0; n < 90; n += 1) { g.scrollTop += 1500; await new Promise(requestAnimationFrame);
                const now = performance.now(); took.push(now - last); last = now; }
            return took.sort((a, b) => a - b); }"""
    )
    print(f"  scrolling {MANY} alarms: median frame {frames[45]:.0f} ms, 95 % within {frames[85]:.0f} ms")
    # A storm while somebody looks: the page keeps up.
    began = time.monotonic()
    node.report(*[dict(event(n), text="again", severity="major") for n in range(4000)])
    # Of the first 4000 a fifth was critical, and one came later.
    shown.until("document.querySelector('.chip.critical b').textContent", f"{MANY // 5 - 800 + 1:,}")
    print(f"  4000 changes were shown {time.monotonic() - began:.1f} s after they were sent")
    assert bounded()
    shown.end()


def check_more_than_can_be_held_is_said(node, show):
    event = lambda n, **more: dict(resource=f"host=h{n:04}", alarm_type="link.down", severity=["minor", "critical"][n < 1500], **more)
    node.report(*[event(n) for n in range(4000)])
    # The same page with smaller limits.
    shown = show(limits={"ALARMS_MAX": 2000, "PAGE_ROWS": 500, "COUNT_EVERY_MS": 50}).until_live()
    said = shown.page.locator("#shown")
    expect(said).to_have_text("the 2,000 most severe of 4,000")
    expect(shown.page.locator(".chip.minor b")).to_have_text("2,500")
    shown.filter("h0")
    expect(said).to_have_text("1,000 of the 2,000 most severe of 4,000")
    shown.filter("")
    node.raise_("host=new", "link.down", "critical")
    expect(shown.row("host=new")).to_have_count(1)
    expect(shown.page.locator(".chip.critical b")).to_have_text("1,501")
    # When there is room again, what was left out comes, too.
    node.report(*[dict(event(n), severity="cleared") for n in range(3000)])
    node.clear("host=new", "link.down")
    expect(said).to_have_text("1,000 alarms")
    shown.page.locator("#grid").focus()
    shown.page.keyboard.press("End")
    expect(shown.page.locator('#grid [aria-rowindex="1001"]')).to_be_in_viewport()
    shown.end()


def check_it_is_good_to_look_at(node, show):
    for resource, alarm_type, severity, text in NIGHT:
        node.raise_(resource, alarm_type, severity, text)
    node.raise_("host=edge-7.port=eth1", "link.down", "major", "No carrier; it was up for 41 d")
    node.report(*[dict(resource="host=mail-1.queue=deferred", alarm_type="queue.growing", severity="warning")] * 16)
    node.act("ack", node.id("rack=4.ups=A"))
    node.act("assign", "--to", "ada", node.id("host=db-2.filesystem=/var/lib/postgresql"))
    node.act("note", "--message", "Old WAL segments: the replica has not fetched them since 02:11.", node.id("host=db-2.filesystem=/var/lib/postgresql"))
    node.act("shelve", "--for", "3d", "--reason", "new disk is ordered", node.id("host=kvm-3.disk=nvme1n1"))

    def older(answer):
        """A night that began hours ago: only for the pictures, whose alarms were all raised just now."""
        for number, alarm in enumerate(answer.get("alarms", [])):
            raised = datetime.now(timezone.utc) - timedelta(minutes=3 + 7 * number**1.7)
            alarm["raised_at"] = raised.strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer

    for scheme in ("light", "dark"):
        for width, height in ((1280, 620), (360, 720)):
            shown = show(color_scheme=scheme, viewport={"width": width, "height": height}, answers=older).until_live()
            expect(shown.rows).to_have_count(12)
            wide = shown.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"the page is {wide} wide on {width}"
            faint = shown.page.evaluate(CONTRAST)
            assert not faint, f"{scheme}: hard to read: {faint}"
            picture = f"{PICTURES}/{scheme}-{width}"
            shown.page.screenshot(path=f"{picture}.png")
            shown.row("host=db-2.filesystem=/var/lib/postgresql").click()
            expect(shown.page.locator("#detail")).to_contain_text("File system nearly full")
            expect(shown.page.locator("#detail .notes")).to_contain_text("Old WAL segments")
            expect(shown.page.locator("#detail .history")).to_contain_text("assigned to ada")
            faint = shown.page.evaluate(CONTRAST)
            assert not faint, f"{scheme}: hard to read: {faint}"
            shown.page.screenshot(path=f"{picture}-detail.png")
            shown.end()


# Texts in sight whose contrast is below 4.5 (WCAG 2.2, 1.4.3), with what stands behind them.
CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = (node) => { for (let at = node; at; at = at.parentElement) {
        const c = rgba(getComputedStyle(at).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
    const faint = [];
    for (const node of document.querySelectorAll('body *')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.checkVisibility()) continue;
        const [one, other] = [light(rgba(getComputedStyle(node).color).slice(0, 3)), light(behind(node).slice(0, 3))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) faint.push(`${node.className || node.tagName} “${node.textContent.slice(0, 20)}” ${contrast.toFixed(2)}`);
    }
    return faint;
}"""


def main(binary, chromium, folder):
    only = os.environ.get("KLAXON_PAGE_ONLY", "")
    checks = [(name, check) for name, check in globals().items() if name.startswith("check_") and only in name]
    failed = []
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        except Error as error:
            print(f"{chromium} does not start: {error}", file=sys.stderr)
            return NO_BROWSER
        for number, (name, check) in enumerate(checks):
            began, pages = time.monotonic(), []
            # By a number: the path of a socket must be short.
            node = Node(binary, f"{folder}/{number}")

            def show(path="/", node=node, pages=pages, **manner):
                pages.append(Shown(browser, node, path, **manner))
                return pages[-1]

            try:
                check(node, show)
                node.stop()
                print(f"{name.removeprefix('check_')} … ok, {time.monotonic() - began:.1f} s", flush=True)
            except Exception:
                failed.append(name)
                print(f"{name.removeprefix('check_')} … failed\n{traceback.format_exc()}", flush=True)
                for number, shown in enumerate(pages):
                    if not shown.page.is_closed():
                        shown.page.screenshot(path=f"{PICTURES}/failed-{name}-{number}.png")
                        print(f"  it says: {shown.faults}; see {PICTURES}/failed-{name}-{number}.png", flush=True)
            finally:
                if node.process.poll() is None:
                    node.kill()
                for shown in pages:
                    shown.context.close()
        browser.close()
    print(f"\n{len(checks) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    PICTURES = sys.argv[4]
    sys.exit(main(*sys.argv[1:4]))
