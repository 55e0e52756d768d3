//! The bytes that StarlingX's programs and fmManager exchange over TCP: structures of C as a 64-bit x86 lays them out.
//!
//! ```text
//! packet  = length of the rest, u32 big-endian │ header │ payload
//! header  = version 1 │ action │ size of the payload │ code, each u32 little-endian
//! text    = char[255] that ends at the first zero; at most 254 bytes of UTF-8
//! filter  = alarm id, text │ entity instance id, text                                              510 bytes
//! fault   = uuid, alarm id │ state │ entity type │ entity instance │ timestamp │ severity │ reason │ alarm type, probable cause │
//!           repair action │ four flags; numbers are aligned, see the offsets below                 1568 bytes
//!
//! action                    asks with           is answered with
//!  0 CreateFault            fault               uuid, text
//!  2 DeleteFault            filter              –
//!  3 DeleteFaults           entity, text        –
//!  4 GetFault               filter              fault
//!  5 GetFaults              entity, text        count, u32 │ that many faults
//!  7 GetFaultsById          alarm id, text      the same
//!  8 GetFaultsByIdnEid      filter              the same
//!  9 CreateFaultList        faults              –
//! 10 DeleteFaultList        filters             –
//! ```
//!
//! Actions 1 and 6 have a number and no use. An answer has the action of its request; where its code is not 0 it has no payload.

/// The bytes of the length before each packet.
pub const LENGTH_BYTES: usize = 4;
/// The bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// The bytes of a text.
pub const TEXT_BYTES: usize = 255;
/// The bytes of a filter.
pub const FILTER_BYTES: usize = 2 * TEXT_BYTES;
/// The bytes of a fault.
pub const FAULT_BYTES: usize = 1568;
/// The most faults, or filters, in one request.
pub const REQUEST_ITEMS_MAX: usize = 4096;
/// The most bytes of a packet behind its length.
pub const PACKET_BYTES_MAX: usize = HEADER_BYTES + REQUEST_ITEMS_MAX * FAULT_BYTES;

const VERSION: u32 = 1;

/// Where the fields of a fault begin.
mod at {
    pub(super) const UUID: usize = 0;
    pub(super) const ALARM_ID: usize = 255;
    pub(super) const ALARM_STATE: usize = 512;
    pub(super) const ENTITY_TYPE_ID: usize = 516;
    pub(super) const ENTITY_INSTANCE_ID: usize = 771;
    pub(super) const TIMESTAMP: usize = 1032;
    pub(super) const SEVERITY: usize = 1040;
    pub(super) const REASON_TEXT: usize = 1044;
    pub(super) const ALARM_TYPE: usize = 1300;
    pub(super) const PROBABLE_CAUSE: usize = 1304;
    pub(super) const REPAIR_ACTION: usize = 1308;
    pub(super) const SERVICE_AFFECTING: usize = 1563;
    pub(super) const SUPPRESSION: usize = 1564;
    pub(super) const INHIBIT_ALARMS: usize = 1565;
    pub(super) const KEEP_EXISTING_ALARM: usize = 1566;
}

/// What a client wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Raise an alarm, or log something.
    CreateFault,
    /// Clear alarms of one id.
    DeleteFault,
    /// Clear all alarms of an entity.
    DeleteFaults,
    /// Show one alarm.
    GetFault,
    /// Show those of an entity.
    GetFaults,
    /// Show those of an id.
    GetFaultsById,
    /// Show those of an id and an entity.
    GetFaultsByIdnEid,
    /// Several of the first.
    CreateFaultList,
    /// Several of the second.
    DeleteFaultList,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CreateFault,
        Self::DeleteFault,
        Self::DeleteFaults,
        Self::GetFault,
        Self::GetFaults,
        Self::GetFaultsById,
        Self::GetFaultsByIdnEid,
        Self::CreateFaultList,
        Self::DeleteFaultList,
    ];

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::CreateFault => 0,
            Self::DeleteFault => 2,
            Self::DeleteFaults => 3,
            Self::GetFault => 4,
            Self::GetFaults => 5,
            Self::GetFaultsById => 7,
            Self::GetFaultsByIdnEid => 8,
            Self::CreateFaultList => 9,
            Self::DeleteFaultList => 10,
        }
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateFault => "create_fault",
            Self::DeleteFault => "delete_fault",
            Self::DeleteFaults => "delete_faults",
            Self::GetFault => "get_fault",
            Self::GetFaults => "get_faults",
            Self::GetFaultsById => "get_faults_by_id",
            Self::GetFaultsByIdnEid => "get_faults_by_id_and_entity",
            Self::CreateFaultList => "create_fault_list",
            Self::DeleteFaultList => "delete_fault_list",
        }
    }
}

/// How a request went (EFmErrorT), as far as it is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done, and durable.
    Ok,
    /// A field cannot be used.
    InvalidAttribute,
    /// More than an answer may hold, or than may stand.
    NotEnoughSpace,
    /// Not a request that is understood.
    InvalidRequest,
    /// It is too large for what memory there is.
    ServerNoMemory,
    /// There is no such alarm.
    EntityNotFound,
    /// It cannot be kept now: the disk is full, or the journal away.
    DatabaseFailure,
    /// Too much waits, or the node is stopping.
    ResourceUnavailable,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::InvalidAttribute => 2,
            Self::NotEnoughSpace => 6,
            Self::InvalidRequest => 7,
            Self::ServerNoMemory => 8,
            Self::EntityNotFound => 10,
            Self::DatabaseFailure => 11,
            Self::ResourceUnavailable => 14,
        }
    }
}

/// Which alarms are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// Of which id.
    pub alarm_id: String,
    /// Of which entity.
    pub entity_instance_id: String,
}

/// An alarm, or a report of one. Numbers are as they came: what they mean is looked up where it is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// Of an alarm; a client may send one, too.
    pub uuid: String,
    /// The id of its type.
    pub alarm_id: String,
    /// Whether it is set.
    pub alarm_state: u32,
    /// What it is about: which kind of entity.
    pub entity_type_id: String,
    /// What it is about.
    pub entity_instance_id: String,
    /// Microseconds since 1970; 0 is now.
    pub timestamp: u64,
    /// The severity.
    pub severity: u32,
    /// Words for people.
    pub reason_text: String,
    /// The event type.
    pub alarm_type: u32,
    /// The probable cause.
    pub probable_cause: u32,
    /// What to do.
    pub proposed_repair_action: String,
    /// Whether service is affected.
    pub service_affecting: bool,
    /// Whether it may be masked.
    pub suppression: bool,
    /// Whether it masks others.
    pub inhibit_alarms: bool,
    /// Whether it leaves an alarm that stands as it is.
    pub keep_existing_alarm: bool,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// [`Action::CreateFault`].
    CreateFault(Box<Fault>),
    /// [`Action::DeleteFault`].
    DeleteFault(Filter),
    /// [`Action::DeleteFaults`]: of an entity.
    DeleteFaults(String),
    /// [`Action::GetFault`].
    GetFault(Filter),
    /// [`Action::GetFaults`]: of an entity.
    GetFaults(String),
    /// [`Action::GetFaultsById`]: of an id.
    GetFaultsById(String),
    /// [`Action::GetFaultsByIdnEid`].
    GetFaultsByIdnEid(Filter),
    /// [`Action::CreateFaultList`].
    CreateFaultList(Vec<Fault>),
    /// [`Action::DeleteFaultList`].
    DeleteFaultList(Vec<Filter>),
}

impl Request {
    /// What it wants done.
    pub fn action(&self) -> Action {
        match self {
            Self::CreateFault(_) => Action::CreateFault,
            Self::DeleteFault(_) => Action::DeleteFault,
            Self::DeleteFaults(_) => Action::DeleteFaults,
            Self::GetFault(_) => Action::GetFault,
            Self::GetFaults(_) => Action::GetFaults,
            Self::GetFaultsById(_) => Action::GetFaultsById,
            Self::GetFaultsByIdnEid(_) => Action::GetFaultsByIdnEid,
            Self::CreateFaultList(_) => Action::CreateFaultList,
            Self::DeleteFaultList(_) => Action::DeleteFaultList,
        }
    }
}

/// Why a packet is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRequest {
    /// It does not hold a header.
    #[error("length: {0} bytes are no header, which has {HEADER_BYTES}")]
    Short(usize),
    /// It is of another version.
    #[error("version: is {0}, not {VERSION}")]
    Version(u32),
    /// It wants what nobody knows.
    #[error("action: is {0}, which is none that is answered")]
    Action(u32),
    /// The payload is not as long as the header says.
    #[error("msg_size: is {said}, and {came} bytes came")]
    Size {
        /// How long it is said to be.
        said: u32,
        /// How long it is.
        came: usize,
    },
    /// The payload is not what the action has.
    #[error("msg_size: {0} bytes are no payload of this action")]
    Payload(usize),
}

/// A length beyond [`PACKET_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("length: is {0}, at most {PACKET_BYTES_MAX} are taken")]
pub struct TooLong(pub u32);

/// How many bytes the packet at the beginning of `bytes` has with its length, as soon as that is there.
pub fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, TooLong> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(rest) if rest <= PACKET_BYTES_MAX => Ok(Some(LENGTH_BYTES + rest)),
        _ => Err(TooLong(length)),
    }
}

/// The action that a packet, behind its length, has in its header, if it has one: an answer has it as well.
pub fn action_number(packet: &[u8]) -> u32 {
    if packet.len() < HEADER_BYTES { 0 } else { number(packet, 4) }
}

/// Reads a packet behind its length.
pub fn request(packet: &[u8]) -> Result<Request, NoRequest> {
    if packet.len() < HEADER_BYTES {
        return Err(NoRequest::Short(packet.len()));
    }
    let (version, action, said) = (number(packet, 0), number(packet, 4), number(packet, 8));
    if version != VERSION {
        return Err(NoRequest::Version(version));
    }
    let known = Action::ALL.into_iter().find(|known| known.number() == action).ok_or(NoRequest::Action(action))?;
    let payload = &packet[HEADER_BYTES..];
    if usize::try_from(said) != Ok(payload.len()) {
        return Err(NoRequest::Size { said, came: payload.len() });
    }
    let of = |bytes: usize| if payload.len() == bytes { Ok(payload) } else { Err(NoRequest::Payload(payload.len())) };
    let items = |bytes: usize| match payload.chunks_exact(bytes) {
        chunks if chunks.remainder().is_empty() && chunks.len() <= REQUEST_ITEMS_MAX => Ok(chunks),
        _ => Err(NoRequest::Payload(payload.len())),
    };
    Ok(match known {
        Action::CreateFault => Request::CreateFault(Box::new(Fault::read(of(FAULT_BYTES)?))),
        Action::DeleteFault => Request::DeleteFault(Filter::read(of(FILTER_BYTES)?)),
        Action::DeleteFaults => Request::DeleteFaults(text(of(TEXT_BYTES)?)),
        Action::GetFault => Request::GetFault(Filter::read(of(FILTER_BYTES)?)),
        Action::GetFaults => Request::GetFaults(text(of(TEXT_BYTES)?)),
        Action::GetFaultsById => Request::GetFaultsById(text(of(TEXT_BYTES)?)),
        Action::GetFaultsByIdnEid => Request::GetFaultsByIdnEid(Filter::read(of(FILTER_BYTES)?)),
        Action::CreateFaultList => Request::CreateFaultList(items(FAULT_BYTES)?.map(Fault::read).collect()),
        Action::DeleteFaultList => Request::DeleteFaultList(items(FILTER_BYTES)?.map(Filter::read).collect()),
    })
}

impl Filter {
    /// From exactly [`FILTER_BYTES`].
    fn read(bytes: &[u8]) -> Self {
        let (alarm_id, entity) = bytes.split_at(TEXT_BYTES);
        Self { alarm_id: text(alarm_id), entity_instance_id: text(entity) }
    }
}

impl Fault {
    /// From exactly [`FAULT_BYTES`].
    fn read(bytes: &[u8]) -> Self {
        let words = |at: usize| text(&bytes[at..at + TEXT_BYTES]);
        let flag = |at: usize| bytes[at] != 0;
        let timestamp = bytes[at::TIMESTAMP..].first_chunk().expect("is in it");
        Self {
            uuid: words(at::UUID),
            alarm_id: words(at::ALARM_ID),
            alarm_state: number(bytes, at::ALARM_STATE),
            entity_type_id: words(at::ENTITY_TYPE_ID),
            entity_instance_id: words(at::ENTITY_INSTANCE_ID),
            timestamp: u64::from_le_bytes(*timestamp),
            severity: number(bytes, at::SEVERITY),
            reason_text: words(at::REASON_TEXT),
            alarm_type: number(bytes, at::ALARM_TYPE),
            probable_cause: number(bytes, at::PROBABLE_CAUSE),
            proposed_repair_action: words(at::REPAIR_ACTION),
            service_affecting: flag(at::SERVICE_AFFECTING),
            suppression: flag(at::SUPPRESSION),
            inhibit_alarms: flag(at::INHIBIT_ALARMS),
            keep_existing_alarm: flag(at::KEEP_EXISTING_ALARM),
        }
    }

    /// Its [`FAULT_BYTES`], at the end of `out`. What is between the fields is zero.
    pub fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.resize(begin + FAULT_BYTES, 0);
        let bytes = &mut out[begin..];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(at::UUID, cut(&self.uuid));
        put(at::ALARM_ID, cut(&self.alarm_id));
        put(at::ALARM_STATE, &self.alarm_state.to_le_bytes());
        put(at::ENTITY_TYPE_ID, cut(&self.entity_type_id));
        put(at::ENTITY_INSTANCE_ID, cut(&self.entity_instance_id));
        put(at::TIMESTAMP, &self.timestamp.to_le_bytes());
        put(at::SEVERITY, &self.severity.to_le_bytes());
        put(at::REASON_TEXT, cut(&self.reason_text));
        put(at::ALARM_TYPE, &self.alarm_type.to_le_bytes());
        put(at::PROBABLE_CAUSE, &self.probable_cause.to_le_bytes());
        put(at::REPAIR_ACTION, cut(&self.proposed_repair_action));
        put(at::SERVICE_AFFECTING, &[self.service_affecting.into()]);
        put(at::SUPPRESSION, &[self.suppression.into()]);
        put(at::INHIBIT_ALARMS, &[self.inhibit_alarms.into()]);
        put(at::KEEP_EXISTING_ALARM, &[self.keep_existing_alarm.into()]);
    }
}

/// What is answered if all went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// That it did.
    Nothing,
    /// The alarm's id.
    Uuid(String),
    /// An alarm.
    Fault(Box<Fault>),
    /// Alarms.
    Faults(Vec<Fault>),
}

impl Answer {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::Uuid(uuid) => {
                let begin = out.len();
                out.extend_from_slice(cut(uuid));
                out.resize(begin + TEXT_BYTES, 0);
            }
            Self::Fault(fault) => fault.write(out),
            Self::Faults(faults) => {
                out.reserve(4 + faults.len() * FAULT_BYTES);
                out.extend(u32::try_from(faults.len()).expect("is bounded").to_le_bytes());
                faults.iter().for_each(|fault| fault.write(out));
            }
        }
    }
}

/// The whole packet that answers a request of this action.
pub fn reply(action: u32, answer: &Result<Answer, Code>) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES + HEADER_BYTES];
    let code = match answer {
        Ok(answer) => {
            answer.write(&mut out);
            Code::Ok
        }
        Err(code) => *code,
    };
    let rest = out.len() - LENGTH_BYTES;
    let count = |bytes: usize| u32::try_from(bytes).expect("is bounded");
    out[..LENGTH_BYTES].copy_from_slice(&count(rest).to_be_bytes());
    let header = [VERSION, action, count(rest - HEADER_BYTES), code.number()];
    for (field, value) in out[LENGTH_BYTES..].chunks_exact_mut(4).zip(header) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    out
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("is in it"))
}

/// The text up to the first zero; without one the last byte stands for it. What is no UTF-8 becomes U+FFFD, but for a character at the
/// end that was cut: it is left out.
fn text(bytes: &[u8]) -> String {
    let room = &bytes[..bytes.len().saturating_sub(1)];
    let end = room.iter().position(|byte| *byte == 0).unwrap_or(room.len());
    let is_cut = |error: &std::str::Utf8Error| end == room.len() && error.error_len().is_none();
    let kept = std::str::from_utf8(&room[..end]).err().filter(is_cut).map_or(end, |error| error.valid_up_to());
    String::from_utf8_lossy(&room[..kept]).into_owned()
}

/// As much of `text` as has room before the final zero. What is behind a zero would not be read.
fn cut(text: &str) -> &[u8] {
    let mut end = text.find('\0').unwrap_or(text.len()).min(TEXT_BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(action: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).expect("is small");
        let header = [1, action, size, 0].map(u32::to_le_bytes).concat();
        [&header[..], payload].concat()
    }

    fn fault() -> Fault {
        Fault {
            uuid: "a26d6613-6f5d-432a-bc1a-c2d2d3ed89e4".to_owned(),
            alarm_id: "100.101".to_owned(),
            alarm_state: 1,
            entity_type_id: "host".to_owned(),
            entity_instance_id: "host=compute-0".to_owned(),
            timestamp: 1_795_335_574_134_583,
            severity: 3,
            reason_text: "ä".repeat(127),
            alarm_type: 7,
            probable_cause: 50,
            proposed_repair_action: "look".to_owned(),
            service_affecting: true,
            suppression: false,
            inhibit_alarms: true,
            keep_existing_alarm: false,
        }
    }

    #[test]
    fn a_fault_is_where_its_fields_are() {
        let mut bytes = Vec::new();
        fault().write(&mut bytes);
        assert_eq!(bytes.len(), FAULT_BYTES);
        assert_eq!((bytes[255], bytes[509], bytes[512], bytes[516], bytes[1040]), (b'1', 0, 1, b'h', 3));
        assert_eq!((bytes[1297], bytes[1298], bytes[1300], bytes[1304]), (0xa4, 0, 7, 50));
        assert_eq!(bytes[1563..], [1, 0, 1, 0, 0]);
        let Ok(Request::CreateFault(read)) = request(&packet(0, &bytes)) else { panic!("is one") };
        assert_eq!(*read, fault());
    }

    #[test]
    fn what_is_no_request_is_named() {
        let mut wrong_version = packet(4, &[0; FILTER_BYTES]);
        wrong_version[0] = 2;
        let mut wrong_size = packet(4, &[0; FILTER_BYTES]);
        wrong_size[8] = 0;
        for (bytes, why) in [
            (vec![], NoRequest::Short(0)),
            (vec![1; 15], NoRequest::Short(15)),
            (wrong_version, NoRequest::Version(2)),
            (packet(1, &[]), NoRequest::Action(1)),
            (packet(6, &[]), NoRequest::Action(6)),
            (packet(11, &[]), NoRequest::Action(11)),
            (wrong_size, NoRequest::Size { said: 256, came: 510 }),
            (packet(0, &[0; 1567]), NoRequest::Payload(1567)),
            (packet(2, &[0; 511]), NoRequest::Payload(511)),
            (packet(5, &[0; 254]), NoRequest::Payload(254)),
            (packet(9, &[0; 1569]), NoRequest::Payload(1569)),
            (packet(10, &vec![0; FILTER_BYTES * (REQUEST_ITEMS_MAX + 1)]), NoRequest::Payload(FILTER_BYTES * 4097)),
        ] {
            assert_eq!(request(&bytes), Err(why));
        }
        assert_eq!(request(&packet(9, &[])), Ok(Request::CreateFaultList(Vec::new())));
    }

    #[test]
    fn a_length_is_known_before_the_rest_and_bounded() {
        assert_eq!(packet_bytes(&[0, 0, 1]), Ok(None));
        assert_eq!(packet_bytes(&[0, 0, 1, 0, 9]), Ok(Some(260)));
        assert_eq!(packet_bytes(&[0xff; 4]), Err(TooLong(u32::MAX)));
        let most = u32::try_from(PACKET_BYTES_MAX).expect("is small");
        assert_eq!(packet_bytes(&most.to_be_bytes()), Ok(Some(PACKET_BYTES_MAX + 4)));
        assert_eq!(packet_bytes(&(most + 1).to_be_bytes()), Err(TooLong(most + 1)));
    }

    #[test]
    fn texts_end_at_a_zero_or_are_cut_at_a_character() {
        let padded = |bytes: &[u8]| text(&[bytes, &[0; TEXT_BYTES][bytes.len()..]].concat());
        assert_eq!(padded(b"a\0b"), "a");
        assert_eq!(padded(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(text(&[b'x'; TEXT_BYTES]), "x".repeat(254));
        let cut_inside: Vec<u8> = [&[b'x'; 253][..], "ä".as_bytes()].concat();
        assert_eq!(text(&cut_inside), "x".repeat(253), "half a character is left out");
        assert_eq!(cut(&"ä".repeat(200)).len(), 254);
        assert_eq!(cut(&format!("x{}", "ä".repeat(200))).len(), 253);
        assert_eq!(cut("a\0b"), b"a");
    }

    #[test]
    fn an_answer_has_the_action_of_its_request_and_a_payload_only_if_all_went_well() {
        let failed = reply(99, &Err(Code::InvalidRequest));
        assert_eq!(failed, [&[0, 0, 0, 16][..], &[1, 99, 0, 7].map(u32::to_le_bytes).concat()].concat());
        let uuid = reply(0, &Ok(Answer::Uuid("u".to_owned())));
        assert_eq!((uuid.len(), uuid[3], uuid[2], uuid[20], uuid[21]), (4 + 271, 15, 1, b'u', 0));
        let faults = reply(5, &Ok(Answer::Faults(vec![fault(); 2])));
        assert_eq!((faults.len(), faults[20]), (4 + 16 + 4 + 2 * FAULT_BYTES, 2));
    }
}
