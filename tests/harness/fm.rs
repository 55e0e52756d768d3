//! A program of StarlingX, as far as its bytes go: what fm-api's library sends to fmManager and reads of it. It is written from what is
//! known of the structures, and shares nothing with the node.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const CREATE: u32 = 0;
pub(crate) const DELETE: u32 = 2;
pub(crate) const DELETE_ALL: u32 = 3;
pub(crate) const GET: u32 = 4;
pub(crate) const GET_ALL: u32 = 5;
pub(crate) const GET_BY_ID: u32 = 7;
pub(crate) const GET_BY_ID_AND_ENTITY: u32 = 8;
pub(crate) const CREATE_LIST: u32 = 9;
pub(crate) const DELETE_LIST: u32 = 10;

pub(crate) const OK: u32 = 0;
pub(crate) const INVALID_ATTRIBUTE: u32 = 2;
pub(crate) const NOT_ENOUGH_SPACE: u32 = 6;
pub(crate) const INVALID_REQUEST: u32 = 7;
pub(crate) const NOT_FOUND: u32 = 10;
pub(crate) const DATABASE_FAILURE: u32 = 11;

/// `sizeof(SFmAlarmDataT)`
pub(crate) const ALARM_BYTES: usize = 1568;
const TEXT_BYTES: usize = 255;
/// A client waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `SFmAlarmDataT`, as bytes with fields at their offsets.
#[derive(Clone)]
pub(crate) struct Alarm(pub(crate) Vec<u8>);

impl Alarm {
    /// A set alarm with a severity, nothing else said.
    pub(crate) fn new(alarm_id: &str, entity: &str, severity: u32) -> Self {
        Self(vec![0; ALARM_BYTES]).text(255, alarm_id).text(771, entity).number(512, 1).number(1040, severity)
    }

    pub(crate) fn text(mut self, offset: usize, text: &str) -> Self {
        self.0[offset..offset + TEXT_BYTES].copy_from_slice(&padded(text));
        self
    }

    pub(crate) fn number(mut self, offset: usize, number: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn flag(mut self, offset: usize) -> Self {
        self.0[offset] = 1;
        self
    }

    pub(crate) fn reason(self, text: &str) -> Self {
        self.text(1044, text)
    }

    pub(crate) fn keeping(self) -> Self {
        self.flag(1566)
    }

    pub(crate) fn text_at(&self, offset: usize) -> String {
        let bytes = &self.0[offset..offset + TEXT_BYTES];
        let end = bytes.iter().position(|byte| *byte == 0).expect("a text ends with a zero");
        String::from_utf8(bytes[..end].to_owned()).expect("is UTF-8")
    }

    pub(crate) fn number_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(*self.0[offset..].first_chunk().expect("is in it"))
    }

    pub(crate) fn entity(&self) -> String {
        self.text_at(771)
    }

    pub(crate) fn severity(&self) -> u32 {
        self.number_at(1040)
    }
}

fn padded(text: &str) -> [u8; TEXT_BYTES] {
    let mut field = [0; TEXT_BYTES];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}

/// `AlarmFilter`
pub(crate) fn filter(alarm_id: &str, entity: &str) -> Vec<u8> {
    [padded(alarm_id), padded(entity)].concat()
}

/// A request with its length before it.
pub(crate) fn packet(action: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("is small");
    let header = [1, action, size, 0].map(u32::to_le_bytes).concat();
    let length = u32::try_from(header.len() + payload.len()).expect("is small");
    [&length.to_be_bytes()[..], &header, payload].concat()
}

/// One connection.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
        stream.set_nodelay(true).expect("can be set");
        Self(stream)
    }

    /// What comes back: the action, the code and the payload.
    pub(crate) fn answer(&mut self) -> io::Result<(u32, u32, Vec<u8>)> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("fits")];
        self.0.read_exact(&mut rest)?;
        let field = |at: usize| u32::from_le_bytes(*rest[at..].first_chunk().expect("has a header"));
        let (version, action, size, code) = (field(0), field(4), field(8), field(12));
        assert_eq!(version, 1);
        let payload = rest.split_off(16);
        assert_eq!(usize::try_from(size), Ok(payload.len()));
        assert!(code == OK || payload.is_empty(), "what failed has no payload");
        Ok((action, code, payload))
    }

    pub(crate) fn try_call(&mut self, action: u32, payload: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        // As the library does: the length, then the rest.
        let packet = packet(action, payload);
        self.0.write_all(&packet[..4])?;
        self.0.write_all(&packet[4..])?;
        let (of, code, payload) = self.answer()?;
        assert_eq!(of, action, "it is the answer to what was asked");
        Ok((code, payload))
    }

    pub(crate) fn call(&mut self, action: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        self.try_call(action, payload).expect("it answers")
    }

    /// The uuid, or the code.
    pub(crate) fn raise(&mut self, alarm: &Alarm) -> Result<String, u32> {
        let (code, payload) = self.call(CREATE, &alarm.0);
        if code != OK {
            return Err(code);
        }
        // The library takes no other size.
        assert_eq!(payload.len(), TEXT_BYTES);
        let uuid = String::from_utf8(payload[..36].to_owned()).expect("is text");
        assert!(payload[36..].iter().all(|byte| *byte == 0));
        Ok(uuid)
    }

    pub(crate) fn raise_all(&mut self, alarms: &[Alarm]) -> u32 {
        let all: Vec<&[u8]> = alarms.iter().map(|alarm| alarm.0.as_slice()).collect();
        self.call(CREATE_LIST, &all.concat()).0
    }

    pub(crate) fn clear(&mut self, alarm_id: &str, entity: &str) -> u32 {
        self.call(DELETE, &filter(alarm_id, entity)).0
    }

    pub(crate) fn clear_all(&mut self, entity: &str) -> u32 {
        self.call(DELETE_ALL, &padded(entity)).0
    }

    pub(crate) fn get(&mut self, alarm_id: &str, entity: &str) -> Result<Alarm, u32> {
        let (code, payload) = self.call(GET, &filter(alarm_id, entity));
        if code != OK {
            return Err(code);
        }
        assert_eq!(payload.len(), ALARM_BYTES);
        Ok(Alarm(payload))
    }

    pub(crate) fn of_entity(&mut self, entity: &str) -> Result<Vec<Alarm>, u32> {
        self.list(GET_ALL, &padded(entity))
    }

    pub(crate) fn of_id(&mut self, alarm_id: &str) -> Result<Vec<Alarm>, u32> {
        self.list(GET_BY_ID, &padded(alarm_id))
    }

    pub(crate) fn of_id_and_entity(&mut self, alarm_id: &str, entity: &str) -> Result<Vec<Alarm>, u32> {
        self.list(GET_BY_ID_AND_ENTITY, &filter(alarm_id, entity))
    }

    fn list(&mut self, action: u32, payload: &[u8]) -> Result<Vec<Alarm>, u32> {
        let (code, payload) = self.call(action, payload);
        if code != OK {
            return Err(code);
        }
        let (count, alarms) = payload.split_first_chunk().expect("has a count");
        let alarms: Vec<Alarm> = alarms.chunks_exact(ALARM_BYTES).map(|alarm| Alarm(alarm.to_owned())).collect();
        assert_eq!(usize::try_from(u32::from_le_bytes(*count)), Ok(alarms.len()));
        Ok(alarms)
    }

    /// Whether the node ends the connection, without another word, before the client has waited for long.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_secs(30))).expect("can be set");
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
