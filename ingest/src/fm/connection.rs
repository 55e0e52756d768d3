//! One connection: packets are read and answered one by one, in their order.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::counts::{Cut, FmCounts};
use super::desk::Desk;
use super::places::Place;
use super::wire::{self, Code, FAULT_BYTES, LENGTH_BYTES, TooLong};

/// How long a packet may take from its first byte to its last.
const PACKET_WAIT: Duration = Duration::from_secs(5);
/// How long an answer may wait to be taken.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long what else a client sends is listened to after it was told that it has to go: it would lose the answer otherwise.
const LINGER: Duration = Duration::from_secs(1);
/// Packets and answers up to this size need no leave.
const SMALL_BYTES: usize = 8 * FAULT_BYTES;
/// How large all the others are together that are read or answered at one time.
pub(super) const LARGE_BYTES_MAX: usize = 64 << 20;
/// How much is read at once.
const READ_BYTES: usize = 4096;

/// What all connections have in common.
pub(super) struct Shared {
    pub(super) desk: Desk,
    pub(super) counts: Arc<FmCounts>,
    /// The bytes of [`LARGE_BYTES_MAX`] that are left.
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

/// Why no packet came.
#[derive(Debug, thiserror::Error)]
enum NoPacket {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a packet did not come whole in {} s", PACKET_WAIT.as_secs())]
    Half,
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// A packet behind its length, and its leave if it is large.
type Packet = (Bytes, Option<OwnedSemaphorePermit>);

/// Serves `stream` until its client is gone or has to go.
pub(super) async fn serve(mut stream: TcpStream, client: IpAddr, place: Place, shared: Arc<Shared>) {
    let _connected = shared.counts.connect();
    let mut buffer = BytesMut::new();
    let ended = loop {
        if !place.note(true) {
            break Some(Cut::Idle);
        }
        let packet = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break None,
            () = place.gone() => break Some(Cut::Idle),
            packet = next(&mut stream, &mut buffer, &shared.room) => packet,
        };
        match packet {
            Ok(Some((packet, _leave))) => {
                // Whoever took its place has not seen that it works.
                place.note(false);
                if let Err(why) = answer(&mut stream, &packet, client, &shared).await {
                    break why;
                }
            }
            Ok(None) => break None,
            Err(NoPacket::Io(error)) => {
                tracing::debug!(%client, %error, "a connection of StarlingX's programs ended badly");
                break None;
            }
            Err(why @ NoPacket::Half) => {
                shared.desk.grumble(&why, client);
                break Some(Cut::HalfPacket);
            }
            Err(why @ NoPacket::TooLong(_)) => {
                shared.desk.grumble(&why, client);
                shared.counts.request(None);
                shared.counts.refuse();
                let reply = wire::reply(
                    wire::action_number(buffer.get(LENGTH_BYTES..).unwrap_or_default()),
                    &Err(Code::InvalidRequest),
                );
                let _ = timeout(ANSWER_WAIT, stream.write_all(&reply)).await;
                let _ = stream.shutdown().await;
                let _ = timeout(LINGER, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
                break Some(Cut::TooLong);
            }
        }
    };
    if let Some(why) = ended {
        shared.counts.cut(why);
    }
}

/// Answers a packet. If the answer is not taken, why the connection is ended, unless its client is gone.
async fn answer(stream: &mut TcpStream, packet: &[u8], client: IpAddr, shared: &Shared) -> Result<(), Option<Cut>> {
    let request = wire::request(packet);
    shared.counts.request(request.as_ref().ok().map(wire::Request::action));
    let answer = match request {
        Ok(request) => shared.desk.answer(request, client).await,
        Err(why) => {
            shared.desk.grumble(&why, client);
            Err(Code::InvalidRequest)
        }
    };
    let (answer, _leave) = match answer {
        Ok(wire::Answer::Faults(faults)) if faults.len() * FAULT_BYTES > SMALL_BYTES => {
            let leave = timeout(ANSWER_WAIT, leave(&shared.room, faults.len() * FAULT_BYTES)).await;
            leave.map_or((Err(Code::ServerNoMemory), None), |leave| (Ok(wire::Answer::Faults(faults)), leave))
        }
        answer => (answer, None),
    };
    if answer.is_err() {
        shared.counts.refuse();
    }
    let reply = wire::reply(wire::action_number(packet), &answer);
    // In one piece: the second of two would wait for the first to be acknowledged.
    match timeout(ANSWER_WAIT, stream.write_all(&reply)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "a client was gone before its answer");
            Err(None)
        }
        Err(_elapsed) => Err(Some(Cut::Unread)),
    }
}

/// Leave for `bytes` if they are many; it waits until others have given theirs back.
async fn leave(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    if bytes <= SMALL_BYTES {
        return None;
    }
    let bytes = u32::try_from(bytes).expect("is bounded far below");
    Some(Arc::clone(room).acquire_many_owned(bytes).await.expect("is never closed"))
}

/// The next packet behind its length; nothing at the end. `buffer` has what came before and keeps what comes behind.
async fn next(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    room: &Arc<Semaphore>,
) -> Result<Option<Packet>, NoPacket> {
    if buffer.is_empty() {
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    timeout(PACKET_WAIT, rest(stream, buffer, room)).await.unwrap_or(Err(NoPacket::Half)).map(Some)
}

/// What is begun in `buffer`.
async fn rest(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, room: &Arc<Semaphore>) -> Result<Packet, NoPacket> {
    let mut allowed = None;
    loop {
        if let Some(bytes) = wire::packet_bytes(buffer)? {
            if buffer.len() >= bytes {
                let packet = buffer.split_to(bytes).split_off(LENGTH_BYTES).freeze();
                return Ok((packet, allowed));
            }
            if allowed.is_none() {
                allowed = leave(room, bytes).await;
            }
        }
        // Memory comes with the bytes, whatever length was promised.
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
