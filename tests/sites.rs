//! Sites below a centre, as their people meet them: what is raised is at the centre at once; what was missed comes in order, once
//! and quietly; what is ordered at the centre reaches its owner; whoever is silent, doubled, moved or restored is known as that.

#![expect(clippy::print_stdout, reason = "a run says its seed, what it hit and what it measured")]

#[path = "sites/account.rs"]
mod account;
#[path = "sites/again.rs"]
mod again;
#[path = "sites/facts.rs"]
mod facts;
mod harness;
#[path = "sites/hits.rs"]
mod hits;
#[path = "sites/inside.rs"]
mod inside;
#[path = "sites/line.rs"]
mod line;
#[path = "sites/lives.rs"]
mod lives;
#[path = "sites/mishaps.rs"]
mod mishaps;
#[path = "sites/schedules.rs"]
mod schedules;
#[path = "harness/wan.rs"]
mod wan;
#[path = "sites/world.rs"]
mod world;

use std::process::Command;
use std::time::{Duration, Instant};

use harness::hook::Hook;
use harness::{klaxon, scratch, wait_until};
use serde_json::json;
use wan::Weather;
use world::{Below, Place, centre, numbered, standing, token_file, told_of, uplink, wait_same, wait_whole_history};

#[test]
fn a_site_joins_with_a_token_and_its_alarms_are_at_the_centre_within_a_second() {
    let (dir, hook) = (scratch("join-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let token = centre.enrol("alpha", "site");
    assert!(centre.site_is("alpha", "enrolled"));
    let wan = wan::Wan::to(centre.address());
    let file = token_file(dir.path(), "alpha", &token);
    let alpha = Place::start(dir.path(), "alpha", &uplink(&wan, "site", &file));
    centre.wait_site("alpha", "connected");
    wait_until("the site knows, too", || alpha.json("/uplink/state")["state"] == "connected");

    let mut took: Vec<_> = (0..7)
        .map(|number| {
            let resource = format!("fan={number}");
            alpha.report(&[(&resource, "critical")]);
            let begun = Instant::now();
            wait_until("it is at the centre", || centre.alarm(&resource).is_some());
            begun.elapsed()
        })
        .collect();
    took.sort();
    println!("at the centre after {took:?}");
    assert!(took[3] < Duration::from_secs(1), "{took:?}");
    let alarm = centre.alarm("fan=3").expect("is listed");
    assert_eq!((&alarm["site"], &alarm["owner"], &alarm["via"]), (&json!("alpha"), &json!("alpha"), &json!("alpha")));
    assert!(alarm["stale"].is_null(), "{alarm}");
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
    hook.wait_told(7);
    for number in 0..7 {
        assert_eq!(told_of(&hook, &format!("fan={number}")), [("raised".to_owned(), 1)]);
    }

    // What it proves itself with is its own, and nobody reads it; the token is used up.
    let kept = std::fs::read_to_string(alpha.data.join("uplink.json")).expect("is there");
    assert!(!kept.contains(&token), "the join token is kept");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(alpha.data.join("uplink.json")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let impostor = Place::start_as(
        "impostor",
        "alpha",
        harness::Setup::new(&dir.path().join("impostor")).config(&uplink(&wan, "site", &file)),
    );
    wait_until("the token is refused", || {
        let error = impostor.json("/uplink/state")["last_error"].as_str().unwrap_or("").to_owned();
        error.contains("does not let this node in") || error.contains("its join token was used by another node")
    });
    assert_eq!(centre.site("alpha").expect("is there")["state"], "connected");
    for place in [&centre, &alpha, &impostor] {
        assert!(!place.log_text().contains(&token), "{} tells the token", place.name);
    }
}

#[test]
fn what_happened_while_cut_comes_in_order_once_and_pages_nobody_for_the_past() {
    let (dir, hook) = (scratch("cut-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=stays", "major"), ("fan=ends", "major"), ("fan=again", "minor"), ("fan=worse", "minor")]);
    wait_same(&centre, &alpha);
    hook.wait_told(4);
    let before = alpha.history().len();

    alpha.wan.set(Weather::Cut);
    // Raised again, came and went, worse, new; and one that came and went often.
    alpha.report(&[("fan=ends", "cleared"), ("fan=again", "cleared"), ("fan=again", "critical"), ("fan=worse", "critical")]);
    alpha.report(&[("fan=past", "critical"), ("fan=past", "cleared"), ("fan=new", "major")]);
    for _ in 0..20 {
        alpha.report(&[("fan=flaps", "major"), ("fan=flaps", "cleared")]);
    }
    let while_cut = alpha.history().len() - before;
    assert_eq!(while_cut, 7 + 40);
    assert!(centre.alarm("fan=new").is_none());

    alpha.wan.set(Weather::Fair);
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
    wait_until("it is told in one line", || !centre.digests("alpha").is_empty());
    let digests = centre.digests("alpha");
    let counts: Vec<_> = digests.iter().map(|digest| (&digest["changes"], &digest["raised"], &digest["cleared"])).collect();
    let expected = (json!(while_cut), json!(23), json!(23));
    assert_eq!(counts, [(&expected.0, &expected.1, &expected.2)], "{digests:?}");

    // An alarm behind all that: when it is told, all before it would have been.
    alpha.report(&[("fan=last", "major")]);
    wait_until("the last is told", || !told_of(&hook, "fan=last").is_empty());
    for resource in ["fan=past", "fan=flaps"] {
        assert_eq!(told_of(&hook, resource), [], "{resource} is past");
    }
    assert_eq!(told_of(&hook, "fan=stays").len(), 1);
    assert_eq!(told_of(&hook, "fan=new"), [("raised".to_owned(), 1)]);
    assert_eq!(told_of(&hook, "fan=ends").last(), Some(&("cleared".to_owned(), 1)));
    assert_eq!(told_of(&hook, "fan=worse").last(), Some(&("changed".to_owned(), 1)));
    let again = told_of(&hook, "fan=again");
    assert_eq!(again.iter().filter(|(how, episode)| how != "cleared" && *episode == 2).count(), 1, "{again:?}");
    // The centre's numbering of its own has no holes, and no change of the site is in it.
    harness::oracle::check_numbers(&centre.changes_of("centre"));
}

/// Acknowledges the alarm on `resource` at `place`, as it is seen there: what is answered.
fn acknowledge(place: &Place, resource: &str) -> harness::Reply {
    let alarm = place.alarm(resource).expect("is listed");
    let seen = json!({ "id": alarm["id"], "raise_seq": alarm["raise_seq"] });
    place.act("POST", "/actions", &json!({ "action": "acknowledge", "alarms": [seen], "note": "seen" }))
}

#[test]
fn an_acknowledgement_at_the_centre_reaches_the_owner_or_is_refused_if_it_was_raised_again() {
    let (dir, hook) = (scratch("ack-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major"), ("fan=b", "major"), ("fan=c", "major")]);
    wait_same(&centre, &alpha);
    let reply = acknowledge(&centre, "fan=a");
    assert_eq!(reply.status, 200, "{}", reply.body);
    // Today it is answered when the order is on its way, and should be when its owner has done it.
    wait_until("its owner has done it", || centre.site("alpha").is_some_and(|site| site["pending"] == 0));
    let mark = alpha.alarm("fan=a").expect("is listed")["acknowledged"].clone();
    assert!(!mark.is_null(), "the owner knows");
    assert_eq!(centre.alarm("fan=a").expect("is listed")["acknowledged"], mark);

    alpha.wan.set(Weather::Cut);
    wait_until("it is away", || !centre.site_is("alpha", "connected"));
    for resource in ["fan=b", "fan=c"] {
        let reply = acknowledge(&centre, resource);
        // Today 200; it should be 202, as nobody knows yet what becomes of it.
        assert!([200, 202].contains(&reply.status), "{}", reply.body);
    }
    assert_eq!(centre.site("alpha").expect("is there")["pending"], 2);
    assert!(centre.alarm("fan=b").expect("is listed")["acknowledged"].is_null(), "its owner has not done it");
    let pending = centre.history().into_iter().filter(|change| change["kind"] == "pending").count();
    assert!(pending >= 2, "{pending}");
    // Meanwhile one is raised again.
    alpha.report(&[("fan=c", "cleared"), ("fan=c", "major")]);
    // A centre that is killed forgets nothing of it.
    let mut centre = centre;
    centre.kill();
    centre.start_again();
    assert_eq!(centre.site("alpha").expect("is there")["pending"], 2);
    alpha.lead_to(&centre);
    alpha.wan.set(Weather::Fair);
    wait_until("nothing is pending", || centre.site("alpha").is_some_and(|site| site["pending"] == 0));
    wait_same(&centre, &alpha);
    assert!(!centre.alarm("fan=b").expect("is listed")["acknowledged"].is_null());
    assert!(centre.alarm("fan=c").expect("is listed")["acknowledged"].is_null(), "what was seen was another episode");
    let refused: Vec<_> = centre.changes_of("alpha").into_iter().filter(|change| change["kind"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert_eq!(refused[0]["refusal"]["reason"], "raised-again");
    assert_eq!(refused[0]["refusal"]["alarm"], centre.id_of("fan=c"));
    wait_whole_history(&centre, &alpha);
}

#[test]
fn a_silent_site_is_one_alarm_and_a_stale_list_until_it_is_heard_from() {
    let (dir, hook) = (scratch("silent-"), Hook::start());
    let mut centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    let beta = Below::join(dir.path(), &centre, "beta", "site", "");
    for site in [&alpha, &beta] {
        site.report(&[("fan=a", "major"), ("fan=b", "minor")]);
        wait_same(&centre, site);
    }
    hook.wait_told(4);
    // Nobody is told that the line is dead: no packet comes through.
    alpha.wan.set(Weather::Silent);
    let silences = |node: &Place| {
        let alarms = node.alarms().into_iter().filter(|alarm| alarm["alarm_type"] == "klaxon.site.silent");
        alarms.map(|alarm| (alarm["resource"].clone(), alarm["cleared"] == true)).collect::<Vec<_>>()
    };
    centre.wait_site("alpha", "silent");
    wait_until("it is an alarm", || silences(&centre) == [(json!("site=alpha"), false)]);
    let stale = |node: &Place, owner: &str| {
        let alarms = node.alarms().into_iter().filter(|alarm| alarm["owner"] == owner);
        alarms.map(|alarm| !alarm["stale"].is_null()).collect::<Vec<_>>()
    };
    assert_eq!(stale(&centre, "alpha"), [true, true]);
    assert_eq!(stale(&centre, "beta"), [false, false]);
    let past = centre.changes_of("alpha");
    assert!(!past.is_empty() && past.iter().all(|change| change["alarm"]["stale"].is_null()), "it was not when that happened");
    assert_eq!(centre.site("alpha").expect("is there")["state"], "silent");
    alpha.report(&[("fan=b", "cleared"), ("fan=c", "major")]);
    // A restart is no news of it.
    centre.kill();
    centre.start_again();
    assert!(centre.site_is("alpha", "silent"));
    assert_eq!(stale(&centre, "alpha"), [true, true]);
    beta.lead_to(&centre);
    alpha.lead_to(&centre);
    centre.wait_site("beta", "connected");
    alpha.wan.set(Weather::Cut);
    alpha.wan.set(Weather::Fair);
    centre.wait_site("alpha", "connected");
    wait_same(&centre, &alpha);
    wait_until("it is over", || silences(&centre).iter().all(|(_, is_over)| *is_over));
    assert!(stale(&centre, "alpha").iter().all(|stale| !stale));
    wait_until("that it is over is told", || told_of(&hook, "site=alpha").len() >= 2);
    assert_eq!(told_of(&hook, "site=alpha"), [("raised".to_owned(), 1), ("cleared".to_owned(), 1)]);
    assert_eq!(told_of(&hook, "fan=c"), [("raised".to_owned(), 1)]);
    // Each site has the two it had; that they were stale told nobody anything.
    assert_eq!(told_of(&hook, "fan=a").len(), 2);
    let steps = centre.child_steps("alpha");
    assert_eq!(steps.iter().filter(|step| **step == "silent").count(), 1, "{steps:?}");
}

#[test]
fn a_second_node_of_the_same_name_is_refused_and_told_of_once() {
    let (dir, hook) = (scratch("doubled-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major")]);
    wait_same(&centre, &alpha);
    // Somebody copied its disk, with all that proves it, and started that as well: another store, as a restore makes it.
    let backup = dir.path().join("backup");
    run_store(&["backup", &backup.to_string_lossy()], &alpha.setup.data);
    let copy = dir.path().join("copy");
    run_store(&["restore", &backup.to_string_lossy()], &copy);
    std::fs::copy(alpha.data.join("uplink.json"), copy.join("uplink.json")).expect("can be copied");
    let none = token_file(dir.path(), "none", "none");
    let setup = harness::Setup::new(&copy).config(&uplink(&alpha.wan, "site", &none));
    let double = Place::start_as("double", "alpha", setup);
    wait_until("it is refused", || {
        double.json("/uplink/state")["last_error"].as_str().is_some_and(|error| error.contains("connected"))
    });
    double.report(&[("fan=false", "major")]);
    let doubled =
        || centre.alarms().into_iter().filter(|alarm| alarm["alarm_type"] == "klaxon.site.doubled").collect::<Vec<_>>();
    wait_until("it is an alarm", || doubled().len() == 1);
    assert!(centre.site_is("alpha", "connected"));
    // The first goes on, undisturbed.
    alpha.report(&[("fan=b", "major")]);
    wait_same(&centre, &alpha);
    assert!(centre.alarm("fan=false").is_none());
    wait_until("it tried again", || alpha.wan.connections() > 4);
    assert_eq!(doubled().len(), 1);
    assert_eq!(told_of(&hook, doubled()[0]["resource"].as_str().expect("is text")), [("raised".to_owned(), 1)]);
}

/// `klaxon store` on a folder.
fn run_store(args: &[&str], data: &std::path::Path) {
    let mut command: Command = klaxon();
    let done = command.arg("store").args(args).arg("--data").arg(data).output().expect("runs");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_an_agent_sees_comes_up_through_site_and_region_to_the_centre() {
    let (dir, hook) = (scratch("chain-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let north = Below::join(dir.path(), &centre, "north", "region", world::QUICK);
    let alpha = Below::join(dir.path(), &north, "alpha", "site", world::QUICK);
    let host = Below::join(dir.path(), &alpha, "web-1", "agent", "");
    host.report(&[("host=web-1.disk=0", "major")]);
    let at = |place: &Place| place.alarm("host=web-1.disk=0");
    wait_until("it is at the centre", || at(&centre).is_some());
    let (own, mirrored) = (at(&alpha).expect("is listed"), at(&centre).expect("is listed"));
    assert!(own["owner"].is_null() && own["via"] == "web-1", "{own}");
    assert_eq!((&mirrored["owner"], &mirrored["via"]), (&json!("alpha"), &json!("north")));
    assert_eq!(at(&north).expect("is listed")["via"], "alpha");
    assert_eq!(mirrored["id"], own["id"]);
    // The agent's own list works by itself; who owns the alarm is the site.
    assert_eq!(at(&host).expect("is listed")["severity"], "major");

    // An order goes all the way down to its owner.
    let reply = acknowledge(&centre, "host=web-1.disk=0");
    assert!([200, 202].contains(&reply.status), "{}", reply.body);
    wait_until("its owner has seen it", || !at(&alpha).expect("is listed")["acknowledged"].is_null());
    wait_until("that comes up", || !at(&centre).expect("is listed")["acknowledged"].is_null());

    // Each line of it breaks, things happen, it heals from the top.
    for below in [&host, &alpha, &north] {
        below.wan.set(Weather::Cut);
    }
    host.report(&[("host=web-1.disk=0", "cleared"), ("host=web-1.disk=1", "critical")]);
    alpha.report(&[("fan=a", "minor")]);
    north.report(&[("fan=n", "warning")]);
    for below in [&north, &alpha, &host] {
        below.wan.set(Weather::Fair);
    }
    wait_until("all is at the centre", || {
        let there: Vec<_> =
            ["host=web-1.disk=1", "fan=a", "fan=n"].iter().filter_map(|resource| centre.alarm(resource)).collect();
        there.len() == 3 && at(&centre).is_none_or(|alarm| alarm["cleared"] == true)
    });
    wait_same(&north, &alpha);
    wait_same(&centre, &north);
    wait_until("of the site, too", || standing(&centre, "alpha") == standing(&alpha, "alpha"));
    wait_whole_history(&centre, &alpha);
    wait_whole_history(&centre, &north);
    assert_eq!(told_of(&hook, "host=web-1.disk=1").len(), 1);

    // The site falls silent for the region: at the centre its rows are stale, those of the region are not.
    alpha.wan.set(Weather::Silent);
    let is_stale = |resource: &str| centre.alarm(resource).is_some_and(|alarm| !alarm["stale"].is_null());
    wait_until("its rows are stale at the centre", || is_stale("fan=a"));
    assert!(!is_stale("fan=n"));
    alpha.wan.set(Weather::Cut);
    alpha.wan.set(Weather::Fair);
    wait_until("they are no more", || !is_stale("fan=a"));
}

#[test]
fn a_site_goes_to_another_centre_and_the_old_one_knows_where() {
    let (dir, hook) = (scratch("rehome-"), Hook::start());
    let old = centre(dir.path(), &hook, "");
    let other_hook = Hook::start();
    let folder = dir.path().join("other");
    std::fs::create_dir(&folder).expect("can be made");
    let new = centre(&folder, &other_hook, "");
    let alpha = Below::join(dir.path(), &old, "alpha", "site", "");
    alpha.report(&[("fan=a", "major"), ("fan=past", "major"), ("fan=past", "cleared")]);
    wait_same(&old, &alpha);
    let token = new.enrol("alpha", "site");
    alpha.cli_ok(&["site", "rehome", &new.base, "--token", &token]);
    new.wait_site("alpha", "connected");
    old.wait_site("alpha", "moved");
    let to = old.site("alpha").expect("is there")["moved"]["to"].as_str().expect("is text").to_owned();
    assert!(new.base.ends_with(to.trim_start_matches("http://").trim_end_matches('/')), "{to} {}", new.base);
    wait_same(&new, &alpha);
    wait_whole_history(&new, &alpha);
    // What the old one has stays, stale; it will not be an alarm that nothing is heard.
    let left = old.alarm("fan=a").expect("is listed");
    assert!(!left["stale"].is_null(), "{left}");
    let begun = Instant::now();
    wait_until("silence would have been told", || begun.elapsed() > Duration::from_secs(5));
    assert!(old.alarms().iter().all(|alarm| alarm["alarm_type"] != "klaxon.site.silent"));
    other_hook.wait_told(1);
    assert_eq!((told_of(&other_hook, "fan=a").len(), told_of(&other_hook, "fan=past").len()), (1, 0));
}

#[test]
fn a_centre_that_is_somewhere_else_is_gone_on_with_and_a_stranger_is_not() {
    let (dir, hook) = (scratch("address-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let stranger = Place::start(dir.path(), "stranger", world::QUICK);
    let mut alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major")]);
    wait_same(&centre, &alpha);
    hook.wait_told(1);
    let first = format!("http://{}", alpha.wan.address());
    let is_at = |alpha: &Below, url: &str| {
        let shown = alpha.json("/uplink/state");
        shown["state"] == "connected" && shown["url"].as_str().is_some_and(|shown| shown.trim_end_matches('/') == url)
    };
    let epoch = centre.site("alpha").expect("is there")["reached"]["epoch"].clone();
    // Whoever did not give the credential does not take it.
    let refused = alpha.cli(&["site", "rehome", &stranger.base]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("stays above") && said.contains("a token is needed"), "{said}");
    wait_until("it is where it was", || is_at(&alpha, &first));
    let again = alpha.cli(&["site", "rehome", &first]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"));
    // The old address is no more.
    alpha.wan.set(Weather::Cut);
    alpha.report(&[("fan=b", "minor"), ("fan=a", "critical")]);
    alpha.cli_ok(&["site", "rehome", &centre.base]);
    wait_until("it is at the new address", || is_at(&alpha, &centre.base));
    wait_same(&centre, &alpha);
    // That is kept, whatever the settings still say.
    alpha.place.kill();
    alpha.place.start_again();
    wait_until("it is at the new address", || is_at(&alpha, &centre.base));
    // Both addresses lead there, and the connection lives.
    alpha.wan.set(Weather::Fair);
    alpha.cli_ok(&["site", "rehome", &first]);
    alpha.report(&[("fan=c", "minor")]);
    wait_until("it is back", || is_at(&alpha, &first));
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
    let site = centre.wait_site("alpha", "connected");
    assert!(site["reached"]["epoch"] == epoch && site["moved"].is_null(), "{site}");
    let steps = centre.child_steps("alpha");
    let wrong = |step: &serde_json::Value| ["new-epoch", "moved", "doubled"].iter().any(|what| step.to_string().contains(what));
    assert!(!steps.iter().any(wrong), "{steps:?}");
    assert!(stranger.site("alpha").is_none());
    wait_until("what is new is told", || !told_of(&hook, "fan=c").is_empty());
    let told = told_of(&hook, "fan=a");
    assert_eq!(told.iter().filter(|(how, _)| how == "raised").count(), 1, "{told:?}");
}

#[test]
fn a_retired_site_is_forgotten_and_not_let_in_any_more() {
    let (dir, hook) = (scratch("retire-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    let beta = Below::join(dir.path(), &centre, "beta", "site", "");
    alpha.report(&[("fan=a", "major"), ("fan=b", "minor")]);
    beta.report(&[("fan=c", "major")]);
    wait_same(&centre, &alpha);
    wait_same(&centre, &beta);
    hook.wait_told(3);
    centre.cli_ok(&["site", "retire", "alpha"]);
    wait_until("its alarms are forgotten", || standing(&centre, "alpha").is_empty());
    assert!(centre.site("alpha").is_none());
    wait_until("that is told", || told_of(&hook, "fan=a").len() == 2 && told_of(&hook, "fan=b").len() == 2);
    assert_eq!(told_of(&hook, "fan=a")[1].0, "retired");
    wait_until("it is denied", || {
        alpha.json("/uplink/state")["last_error"].as_str().is_some_and(|error| error.contains("does not let this node in"))
    });
    // It goes on by itself, and nothing of it comes up.
    alpha.report(&[("fan=d", "major")]);
    beta.report(&[("fan=e", "major")]);
    wait_same(&centre, &beta);
    assert!(centre.alarm("fan=d").is_none() && alpha.alarm("fan=d").is_some());
    assert!(centre.alarms().iter().all(|alarm| alarm["alarm_type"] != "klaxon.site.silent"));
}

#[test]
fn a_site_that_was_restored_begins_a_new_epoch_and_both_agree_again() {
    let (dir, hook) = (scratch("restored-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let mut alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major"), ("fan=b", "minor")]);
    let backup = dir.path().join("backup");
    run_store(&["backup", &backup.to_string_lossy()], &alpha.setup.data);
    // What the restored site will not know.
    alpha.report(&[("fan=b", "cleared"), ("fan=lost", "critical"), ("fan=a", "critical")]);
    wait_same(&centre, &alpha);
    hook.wait_told(5);
    let epoch = centre.site("alpha").expect("is there")["reached"]["epoch"].clone();
    let before = numbered(&centre.changes_of("alpha"));
    alpha.place.kill();
    let credential = std::fs::read(alpha.setup.data.join("uplink.json")).expect("is there");
    std::fs::rename(&alpha.setup.data, dir.path().join("broken")).expect("can be moved");
    run_store(&["restore", &backup.to_string_lossy()], &alpha.setup.data);
    if !alpha.setup.data.join("uplink.json").exists() {
        std::fs::write(alpha.setup.data.join("uplink.json"), credential).expect("can be written");
    }
    alpha.place.start_again();
    alpha.report(&[("fan=new", "major")]);
    wait_same(&centre, &alpha);
    // Which numbering it is in is said behind what stands.
    wait_until("it is aligned", || {
        centre.site("alpha").expect("is there")["reached"]["epoch"].as_u64() > epoch.as_u64()
            && centre.child_steps("alpha").contains(&json!("new-epoch"))
    });
    assert_eq!(centre.alarm("fan=a").expect("is listed")["severity"], "major");
    assert_eq!(centre.alarm("fan=b").expect("is listed")["cleared"], false);
    // History is a fact: what was told of before the restore stays, and what is behind it comes.
    let after = numbered(&centre.changes_of("alpha"));
    assert!(before.iter().all(|(number, said)| after.get(number) == Some(said)));
    wait_until("what is new is told", || !told_of(&hook, "fan=new").is_empty());
    let lost = told_of(&hook, "fan=lost");
    assert_eq!(lost.last().map(|(how, _)| how.as_str()), Some("cleared"), "{lost:?}");
}

#[test]
fn a_centre_that_was_restored_is_brought_to_what_the_sites_say() {
    let (dir, hook) = (scratch("restored-"), Hook::start());
    let mut centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major"), ("fan=b", "minor"), ("fan=c", "minor")]);
    wait_same(&centre, &alpha);
    let backup = dir.path().join("backup");
    run_store(&["backup", &backup.to_string_lossy()], &centre.setup.data);
    alpha.report(&[("fan=b", "cleared"), ("fan=c", "cleared"), ("fan=c", "critical"), ("fan=d", "critical")]);
    wait_same(&centre, &alpha);
    centre.kill();
    std::fs::rename(&centre.setup.data, dir.path().join("broken")).expect("can be moved");
    run_store(&["restore", &backup.to_string_lossy()], &centre.setup.data);
    centre.start_again();
    alpha.lead_to(&centre);
    centre.wait_site("alpha", "connected");
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
    alpha.report(&[("fan=e", "major")]);
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
}

#[test]
fn a_duplex_site_goes_on_at_its_standby_in_the_same_numbering() {
    let (dir, hook) = (scratch("duplex-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let mut alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.report(&[("fan=a", "major")]);
    wait_same(&centre, &alpha);
    let epoch = centre.site("alpha").expect("is there")["reached"]["epoch"].clone();
    for round in 0..3 {
        let resource = format!("fan=round-{round}");
        alpha.report(&[(&resource, "major")]);
        alpha.place.kill();
        // The volume is mounted at the other host.
        let there = dir.path().join(format!("host-{round}"));
        std::fs::create_dir(&there).expect("can be made");
        std::fs::rename(&alpha.setup.data, there.join("alpha")).expect("can be moved");
        let setup = harness::Setup { data: there.join("alpha"), ..alpha.setup.clone() };
        alpha.place.setup = setup;
        alpha.place.start_again();
        wait_same(&centre, &alpha);
        wait_whole_history(&centre, &alpha);
        assert_eq!(centre.site("alpha").expect("is there")["reached"]["epoch"], epoch, "no new numbering");
        wait_until("it is told", || !told_of(&hook, &resource).is_empty());
        assert_eq!(told_of(&hook, &resource).len(), 1);
    }
    assert_eq!(told_of(&hook, "fan=a").len(), 1);
    harness::oracle::check_numbers(&alpha.history());
}

#[test]
fn a_line_that_breaks_in_the_middle_of_messages_brings_everything_once() {
    let (dir, hook) = (scratch("torn-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    alpha.wan.set(Weather::Cut);
    for batch in 0..30 {
        let reports: Vec<_> = (0..100).map(|number| format!("fan={}", (batch * 37 + number) % 400)).collect();
        let severity = ["minor", "cleared", "major", "critical", "cleared"][batch % 5];
        alpha.report(&reports.iter().map(|resource| (resource.as_str(), severity)).collect::<Vec<_>>());
    }
    let missed = alpha.history().len() as u64;
    alpha.wan.delay(Duration::from_millis(1));
    alpha.wan.set(Weather::Fair);
    // Each time a little further.
    let mut bytes = 700;
    let mut cuts = 0;
    while centre
        .site("alpha")
        .is_some_and(|site| site["missing"] != 0 || site["reached"].is_null() || site["state"] != "connected")
        || cuts < 8
    {
        alpha.wan.cut_after(bytes);
        bytes += 900;
        cuts += 1;
        let connections = alpha.wan.connections();
        let begun = Instant::now();
        let is_over = || alpha.wan.connections() > connections || begun.elapsed() > Duration::from_secs(2);
        wait_until("it broke and came again, or is done", is_over);
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    alpha.wan.no_cut();
    let torn = alpha.wan.torn();
    println!("{torn} cuts in the middle of a piece, {} connections", alpha.wan.connections());
    assert!(torn >= 5, "{torn}");
    wait_same(&centre, &alpha);
    wait_whole_history(&centre, &alpha);
    let digest: u64 = centre.digests("alpha").iter().filter_map(|digest| digest["changes"].as_u64()).sum();
    assert!(digest >= missed, "{digest} of {missed}");
    assert!(told_of(&hook, "fan=1").len() <= 1);
}

#[test]
fn a_connection_that_is_dead_does_not_lock_its_own_node_out() {
    let (dir, hook) = (scratch("half-"), Hook::start());
    let centre = centre(dir.path(), &hook, "");
    let mut alpha = Below::join(dir.path(), &centre, "alpha", "site", "");
    // Nothing ends the first connection for the centre; the node comes by another way.
    alpha.wan.set(Weather::Silent);
    alpha.place.kill();
    let other = wan::Wan::to(centre.address());
    let old = std::mem::replace(&mut alpha.wan, other);
    let config = alpha.setup.config.replace(&old.address().to_string(), &alpha.wan.address().to_string());
    alpha.place.setup.config = config;
    // Its credential is for the node at that address: its join token is good for nothing any more.
    let kept = alpha.setup.data.join("uplink.json");
    let json = std::fs::read_to_string(&kept).expect("is there");
    assert!(json.contains(&old.address().to_string()), "{json}");
    std::fs::write(&kept, json.replace(&old.address().to_string(), &alpha.wan.address().to_string())).expect("can be written");
    alpha.place.start_again();
    alpha.report(&[("fan=a", "major")]);
    let begun = Instant::now();
    wait_until("it is let in", || centre.alarm("fan=a").is_some());
    println!("let in after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(centre.alarms().iter().all(|alarm| alarm["alarm_type"] != "klaxon.site.doubled"), "it is the same node");
    wait_same(&centre, &alpha);
}

/// How many schedules run at once.
const SCHEDULES_AT_ONCE: usize = 8;
/// How many of those with nodes that are processes.
const LIVES_AT_ONCE: usize = 4;

/// The next of a sequence of numbers without a pattern (SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Disks and clocks of single nodes need the shim, loaded before anything runs: whether `test` was run in a process of its own, with
/// that.
fn was_run_with_shim(test: &str) -> bool {
    if std::env::var_os(mishaps::NODES).is_some() {
        return false;
    }
    let nodes = scratch("nodes-");
    let mut again = Command::new(std::env::current_exe().expect("is a program"));
    again.args(["--exact", "--nocapture", test]);
    let done = again.env("LD_PRELOAD", harness::shim()).env(mishaps::NODES, nodes.path()).status().expect("runs");
    assert!(done.success(), "{done}");
    true
}

#[test]
fn what_a_site_that_is_restored_twice_did_in_between_is_known_in_the_end() {
    if !was_run_with_shim("what_a_site_that_is_restored_twice_did_in_between_is_known_in_the_end") {
        println!("{:?}", again::restored_twice());
    }
}

#[test]
fn in_the_end_the_centre_knows_what_happened_once_whatever_happened() {
    if was_run_with_shim("in_the_end_the_centre_knows_what_happened_once_whatever_happened") {
        return;
    }
    let count = std::env::var("KLAXON_COUNT")
        .map_or(if harness::is_long() { 1000 } else { 20 }, |count| count.parse().expect("is a number"));
    let seeds = match std::env::var("KLAXON_SEED") {
        Ok(seed) => vec![seed.parse().expect("KLAXON_SEED is a number")],
        Err(_) => (0..count).collect::<Vec<u64>>(),
    };
    let (all, next) = (std::sync::Mutex::new(hits::Hits::default()), std::sync::atomic::AtomicUsize::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // Most of the time a schedule waits.
        for _ in 0..SCHEDULES_AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    match std::panic::catch_unwind(|| schedules::run(*seed)) {
                        Ok(hits) => *all.lock().expect("nobody panics with it") += hits,
                        Err(_) => {
                            println!("KLAXON_SEED={seed}");
                            failed.lock().expect("nobody panics with it").push(*seed);
                        }
                    }
                }
            });
        }
    });
    let all = all.into_inner().expect("nobody panicked");
    println!("{} schedules in {:?}: {all:?}", seeds.len(), begun.elapsed());
    let failed = failed.into_inner().expect("nobody panicked");
    assert!(failed.is_empty(), "of {} schedules {} failed: {failed:?}", seeds.len(), failed.len());
    if seeds.len() >= 20 {
        let hits::Hits { torn, doubled, lost, crashes, restores, centre_restores, .. } = all;
        assert!([torn, doubled, lost, crashes, restores, centre_restores].iter().all(|count| *count > 0), "{all:?}");
        let hits::Hits { new_epochs, caught_up, past_changes, past_episodes, lost_records, realigned, .. } = all;
        let led_to = [new_epochs, caught_up, past_changes, past_episodes, lost_records, realigned];
        assert!(led_to.iter().all(|count| *count > 0), "{all:?}");
        let hits::Hits { full_sites, full_centres, refused, after_restore, past_restored, .. } = all;
        let hits::Hits { clock_forward, clock_back, centre_forward, centre_back, centre_clock, .. } = all;
        let befell = [full_sites, full_centres, refused, after_restore, past_restored];
        let clocks = [clock_forward, clock_back, centre_forward, centre_back, centre_clock];
        assert!(befell.iter().chain(&clocks).all(|count| *count > 0), "{all:?}");
    }
}

#[test]
fn nodes_that_are_killed_cut_off_full_and_set_wrong_agree_in_the_end() {
    let (all, next) = (std::sync::Mutex::new(lives::Hits::default()), std::sync::atomic::AtomicUsize::new(0));
    let begun = Instant::now();
    let seeds = harness::seeds(4, 48);
    std::thread::scope(|scope| {
        for _ in 0..LIVES_AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    println!("seed {seed}");
                    let hits = lives::run(*seed);
                    all.lock().expect("nobody panics with it").add(&hits);
                }
            });
        }
    });
    let all = all.into_inner().expect("nobody panicked");
    println!("{} schedules in {:?}: {all:?}", seeds.len(), begun.elapsed());
    let lives::Hits { reports, kills, cuts, torn, full, clocks, past, told } = all;
    let hit = [reports, kills, cuts, torn as u64, full, clocks, past, told];
    assert!(seeds.len() < 4 || hit.iter().all(|count| *count > 0), "{all:?}");
}
