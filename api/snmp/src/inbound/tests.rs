//! Messages as senders make them, good and bad, and what is answered. What net-snmp and others make of it is tried from outside.

use async_snmp::pdu::PduType;
use async_snmp::v3::{DesSaltState, ReportStatus, classify_report};

use super::*;
use crate::user::{AuthProtocol, EngineId, PrivProtocol, Secret};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const DEVICE: &[u8] = b"\x80\x00\x1f\x88\x04device";
const TRAP: u8 = 0xa7;
const INFORM: u8 = 0xa6;
const GET: u8 = 0xa0;

fn secret(text: &str) -> Secret {
    Secret(text.to_owned())
}

/// A user at each level, by the name of it.
fn user(level: Level, password: &str) -> User {
    let (auth, privacy) = (secret(password), secret("hush-hush"));
    let auth = (level > Level::NoAuthNoPriv).then_some((AuthProtocol::Sha256, &auth));
    let privacy = (level == Level::AuthPriv).then_some((PrivProtocol::Aes256, &privacy));
    User::new(name_of(level), auth, privacy, true).expect("is right")
}

fn name_of(level: Level) -> &'static str {
    match level {
        Level::NoAuthNoPriv => "none",
        Level::AuthNoPriv => "auth",
        Level::AuthPriv => "priv",
    }
}

const LEVELS: [Level; 3] = [Level::NoAuthNoPriv, Level::AuthNoPriv, Level::AuthPriv];

struct Bench {
    inbound: Inbound,
    users: Users,
    engine: Engine,
    begun: Instant,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("can be made");
        let home = Arc::new(EngineHome::new(dir.path()));
        let engine = home.engine().expect("starts");
        let users = Users::new(LEVELS.map(|level| user(level, "password")));
        let inbound = Inbound::new(home, users.clone());
        Self { inbound, users, engine, begun: Instant::now(), _dir: dir }
    }

    fn read(&mut self, message: &[u8]) -> Result<Notification, Refused> {
        self.read_after(message, 0)
    }

    fn read_after(&mut self, message: &[u8], seconds: u64) -> Result<Notification, Refused> {
        self.read_from(HERE, message, seconds)
    }

    fn read_from(&mut self, source: IpAddr, message: &[u8], seconds: u64) -> Result<Notification, Refused> {
        let at = self.begun + Duration::from_secs(seconds);
        self.inbound.read(&Bytes::copy_from_slice(message), source, |_| true, at)
    }

    /// Who sends informs to this node and knows it.
    fn friend(&self, level: Level) -> Sender {
        let (boots, time) = self.engine.boots_and_time(Instant::now());
        Sender { boots, time, is_reportable: true, kind: INFORM, ..Sender::new(self.engine.id(), level) }
    }
}

/// Somebody who sends.
#[derive(Clone)]
struct Sender {
    engine_id: Vec<u8>,
    boots: u32,
    time: u32,
    level: Level,
    user: User,
    is_reportable: bool,
    kind: u8,
    request: u8,
    id: i32,
}

impl Sender {
    fn new(engine_id: &[u8], level: Level) -> Self {
        let engine_id = engine_id.to_vec();
        let user = user(level, "password");
        Self { engine_id, boots: 1, time: 100, level, user, is_reportable: false, kind: TRAP, request: 7, id: 4711 }
    }

    fn pdu(&self) -> Vec<u8> {
        let cold_start =
            [&[0x30, 23, 6, 10][..], &[43, 6, 1, 6, 3, 1, 1, 4, 1, 0], &[6, 9, 43, 6, 1, 6, 3, 1, 1, 5, 1]].concat();
        let head = [2, 1, self.request, 2, 1, 0, 2, 1, 0];
        element(self.kind, &[&head[..], &element(0x30, &cold_start)].concat())
    }

    fn message(&self) -> Vec<u8> {
        let keys = self.user.keys().map(|master| Keys::localized(master, &self.engine_id));
        let des_salt = DesSaltState::install(|_| Ok::<(), std::io::Error>(())).expect("begins");
        let outgoing = Outgoing {
            id: self.id,
            engine_id: &self.engine_id,
            boots: self.boots,
            time: self.time,
            user: self.user.name().as_bytes(),
            level: self.level,
            keys: keys.as_ref(),
            salts: &SaltCounter::new().expect("there are random numbers"),
            des_salt: &des_salt,
            scoped: &message::scoped(&self.engine_id, b"site", &self.pdu()).expect("is short"),
            is_reportable: self.is_reportable,
        };
        outgoing.encode().expect("is made")
    }

    /// What the sender makes of a message that it gets back.
    fn hear(&self, message: &[u8]) -> (Message, ScopedPdu) {
        let message = Message::read(&Bytes::copy_from_slice(message)).expect("is a message");
        let keys = self.user.keys().map(|master| Keys::localized(master, message.usm.engine_id()));
        if message.level > Level::NoAuthNoPriv {
            assert!(is_authentic(&message, keys.as_ref().expect("has keys")));
        }
        let (_, pdu) = unhidden(&message, keys.as_ref()).expect("can be read");
        (message, pdu)
    }

    fn report(&self, refused: &Refused) -> (Message, ReportStatus) {
        let (message, pdu) = self.hear(refused.report.as_ref().expect("there is a Report"));
        assert_eq!((message.id, message.is_reportable), (self.id, false));
        (message, classify_report(&pdu.pdu).expect("is a Report"))
    }
}

fn why(read: Result<Notification, Refused>) -> Unreadable {
    read.expect_err("is refused").why
}

#[test]
fn traps_are_taken_from_engines_that_nobody_registered() {
    let mut bench = Bench::new();
    for level in LEVELS {
        let notification = bench.read(&Sender::new(DEVICE, level).message()).expect("is a trap");
        assert_eq!(notification.version, Version::V3);
        assert_eq!(notification.trap_oid.to_string(), "1.3.6.1.6.3.1.1.5.1");
        assert!(notification.inform.is_none());
        let secured = notification.secured.expect("came by v3");
        assert_eq!((&*secured.user, secured.level), (name_of(level), level));
        assert_eq!((secured.engine_id.as_deref(), &*secured.context_name), (Some(DEVICE), &b"site"[..]));
        assert_eq!(secured.context_engine_id, None);
    }
    assert_eq!(Usm::ALL.map(|counter| bench.inbound.stats().get(counter)), [0; 6]);
}

#[test]
fn every_pair_of_protocols_is_read() {
    use AuthProtocol::*;
    use PrivProtocol::*;
    let (auth, privacy) = (secret("password"), secret("hush-hush"));
    let mut bench = Bench::new();
    for auth_protocol in [Md5, Sha1, Sha224, Sha256, Sha384, Sha512] {
        for privacy_protocol in
            [None, Some(Des), Some(Aes128), Some(Aes192), Some(Aes192Cisco), Some(Aes256), Some(Aes256Cisco)]
        {
            let privacy = privacy_protocol.map(|protocol| (protocol, &privacy));
            let user = User::new("pair", Some((auth_protocol, &auth)), privacy, true).expect("is right");
            bench.users.set([user.clone()]);
            let sender = Sender { level: user.level(), user: user.clone(), ..Sender::new(DEVICE, Level::AuthPriv) };
            let read = bench.read(&sender.message());
            assert!(read.is_ok(), "{auth_protocol:?} {privacy_protocol:?}: {read:?}");
            let friend = Sender { level: user.level(), user, ..bench.friend(Level::AuthPriv) };
            let inform = bench.read(&friend.message()).expect("is an inform").inform.expect("is an inform");
            let (_, pdu) = friend.hear(&inform.answer.encode().expect("is made"));
            assert_eq!(pdu.pdu.pdu_type(), PduType::Response);
        }
    }
}

#[test]
fn an_inform_finds_the_engine_and_its_time_and_is_answered_as_it_came() {
    for level in LEVELS {
        let mut bench = Bench::new();
        // With neither.
        let blank = UsmSecurityParams::discovery().encode().expect("is short");
        let scoped = message::scoped(b"", b"", &Sender { kind: GET, ..Sender::new(DEVICE, level) }.pdu()).expect("is short");
        let head = element(0x30, &[2, 2, 0x12, 0x67, 2, 2, 0x05, 0xdc, 4, 1, 4, 2, 1, 3]);
        let discovery = element(0x30, &[&[2, 1, 3][..], &head, &element(4, &blank), &scoped].concat());
        let refused = bench.read(&discovery).expect_err("is no notification");
        assert_eq!(refused.why, Unreadable::Discovery(Discovery::Engine));
        let report = refused.report.as_ref().expect("there is a Report");
        assert!(report.len() < 2 * discovery.len(), "{} for {}", report.len(), discovery.len());
        let stranger = Sender { id: 0x1267, ..Sender::new(DEVICE, Level::NoAuthNoPriv) };
        let (told, status) = stranger.report(&refused);
        assert_eq!(status, ReportStatus::UnknownEngineId { counter: 1 });
        let engine_id = told.usm.engine_id().to_vec();
        assert_eq!(engine_id, bench.engine.id());
        // With the engine, and no time.
        let mut sender = Sender { kind: INFORM, is_reportable: true, boots: 0, time: 0, ..Sender::new(&engine_id, level) };
        if level > Level::NoAuthNoPriv {
            let refused = bench.read(&sender.message()).expect_err("is too old");
            assert_eq!(refused.why, Unreadable::Discovery(Discovery::Time));
            let (told, status) = sender.report(&refused);
            assert_eq!(status, ReportStatus::NotInTimeWindow { counter: 1 });
            assert_eq!((told.level, told.usm.engine_boots()), (Level::AuthNoPriv, 1), "the time is authentic");
            (sender.boots, sender.time) = (told.usm.engine_boots(), told.usm.engine_time());
        }
        let inform = bench.read(&sender.message()).expect("is an inform").inform.expect("is an inform");
        // Again, as senders do it: with another message id, and here another time.
        let again = Sender { id: 4712, time: sender.time + 1, ..sender.clone() };
        let second = bench.read(&again.message()).expect("is an inform").inform.expect("is an inform");
        assert_eq!(inform.pdu, second.pdu, "it is recognised");
        let other = bench.read(&Sender { request: 8, ..sender.clone() }.message()).expect("is an inform");
        assert_ne!(inform.pdu, other.inform.expect("is an inform").pdu);
        let response = inform.answer.encode().expect("is made");
        let (message, pdu) = sender.hear(&response);
        assert_eq!((message.id, message.level, message.is_reportable), (sender.id, level, false));
        assert_eq!((pdu.context_engine_id.as_ref(), pdu.context_name.as_ref()), (&engine_id[..], &b"site"[..]));
        assert_eq!((pdu.pdu.pdu_type(), pdu.pdu.request_id(), pdu.pdu.varbinds().len()), (PduType::Response, 7, 1));
        assert_eq!(pdu.pdu.error_fields(), Some((0, 0)));
        assert_eq!(why(bench.read(&response)), Unreadable::Kind("Response".to_owned()), "answers are not answered");
    }
}

#[test]
fn the_time_of_an_answer_is_that_of_answering() {
    let mut bench = Bench::new();
    let sender = bench.friend(Level::AuthPriv);
    // As if it had been held for hours: the engine began long ago.
    let inform = bench.read(&sender.message()).expect("is an inform").inform.expect("is an inform");
    let (one, other) = (inform.answer.encode().expect("is made"), inform.answer.encode().expect("is made"));
    assert_ne!(one, other, "each has a salt of its own");
    let (message, _) = sender.hear(&one);
    let (boots, time) = bench.engine.boots_and_time(Instant::now());
    assert!(message.usm.engine_boots() == boots && message.usm.engine_time().abs_diff(time) <= 1);
}

#[test]
fn informs_are_taken_within_150_seconds_of_the_engines_time() {
    let mut bench = Bench::new();
    let (boots, _) = bench.engine.boots_and_time(Instant::now());
    let at = |time, boots| Sender { boots, time, ..Sender::new(bench.engine.id(), Level::AuthNoPriv) };
    let senders = [at(850, boots), at(1150, boots), at(849, boots), at(1152, boots), at(1000, boots + 1), at(1000, boots - 1)];
    let taken = senders.map(|sender| {
        let inform = Sender { kind: INFORM, ..sender };
        // Not reportable, so that it is a refusal and no question; a second may pass between two looks at the clock.
        bench.read_after(&inform.message(), 1000)
    });
    let is_taken = taken.each_ref().map(Result::is_ok);
    assert_eq!(is_taken, [true, true, false, false, false, false]);
    for refused in taken.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, Refused { why: Unreadable::TimeWindow { known_boots: 1, .. }, report: None }), "{refused:?}");
    }
    assert_eq!(bench.inbound.stats().get(Usm::NotInTimeWindows), 4);
}

#[test]
fn who_was_told_the_time_and_is_still_wrong_is_refused() {
    let mut bench = Bench::new();
    let late = Sender { boots: 7, ..bench.friend(Level::AuthNoPriv) };
    let elsewhere: IpAddr = "192.0.2.7".parse().expect("an address");
    let question = Unreadable::Discovery(Discovery::Time);
    assert_eq!(why(bench.read(&late.message())), question, "it may have known another start");
    let refused = bench.read(&late.message()).expect_err("is refused");
    assert!(matches!(refused.why, Unreadable::TimeWindow { boots: 7, known_boots: 1, .. }), "{refused:?}");
    assert_eq!(late.report(&refused).1, ReportStatus::NotInTimeWindow { counter: 2 }, "it is told all the same");
    assert_eq!(why(bench.read_from(elsewhere, &late.message(), 0)), question, "another device of that user");
    let blank = Sender { boots: 0, time: 0, ..late }.message();
    assert_eq!([why(bench.read(&blank)), why(bench.read(&blank))], [question.clone(), question], "it begins anew");
}

#[test]
fn what_cannot_be_believed_is_said_and_reported_where_a_report_is_asked_for() {
    let mut bench = Bench::new();
    let refused = |bench: &mut Bench, sender: &Sender, status: ReportStatus| {
        let silent = bench.read(&Sender { is_reportable: false, ..sender.clone() }.message()).expect_err("is refused");
        assert_eq!(silent.report, None);
        let refused = bench.read(&sender.message()).expect_err("is refused");
        assert_eq!(refused.why, silent.why);
        let (message, told) = sender.report(&refused);
        assert_eq!((told, message.level), (status, Level::NoAuthNoPriv));
        refused.why
    };
    let friend = bench.friend(Level::AuthPriv);
    let unknown = User::new("stranger", None, None, false).expect("is right");
    let stranger = Sender { user: unknown, level: Level::NoAuthNoPriv, ..friend.clone() };
    let said = refused(&mut bench, &stranger, ReportStatus::UnknownUserName { counter: 2 });
    assert_eq!(said, Unreadable::UnknownUser { user: "stranger".to_owned() });
    let guess = Sender { user: user(Level::AuthPriv, "passwort"), ..friend.clone() };
    let said = refused(&mut bench, &guess, ReportStatus::WrongDigest { counter: 2 });
    assert_eq!(said, Unreadable::WrongDigest { user: "priv".to_owned() });
    // Below and above what the user is.
    let mut counter = 0;
    for (level, stated) in [
        (Level::AuthPriv, Level::AuthNoPriv),
        (Level::AuthPriv, Level::NoAuthNoPriv),
        (Level::AuthNoPriv, Level::NoAuthNoPriv),
        (Level::NoAuthNoPriv, Level::AuthNoPriv),
        (Level::AuthNoPriv, Level::AuthPriv),
    ] {
        counter += 2;
        let able = User::new(
            name_of(level),
            Some((AuthProtocol::Sha256, &secret("password"))),
            Some((PrivProtocol::Aes256, &secret("hush-hush"))),
            false,
        );
        let sender = Sender { level: stated, user: able.expect("is right"), ..friend.clone() };
        let said = refused(&mut bench, &sender, ReportStatus::UnsupportedSecurityLevel { counter });
        assert_eq!(said, Unreadable::Level { user: name_of(level).to_owned(), stated, needed: level });
    }
    // The privacy password is another one; the message is authentic.
    let able = User::new(
        "priv",
        Some((AuthProtocol::Sha256, &secret("password"))),
        Some((PrivProtocol::Aes256, &secret("other-hush"))),
        false,
    );
    let sender = Sender { user: able.expect("is right"), ..friend.clone() };
    let said = refused(&mut bench, &sender, ReportStatus::DecryptionError { counter: 2 });
    assert_eq!(said, Unreadable::Undecryptable { user: "priv".to_owned() });
    // One bit anywhere in it.
    let message = friend.message();
    for at in 0..message.len() {
        let mut damaged = message.clone();
        damaged[at] ^= 1;
        assert!(bench.read(&damaged).is_err(), "byte {at}");
    }
    assert!(bench.read(&message).is_ok());
}

#[test]
fn whoever_takes_this_node_for_another_engine_learns_which_one_it_is() {
    let mut bench = Bench::new();
    // It knew the node before its data were lost.
    let sender = Sender { kind: INFORM, is_reportable: true, ..Sender::new(b"\x80\x00\x1f\x88\x05before", Level::AuthPriv) };
    let guess = Sender { user: user(Level::AuthPriv, "passwort"), ..sender.clone() };
    for (counter, sender) in (1..).zip([sender.clone(), guess]) {
        let refused = bench.read(&sender.message()).expect_err("is for another");
        assert_eq!(refused.why, Unreadable::UnknownEngine { user: "priv".to_owned() });
        let (told, status) = sender.report(&refused);
        assert_eq!(status, ReportStatus::UnknownEngineId { counter });
        assert_eq!(told.usm.engine_id(), bench.engine.id());
    }
    // A device that asks for Reports of its traps is heard all the same.
    assert!(bench.read(&Sender { kind: TRAP, ..sender }.message()).is_ok());
    let nowhere = Sender { is_reportable: false, ..Sender::new(&[0; 8], Level::NoAuthNoPriv) };
    let mut message = Sender { engine_id: vec![1; 8], ..nowhere }.message();
    let at = message.windows(8).position(|window| window == [1; 8]).expect("has its engine");
    message[at..at + 8].fill(0);
    assert!(matches!(why(bench.read(&message)), Unreadable::UnknownEngine { .. }));
}

#[test]
fn a_sender_that_starts_again_is_heard_and_one_that_forgets_its_boots_is_not() {
    let mut bench = Bench::new();
    let at = |boots, time| Sender { boots, time, ..Sender::new(DEVICE, Level::AuthPriv) }.message();
    assert!(bench.read(&at(5, 9000)).is_ok());
    assert!(bench.read(&at(6, 1)).is_ok(), "boots+1");
    let old = Unreadable::TimeWindow { user: "priv".to_owned(), boots: 5, time: 9001, known_boots: 6, known_time: 1 };
    assert_eq!(why(bench.read(&at(5, 9001))), old);
    assert!(matches!(why(bench.read_after(&at(6, 1), 200)), Unreadable::TimeWindow { known_time: 201, .. }));
    // Another user at the same engine has a time of its own: it cannot put the first one out.
    let other = Sender { boots: 99, ..Sender::new(DEVICE, Level::AuthNoPriv) };
    assert!(bench.read(&other.message()).is_ok());
    assert!(bench.read_after(&at(6, 200), 200).is_ok());
    assert_eq!(bench.inbound.stats().get(Usm::NotInTimeWindows), 0, "RFC 3414 3.2 7b counts nothing");
}

#[test]
fn users_change_from_one_message_to_the_next() {
    let mut bench = Bench::new();
    let old = Sender::new(DEVICE, Level::AuthPriv);
    let new = Sender { user: user(Level::AuthPriv, "passwort"), ..old.clone() };
    assert!(bench.read(&old.message()).is_ok());
    assert!(bench.read(&new.message()).is_err());
    bench.users.set([new.user.clone()]);
    assert!(bench.read(&old.message()).is_err());
    assert!(bench.read(&new.message()).is_ok());
    assert!(
        matches!(why(bench.read(&Sender { time: 0, boots: 0, ..new.clone() }.message())), Unreadable::TimeWindow { .. }),
        "its time is known"
    );
    bench.users.set([]);
    assert_eq!(why(bench.read(&new.message())), Unreadable::Version(3), "without users there is no v3");
}

#[test]
fn a_name_may_have_other_keys_at_one_engine() {
    let mut bench = Bench::new();
    let there = EngineId::parse("0x80001F8804646576696365").expect("is an id");
    assert_eq!(there.octets(), DEVICE);
    let (common, special) = (user(Level::AuthPriv, "password"), user(Level::AuthPriv, "passwort"));
    bench.users.set([common.clone(), special.clone().at_engine(there)]);
    let at = |engine: &[u8], user: &User| Sender { user: user.clone(), ..Sender::new(engine, Level::AuthPriv) }.message();
    assert!(bench.read(&at(DEVICE, &special)).is_ok() && bench.read(&at(DEVICE, &common)).is_err());
    assert!(bench.read(&at(b"\x80elsewhere", &common)).is_ok() && bench.read(&at(b"\x80elsewhere", &special)).is_err());
    bench.users.set([special.at_engine(EngineId::parse("80001F8804646576696365").expect("is an id"))]);
    let elsewhere = Unreadable::UserElsewhere { user: "priv".to_owned() };
    assert_eq!(why(bench.read(&at(b"\x80elsewhere", &common))), elsewhere);
    assert_eq!(why(bench.read(&bench.friend(Level::AuthPriv).message())), elsewhere, "an inform is for this engine");
    assert!(["", "80", "8000000", "8000zz8804", "0000000000"].iter().all(|wrong| EngineId::parse(wrong).is_none()));
}

#[test]
fn traps_need_no_engine_and_versions_can_be_left_out() {
    let users = Users::new([user(Level::AuthPriv, "password")]);
    let dir = tempfile::tempdir().expect("can be made");
    let home = Arc::new(EngineHome::new(&dir.path().join("later")));
    assert!(home.engine().is_err(), "it cannot be kept");
    let mut inbound = Inbound::new(Arc::clone(&home), users.clone()).only(&[Version::V3]);
    let now = Instant::now();
    let trap: Bytes = Sender::new(DEVICE, Level::AuthPriv).message().into();
    assert!(inbound.read(&trap, HERE, |_| true, now).is_ok());
    let asked: Bytes = Sender { is_reportable: true, kind: INFORM, ..Sender::new(DEVICE, Level::AuthPriv) }.message().into();
    let refused = inbound.read(&asked, HERE, |_| true, now).expect_err("nobody answers");
    assert!(matches!(refused, Refused { why: Unreadable::UnknownEngine { .. }, report: None }));
    let v2c = Bytes::from_static(include_bytes!("../../../../fuzz/corpus/trap/v2c-link-down.bin"));
    assert_eq!(why(inbound.read(&v2c, HERE, |_| true, now)), Unreadable::Version(1));
    // As soon as it can be kept, who asks is told which engine it is.
    std::fs::create_dir(dir.path().join("later")).expect("can be made");
    let engine = home.engine().expect("starts");
    let refused = inbound.read(&asked, HERE, |_| true, now).expect_err("is for another");
    let sender = Sender { is_reportable: true, kind: INFORM, ..Sender::new(DEVICE, Level::AuthPriv) };
    assert_eq!(sender.report(&refused).0.usm.engine_id(), engine.id());
    let mut inbound = Inbound::new(home, users).only(&[Version::V2c]);
    assert_eq!(why(inbound.read(&trap, HERE, |_| true, now)), Unreadable::Version(3));
    assert!(inbound.read(&v2c, HERE, |_| true, now).is_ok());
}

#[test]
fn garbage_takes_no_room_and_reports_are_bounded() {
    let mut bench = Bench::new();
    let guess = user(Level::AuthPriv, "passwort");
    let count = REPORTS_PER_SECOND_MAX + 1000;
    // One message, at another engine each time; its digest is as wrong as before.
    let template =
        Sender { user: guess, is_reportable: true, ..Sender::new(b"\x80\x00\x00\x00\x00\x00", Level::AuthPriv) }.message();
    let at = template.windows(6).position(|window| window == b"\x80\x00\x00\x00\x00\x00").expect("has its engine") + 2;
    let mut told = 0;
    for number in 0..count {
        let mut message = template.clone();
        message[at..at + 4].copy_from_slice(&number.to_be_bytes());
        let refused = bench.read(&message).expect_err("is garbage");
        told += u32::from(refused.report.is_some());
    }
    let stats = bench.inbound.stats();
    assert_eq!((told, stats.reports(), stats.reports_withheld()), (REPORTS_PER_SECOND_MAX, u64::from(told), 1000));
    assert_eq!(bench.inbound.peers.len(), 0);
    assert!(bench.read_after(&template, 1).expect_err("is garbage").report.is_some(), "in the next second again");
}
