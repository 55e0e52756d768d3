//! The engine's behaviour, told as timelines.

mod harness;

use harness::check;

#[test]
fn a_fault_is_raised_counted_and_cleared_and_raised_again_under_the_same_id() {
    check(
        "0s raise host=a disk.full major
         => raised host=a disk.full major
         10s raise host=a disk.full major
         ~ host=a disk.full x2
         20s raise host=a disk.full critical
         => severity-changed host=a disk.full critical from major
         30s raise host=a disk.full critical text:worse
         => updated host=a disk.full critical
         40s clear host=a disk.full
         => cleared host=a disk.full critical
         50s clear host=a disk.full
         ~ host=a disk.full x4
         alarms
         - host=a disk.full critical x4 episode 1 cleared
         60s raise host=a disk.full minor
         => raised host=a disk.full minor
         alarms
         - host=a disk.full minor x1 episode 2",
    );
}

#[test]
fn neighbours_with_like_names_are_not_touched() {
    check(
        "0s raise host=compute-1 cpu.high major
         => raised host=compute-1 cpu.high major
         0s raise host=compute-10 cpu.high major
         => raised host=compute-10 cpu.high major
         0s raise host=compute-1 cpu.high major qualifier:core0
         => raised host=compute-1 cpu.high/core0 major
         1s clear host=compute-1 cpu.high
         => cleared host=compute-1 cpu.high major
         alarms
         - host=compute-1 cpu.high major x1 episode 1 cleared
         - host=compute-1 cpu.high/core0 major x1 episode 1
         - host=compute-10 cpu.high major x1 episode 1",
    );
}

#[test]
fn an_alias_is_the_same_type() {
    check(
        "0s raise host=a 100.104 major
         => raised host=a disk.full major
         1s raise host=a disk.full major
         ~ host=a disk.full x2
         2s clear host=a 100.104
         => cleared host=a disk.full major",
    );
}

#[test]
fn a_rise_in_severity_and_a_new_episode_reset_the_acknowledgement_and_a_fall_keeps_it() {
    check(
        "0s raise host=a disk.full major
         => raised host=a disk.full major
         1s ack host=a disk.full by:ann
         => acknowledged host=a disk.full major by ann
         2s raise host=a disk.full minor
         => severity-changed host=a disk.full minor from major
         alarms
         - host=a disk.full minor x2 episode 1 acknowledged
         3s raise host=a disk.full critical
         => severity-changed host=a disk.full critical from minor
         alarms
         - host=a disk.full critical x3 episode 1
         4s ack host=a disk.full by:ann
         => acknowledged host=a disk.full critical by ann
         5s ack host=a disk.full by:bob
         => refused NoEffect by bob
         6s clear host=a disk.full
         => cleared host=a disk.full critical
         7s raise host=a disk.full minor
         => raised host=a disk.full minor
         alarms
         - host=a disk.full minor x1 episode 2",
    );
}

#[test]
fn what_is_cleared_is_purged_after_a_time_and_above_a_number() {
    check(
        "0s settings purge:60s cleared:2
         0s raise host=a x major
         => raised host=a x major
         0s raise host=b x major
         => raised host=b x major
         0s raise host=c x major
         => raised host=c x major
         1s clear host=a x
         => cleared host=a x major
         2s clear host=b x
         => cleared host=b x major
         3s clear host=c x
         => cleared host=c x major
         3s deadline
         => purged host=a x major [Purge]
         62s deadline
         => purged host=b x major [Purge]
         62s pass
         alarms
         - host=c x major x1 episode 1 cleared
         63s deadline
         => purged host=c x major [Purge]
         64s raise host=a x major
         => raised host=a x major
         alarms
         - host=a x major x1 episode 1",
    );
}

#[test]
fn a_silent_reporter_makes_its_alarm_stale_and_never_clears_it() {
    check(
        "0s raise host=a x major lease:60s
         => raised host=a x major
         30s raise host=a x major lease:60s
         ~ host=a x x2
         90s deadline
         => staled host=a x major [Lease]
         100s raise host=a x major lease:60s
         => refreshed host=a x major
         # The reporter could not renew while the node was away: the lease runs from the start.
         159s restart
         218s pass
         219s deadline
         => staled host=a x major [Lease]
         1000s clear host=a x
         => cleared host=a x major
         alarms
         - host=a x major x3 episode 1 cleared
         # Also when it ran out while the node was away.
         1100s raise host=a x major lease:60s
         => raised host=a x major
         1100s away 600s
         1700s restart
         1750s raise host=a x major lease:60s
         ~ host=a x x2
         1809s pass
         1810s deadline
         => staled host=a x major [Lease]
         1811s pass",
    );
}

#[test]
fn a_declared_end_and_a_lifetime_clear_with_that_reason_also_across_a_restart() {
    check(
        "0s raise host=a x major ends:60s
         => raised host=a x major
         0s raise host=a intrusion major
         => raised host=a intrusion major
         20s raise host=a intrusion major
         ~ host=a intrusion x2
         30s restart
         60s deadline
         => cleared host=a x major [EndsAt]
         80s deadline
         => cleared host=a intrusion major [Lifetime]
         90s pass",
    );
}

#[test]
fn what_nobody_can_clear_is_a_log_event() {
    check(
        "0s raise host=a boot warning
         => logged host=a boot
         1s log host=a disk.full
         => logged host=a disk.full
         2s clear host=a boot
         => late host=a boot NeverClears
         3s raise host=a boot warning ends:10s
         => raised host=a boot warning
         13s deadline
         => cleared host=a boot warning [EndsAt]
         alarms
         - host=a boot warning x1 episode 1 cleared",
    );
}

#[test]
fn numbered_reports_take_effect_once_and_in_their_order() {
    check(
        "0s raise host=a x major seq:1.1
         => raised host=a x major
         1s raise host=a x major seq:1.1
         ! Duplicate
         # The clear overtakes a change of severity.
         2s clear host=a x seq:1.3
         => cleared host=a x major
         3s raise host=a x critical seq:1.2
         => late host=a x Overtaken
         # Another producer's reports go by arrival.
         4s raise host=a x minor producer:q seq:1.1
         => raised host=a x minor
         # The same producer after it lost its count.
         5s clear host=a x seq:2.1
         => cleared host=a x minor
         6s raise host=a x major seq:1.4
         => late host=a x TooOld
         ! TooOld",
    );
}

#[test]
fn a_clear_that_overtakes_its_raise_leaves_a_tombstone() {
    check(
        "0s clear host=a x seq:1.2
         => late host=a x NothingToClear
         1s raise host=a x major seq:1.1
         => late host=a x Overtaken
         2s raise host=a x major seq:1.3
         => raised host=a x major
         # What is forgotten leaves one too.
         3s retire host=a x by:ann
         => retired host=a x major by ann
         alarms
         4s raise host=a x major seq:1.5
         => raised host=a x major
         5s retire host=a x by:ann
         => retired host=a x major by ann
         6s raise host=a x major seq:1.4
         => late host=a x Overtaken
         7200s clear host=b y
         => late host=b y NothingToClear
         7201s raise host=b y major
         => raised host=b y major",
    );
}

#[test]
fn an_event_id_is_recognised_within_its_producer() {
    check(
        "0s raise host=a x major id:1
         => raised host=a x major
         1s clear host=a x id:1
         ! Duplicate
         2s clear host=a x id:1 producer:q
         => cleared host=a x major
         # A day later it is forgotten.
         86402s deadline
         => purged host=a x major [Purge]
         90000s raise host=a x major id:1
         => raised host=a x major",
    );
}

#[test]
fn event_time_decides_only_where_the_producer_opts_in() {
    check(
        "0s raise host=a x major time:100s
         => raised host=a x major
         1s clear host=a x time:50s
         => late host=a x Overtaken
         2s clear host=a x time:101s
         => cleared host=a x major
         # A clear that overtakes its raise leaves a tombstone here too.
         3s clear host=b x time:90s
         => late host=b x NothingToClear
         4s raise host=b x major time:80s
         => late host=b x Overtaken
         5s raise host=b x major time:95s
         => raised host=b x major",
    );
}

#[test]
fn a_shelved_alarm_stays_so_from_episode_to_episode_until_its_time() {
    check(
        "0s raise host=a x major
         => raised host=a x major
         1s shelve host=a x until:60s by:ann
         => shelved host=a x major by ann
         2s clear host=a x
         => cleared host=a x major
         3s raise host=a x major
         => raised host=a x major
         alarms
         - host=a x major x1 episode 2 shelved
         30s restart
         61s deadline
         => unshelved host=a x major [Shelved]
         62s shelve host=a x until:-1s by:ann
         => refused UntilIsPast by ann
         63s unshelve host=a x by:ann
         => refused NoEffect by ann",
    );
}

#[test]
fn a_shelf_takes_what_is_there_and_what_is_raised_later_but_no_neighbour() {
    check(
        "0s raise host=a.port=1 x major
         => raised host=a.port=1 x major
         0s raise host=ab x major
         => raised host=ab x major
         1s shelf match:host=a until:60s by:ann id:s
         => shelf-added Filling by ann
         => shelved host=a.port=1 x major [shelf]
         2s raise host=a y major
         => raised host=a y major [shelf]
         alarms
         - host=a y major x1 episode 1 shelved
         - host=a.port=1 x major x1 episode 1 shelved
         - host=ab x major x1 episode 1
         3s unshelve host=a y by:ann
         => unshelved host=a y major by ann
         61s deadline
         => shelf-removed Emptying [Shelved]
         => unshelved host=a.port=1 x major [shelf]
         62s raise host=a z major
         => raised host=a z major
         63s unshelf s by:ann
         => refused NoSuchShelf by ann",
    );
}

#[test]
fn a_shelf_may_pick_by_labels_and_come_before_its_alarm() {
    check(
        "0s shelf labels:team=~a|b,severity!=critical until:60s by:ann id:s
         => shelf-added Filling by ann
         1s raise host=a x warning labels:team=a,severity=warning
         => raised host=a x warning [shelf]
         1s raise host=b x warning labels:team=ab,severity=warning
         => raised host=b x warning
         1s raise host=c x critical labels:team=a,severity=critical
         => raised host=c x critical
         60s deadline
         => shelf-removed Emptying [Shelved]
         => unshelved host=a x warning [shelf]
         62s raise host=a y warning labels:team=a,severity=warning
         => raised host=a y warning
         63s unshelf s by:ann
         => refused NoSuchShelf by ann",
    );
}

#[test]
fn a_shelf_of_labels_follows_the_labels_that_an_alarm_s_fields_make() {
    check(
        "0s shelf labels:severity=minor,alertname=x,host=a until:60s by:ann id:s
         => shelf-added Filling by ann
         1s raise host=a x major
         => raised host=a x major
         2s raise host=a x minor
         => severity-changed host=a x minor from major [shelf]
         3s raise host=a x major
         => severity-changed host=a x major from minor
         4s raise host=a x minor
         => severity-changed host=a x minor from major [shelf]
         5s unshelve host=a x by:ann
         => unshelved host=a x minor by ann
         6s raise host=a x minor text:still
         => updated host=a x minor
         alarms
         - host=a x minor x5 episode 1",
    );
}

#[test]
fn a_shelf_may_begin_later_and_be_amended() {
    check(
        "0s raise host=a x major
         => raised host=a x major
         1s shelf labels:host=a starts:10s until:60s by:ann id:s
         => shelf-added Standing by ann
         2s raise host=a y major
         => raised host=a y major
         3s shelf labels:host=a starts:30s until:60s by:bob amends:s
         => shelf-added Standing by bob
         11s pass
         33s deadline
         => shelved host=a y major [shelf]
         => shelved host=a x major [shelf]
         34s shelf labels:host=a until:100s by:bob amends:s reason:longer
         => shelf-added Filling by bob
         => shelved host=a y major [shelf]
         => shelved host=a x major [shelf]
         63s pass
         70s shelf labels:host=b until:100s by:bob amends:s
         => refused NoSuchShelf by bob
         71s shelf labels:host=a starts:20s until:10s by:bob
         => refused UntilIsPast by bob
         134s deadline
         => shelf-removed Emptying [Shelved]
         => unshelved host=a y major [shelf]
         => unshelved host=a x major [shelf]",
    );
}

/// What Alertmanager makes of the same reports is asked of a real one in `tests/alertmanager_api.rs`.
#[test]
fn spans_of_reports_merge_as_alerts_do() {
    check(
        "0s raise host=a x major span:assumed ends:300s
         => raised host=a x major
         1s raise host=a x major span:merges ends:20s
         ~ host=a x x2
         2s raise host=a x major span:assumed ends:5s
         ~ host=a x x3
         7s pass
         21s deadline
         => cleared host=a x major [EndsAt]
         30s raise host=a x major span:merges ends:100s
         => raised host=a x major
         31s raise host=a x major span:merges ends:10s
         ~ host=a x x2
         42s raise host=a x major ends:10s
         ~ host=a x x3
         52s deadline
         => cleared host=a x major [EndsAt]",
    );
}

#[test]
fn a_shelf_that_still_stands_goes_on_with_what_another_lets_go() {
    check(
        "0s raise host=a x major
         => raised host=a x major
         1s shelf match:host=a until:60s by:ann id:s
         => shelf-added Filling by ann
         => shelved host=a x major [shelf]
         2s shelf type:x until:120s by:bob id:t
         => shelf-added Filling by bob
         61s deadline
         => shelf-removed Emptying [Shelved]
         => shelved host=a x major [shelf] [shelf]
         122s deadline
         => shelf-removed Emptying [Shelved]
         => unshelved host=a x major [shelf]
         123s pass",
    );
}

#[test]
fn a_suppressed_type_is_one_fact() {
    check(
        "0s raise host=a disk.full major
         => raised host=a disk.full major
         1s suppress 100.104 by:ann
         => suppressed disk.full by ann
         2s suppress disk.full by:ann
         => refused NoEffect by ann
         3s unsuppress disk.full by:ann
         => unsuppressed disk.full by ann
         4s unsuppress disk.full by:ann
         => refused NoEffect by ann",
    );
}

#[test]
fn an_action_acts_once_in_time_and_on_the_episode_that_was_seen() {
    check(
        "0s raise host=a x major
         => raised host=a x major
         1s clear host=a x
         => cleared host=a x major
         2s raise host=a x major
         => raised host=a x major
         3s ack host=a x by:ann episode:1
         => refused RaisedAgain by ann
         4s ack host=a x by:ann episode:2 id:one
         => acknowledged host=a x major by ann
         5s unack host=a x by:ann
         => unacknowledged host=a x major by ann
         6s ack host=a x by:ann episode:2 id:one
         ! Duplicate
         7s ack host=a x by:ann expires:-1s
         => refused Expired by ann
         8s ack host=b x by:ann
         => refused NoSuchAlarm by ann
         9s purge host=a x by:ann
         => refused NotCleared by ann
         10s clear host=a x by:ann
         => cleared host=a x major by ann
         11s clear host=a x by:ann
         => refused AlreadyCleared by ann
         # The next report raises again.
         12s raise host=a x major
         => raised host=a x major
         13s assign host=a x to:bob by:ann
         => assigned host=a x major by ann
         14s note host=a x looking by:bob
         => noted host=a x major by bob
         15s clear host=a x
         => cleared host=a x major
         16s purge host=a x by:ann
         => purged host=a x major by ann
         alarms",
    );
}

#[test]
fn a_clock_that_is_set_fires_nothing_and_deadlines_keep_what_remained() {
    check(
        "0s settings purge:100s
         0s raise host=a x major ends:60s
         => raised host=a x major
         0s raise host=b x major lease:50s
         => raised host=b x major
         0s shelve host=b x until:70s by:ann
         => shelved host=b x major by ann
         0s raise host=c x major
         => raised host=c x major
         0s clear host=c x
         => cleared host=c x major
         10s clock 3650d
         20s clock -7300d
         50s deadline
         => staled host=b x major [Lease]
         60s deadline
         => cleared host=a x major [EndsAt]
         70s deadline
         => unshelved host=b x major [Shelved]
         100s deadline
         => purged host=c x major [Purge]
         101s pass",
    );
}

#[test]
fn no_more_alarms_are_active_than_may_be() {
    check(
        "0s settings active:2
         0s raise host=a x major
         => raised host=a x major
         0s raise host=b x major
         => raised host=b x major
         1s raise host=c x major
         => late host=c x AlarmLimit
         ! AlarmLimit
         1s raise host=c boot warning
         => logged host=c boot
         # What is there still changes.
         2s raise host=b x critical
         => severity-changed host=b x critical from major
         3s clear host=a x
         => cleared host=a x major
         4s raise host=c x major
         => raised host=c x major",
    );
}

#[test]
fn a_promise_that_is_kept_changes_nothing_and_silence_raises() {
    check(
        "0s beat heartbeat=backup hb.lost every:60s
         => logged heartbeat=backup hb.lost
         30s beat heartbeat=backup hb.lost every:60s
         60s beat heartbeat=backup hb.lost every:60s text:nightly
         119s pass
         heartbeats
         + heartbeat=backup hb.lost every 1m major kept
         120s deadline
         => raised heartbeat=backup hb.lost major [Heartbeat]
         heartbeats
         + heartbeat=backup hb.lost every 1m major lost
         # It is told once.
         1000s pass
         alarms
         - heartbeat=backup hb.lost major x1 episode 1
         # A late heartbeat is one all the same.
         1001s beat heartbeat=backup hb.lost every:60s
         => cleared heartbeat=backup hb.lost major
         1061s deadline
         => raised heartbeat=backup hb.lost major [Heartbeat]
         alarms
         - heartbeat=backup hb.lost major x1 episode 2
         # Whose deadline passes with its own arrival is too late.
         1062s beat heartbeat=backup hb.lost every:60s
         => cleared heartbeat=backup hb.lost major
         1122s deadline
         => raised heartbeat=backup hb.lost major [Heartbeat]
         1122s beat heartbeat=backup hb.lost every:60s
         => cleared heartbeat=backup hb.lost major",
    );
}

#[test]
fn a_promise_changes_with_its_heartbeat() {
    check(
        "0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         10s beat heartbeat=a hb.lost minor every:1h
         => logged heartbeat=a hb.lost
         heartbeats
         + heartbeat=a hb.lost every 1h minor kept
         60s pass
         3610s deadline
         => raised heartbeat=a hb.lost minor [Heartbeat]
         3620s beat heartbeat=a hb.lost critical every:60s
         => cleared heartbeat=a hb.lost minor
         => logged heartbeat=a hb.lost
         3680s deadline
         => raised heartbeat=a hb.lost critical [Heartbeat]
         alarms
         - heartbeat=a hb.lost critical x1 episode 2",
    );
}

#[test]
fn a_restart_restarts_the_leases_of_promises_and_forgets_none() {
    check(
        "0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         0s beat heartbeat=b hb.lost every:300s
         => logged heartbeat=b hb.lost
         0s beat heartbeat=c hb.lost every:20s
         => logged heartbeat=c hb.lost
         20s deadline
         => raised heartbeat=c hb.lost major [Heartbeat]
         50s restart
         109s pass
         110s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         # Also when it ran out while the node was away; and what was lost before is lost still, and not told anew.
         200s away 600s
         800s restart
         heartbeats
         + heartbeat=a hb.lost every 1m major lost
         + heartbeat=b hb.lost every 5m major kept
         + heartbeat=c hb.lost every 20s major lost
         1100s deadline
         => raised heartbeat=b hb.lost major [Heartbeat]
         2000s pass",
    );
}

#[test]
fn a_clear_or_a_retire_ends_a_promise() {
    check(
        "0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         10s clear heartbeat=a hb.lost
         => logged heartbeat=a hb.lost
         heartbeats
         100s pass
         101s clear heartbeat=a hb.lost
         => late heartbeat=a hb.lost NothingToClear
         # While it is raised.
         110s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         170s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         180s clear heartbeat=a hb.lost
         => cleared heartbeat=a hb.lost major
         heartbeats
         # While it is cleared and still there.
         190s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         200s clear heartbeat=a hb.lost
         => logged heartbeat=a hb.lost
         ~ heartbeat=a hb.lost x1
         heartbeats
         # By an operator, for what will never report again.
         210s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         220s retire heartbeat=a hb.lost by:ann
         => retired heartbeat=a hb.lost major by ann
         heartbeats
         alarms
         230s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         290s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         300s retire heartbeat=a hb.lost by:ann
         => retired heartbeat=a hb.lost major by ann
         heartbeats
         alarms
         1000s pass",
    );
}

#[test]
fn what_an_operator_clears_or_purges_is_raised_only_when_a_heartbeat_is_missed_anew() {
    check(
        "0s settings purge:100s
         0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         60s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         70s clear heartbeat=a hb.lost by:ann
         => cleared heartbeat=a hb.lost major by ann
         80s restart
         170s deadline
         => purged heartbeat=a hb.lost major [Purge]
         heartbeats
         + heartbeat=a hb.lost every 1m major lost
         500s beat heartbeat=a hb.lost every:60s
         560s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]",
    );
}

#[test]
fn silence_is_shelved_and_acknowledged_as_any_alarm() {
    check(
        "0s shelf match:heartbeat=a until:1h by:ann id:s
         => shelf-added Filling by ann
         0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         0s beat heartbeat=b hb.lost every:60s
         => logged heartbeat=b hb.lost
         60s deadline
         => raised heartbeat=a hb.lost major [Heartbeat] [shelf]
         => raised heartbeat=b hb.lost major [Heartbeat]
         70s ack heartbeat=b hb.lost by:ann
         => acknowledged heartbeat=b hb.lost major by ann
         # Somebody says himself that it is worse; the next heartbeat says that it is over.
         80s raise heartbeat=b hb.lost critical
         => severity-changed heartbeat=b hb.lost critical from major
         90s beat heartbeat=b hb.lost every:60s
         => cleared heartbeat=b hb.lost critical
         100s raise heartbeat=b hb.lost minor
         => raised heartbeat=b hb.lost minor
         # It is raised already when it falls silent.
         150s deadline
         => severity-changed heartbeat=b hb.lost major from minor [Heartbeat]",
    );
}

#[test]
fn heartbeats_are_recognised_and_ordered_as_other_reports() {
    check(
        "0s beat heartbeat=a hb.lost every:60s seq:1.1
         => logged heartbeat=a hb.lost
         1s beat heartbeat=a hb.lost every:60s seq:1.1
         ! Duplicate
         2s beat heartbeat=a hb.lost every:60s id:x
         3s beat heartbeat=a hb.lost every:60s id:x
         ! Duplicate
         4s beat heartbeat=a hb.lost every:60s seq:1.3
         # A raise, a clear and a heartbeat that come late.
         5s raise heartbeat=a hb.lost major seq:1.2
         => late heartbeat=a hb.lost Overtaken
         6s clear heartbeat=a hb.lost seq:1.5
         => logged heartbeat=a hb.lost
         7s beat heartbeat=a hb.lost every:60s seq:1.4
         => late heartbeat=a hb.lost Overtaken
         8s beat heartbeat=a hb.lost every:60s seq:1.6
         => logged heartbeat=a hb.lost
         9s beat heartbeat=b hb.lost every:60s time:90s
         => logged heartbeat=b hb.lost
         10s clear heartbeat=b hb.lost time:80s
         => late heartbeat=b hb.lost Overtaken
         11s clear heartbeat=b hb.lost time:95s
         => logged heartbeat=b hb.lost
         12s beat heartbeat=b hb.lost every:60s time:92s
         => late heartbeat=b hb.lost Overtaken
         # What is retired leaves the order of its heartbeats.
         68s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         69s beat heartbeat=a hb.lost every:60s seq:1.8
         => cleared heartbeat=a hb.lost major
         70s beat heartbeat=a hb.lost every:60s seq:1.9
         71s retire heartbeat=a hb.lost by:ann
         => retired heartbeat=a hb.lost major by ann
         72s beat heartbeat=a hb.lost every:60s seq:1.7
         => late heartbeat=a hb.lost Overtaken
         heartbeats",
    );
}

#[test]
fn no_more_promises_are_kept_than_may_be_and_each_of_them_can_be_told_as_broken() {
    check(
        "0s settings heartbeats:2 active:1
         0s beat heartbeat=a hb.lost every:60s
         => logged heartbeat=a hb.lost
         0s beat heartbeat=b hb.lost every:60s
         => logged heartbeat=b hb.lost
         1s beat heartbeat=c hb.lost every:60s
         => late heartbeat=c hb.lost HeartbeatLimit
         ! HeartbeatLimit
         # Those that are there are renewed.
         2s beat heartbeat=b hb.lost every:60s
         60s deadline
         => raised heartbeat=a hb.lost major [Heartbeat]
         62s deadline
         => raised heartbeat=b hb.lost major [Heartbeat]
         63s raise host=a x major
         => late host=a x AlarmLimit
         ! AlarmLimit
         64s clear heartbeat=a hb.lost
         => cleared heartbeat=a hb.lost major
         65s beat heartbeat=c hb.lost every:60s
         => logged heartbeat=c hb.lost
         # A type that nobody else could clear.
         66s settings
         70s beat host=a boot every:60s
         => logged host=a boot
         125s deadline
         => raised heartbeat=c hb.lost major [Heartbeat]
         130s deadline
         => raised host=a boot major [Heartbeat]
         131s beat host=a boot every:60s
         => cleared host=a boot major
         132s clear host=a boot
         => logged host=a boot
         ~ host=a boot x1",
    );
}

#[test]
fn a_clock_that_is_set_breaks_no_promise() {
    check(
        "0s beat heartbeat=a 100.200 every:60s
         => logged heartbeat=a 100.200
         10s clock 3650d
         20s clock -7300d
         30s beat heartbeat=a disk.full every:60s
         => logged heartbeat=a disk.full
         60s deadline
         => raised heartbeat=a 100.200 major [Heartbeat]
         90s deadline
         => raised heartbeat=a disk.full major [Heartbeat]
         91s beat heartbeat=a 100.104 every:60s
         => cleared heartbeat=a disk.full major
         heartbeats
         + heartbeat=a 100.200 every 1m major lost
         + heartbeat=a disk.full every 1m major kept",
    );
}

#[test]
fn what_is_ordered_here_is_done_whatever_the_clock_says_and_a_new_episode_begins_without_orders() {
    check(
        "0s clock 1h
         1s raise host=a x major
         => raised host=a x major
         2s ack host=a x by:ann
         => acknowledged host=a x major by ann
         3s clock -1h
         4s unack host=a x by:ann
         => unacknowledged host=a x major by ann
         5s ack host=a x by:ann
         => acknowledged host=a x major by ann",
    );
}
