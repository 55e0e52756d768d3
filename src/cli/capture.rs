//! Datagrams out of files: captures (pcap, pcapng), raw bytes, and bytes as hexadecimal text.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::pcapng::Block;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// What a capture begins with: pcap of either byte order, with micro- and nanoseconds, and pcapng.
const MAGIC: [[u8; 4]; 5] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0x0a, 0x0d, 0x0d, 0x0a],
];
/// The largest block of a capture: a packet of 256 KiB, and what is said of it.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Where a source is not known, its port is this one.
const PORT_UNKNOWN: u16 = 0;

/// A datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Captured {
    pub(super) from: SocketAddr,
    /// The port it was sent to, if that is known.
    pub(super) to_port: Option<u16>,
    pub(super) bytes: Vec<u8>,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Capture {
    pub(super) datagrams: Vec<Captured>,
    /// How many packets are no UDP, or not of IP.
    pub(super) others: u64,
    /// How many packets are parts of larger ones.
    pub(super) fragments: u64,
    /// Why it ends before its end.
    pub(super) cut: Option<String>,
}

/// The datagrams in `bytes`; those that do not say where they came from came from `source`.
pub(super) fn read(bytes: &[u8], source: IpAddr) -> Result<Capture, String> {
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if MAGIC.iter().any(|magic| bytes.starts_with(magic)) {
        return packets(bytes);
    }
    let datagrams = match std::str::from_utf8(bytes).ok().and_then(hex) {
        Some(datagrams) => datagrams,
        None if bytes.starts_with(&[0x30]) => vec![bytes.to_owned()],
        None => return Err("is no capture (pcap, pcapng), no hexadecimal text and no SNMP message".to_owned()),
    };
    let from = SocketAddr::new(source, PORT_UNKNOWN);
    let datagrams = datagrams.into_iter().map(|bytes| Captured { from, to_port: None, bytes }).collect();
    Ok(Capture { datagrams, ..Capture::default() })
}

/// Bytes as text: pairs of digits, with spaces, colons and `0x` as people like. An empty line ends a datagram; if every line is a
/// whole message, each is one. Lines that begin with # are for people.
fn hex(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut datagrams = Vec::new();
    let mut paragraph: Vec<Vec<u8>> = Vec::new();
    for line in text.lines().chain([""]).map(str::trim).filter(|line| !line.starts_with('#')) {
        if !line.is_empty() {
            paragraph.push(hex_line(line)?);
            continue;
        }
        let lines = std::mem::take(&mut paragraph);
        if lines.iter().all(|line| is_whole(line)) {
            datagrams.extend(lines);
        } else {
            datagrams.push(lines.concat());
        }
    }
    Some(datagrams)
}

fn hex_line(line: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = line
        .split(|character: char| character.is_whitespace() || ":,-".contains(character))
        .flat_map(|word| word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word).bytes())
        .map(|digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect()
}

/// Whether this is a SEQUENCE of BER, from its first byte to its last.
fn is_whole(bytes: &[u8]) -> bool {
    let length = match bytes {
        [0x30, short @ 0..=0x7f, rest @ ..] => (usize::from(*short) == rest.len()).then_some(()),
        [0x30, 0x81, one, rest @ ..] => (usize::from(*one) == rest.len()).then_some(()),
        [0x30, 0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low) == rest.len()).then_some(()),
        _ => None,
    };
    length.is_some()
}

fn packets(bytes: &[u8]) -> Result<Capture, String> {
    let mut reader =
        create_reader(BLOCK_BYTES_MAX, Cursor::new(bytes)).map_err(|error| format!("cannot be read: {}", said(&error)))?;
    let mut capture = Capture::default();
    let mut links: Vec<Linktype> = Vec::new();
    loop {
        let before = reader.data().len();
        let reason = match reader.next() {
            Ok((length, block)) => {
                capture.take(&block, &mut links);
                reader.consume(length);
                continue;
            }
            Err(PcapError::Eof) => return Ok(capture),
            Err(PcapError::Incomplete(_)) => None,
            Err(error) => Some(said(&error)),
        };
        let is_at_end = reader.reader_exhausted();
        let refilled = if is_at_end { Ok(()) } else { reader.refill().map_err(|error| said(&error)) };
        // A buffer that is full takes nothing more, and says nothing about that.
        let has_more = reader.data().len() > before || reader.reader_exhausted();
        let reason = match (reason, refilled) {
            (None, Ok(())) if !is_at_end && has_more => continue,
            (None, Ok(())) if is_at_end => "it ends in the middle of a packet".to_owned(),
            (None, Ok(())) => said::<()>(&PcapError::BufferTooSmall),
            (Some(reason), _) | (None, Err(reason)) => reason,
        };
        capture.cut = Some(reason);
        return Ok(capture);
    }
}

fn said<I: std::fmt::Debug>(error: &PcapError<I>) -> String {
    match error {
        PcapError::Incomplete(_) | PcapError::UnexpectedEof => "it ends in the middle of a packet".to_owned(),
        PcapError::BufferTooSmall => format!("it has a block of more than {BLOCK_BYTES_MAX} bytes"),
        _ => "it is damaged".to_owned(),
    }
}

impl Capture {
    fn take(&mut self, block: &PcapBlockOwned<'_>, links: &mut Vec<Linktype>) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => *links = vec![header.network],
            PcapBlockOwned::Legacy(block) => self.packet(links.first().copied(), block.data),
            PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                // What is behind the captured bytes fills up the block.
                let captured = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                self.packet(links.get(packet.if_id as usize).copied(), captured);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let captured = packet.data.get(..packet.origlen as usize).unwrap_or(packet.data);
                self.packet(links.first().copied(), captured);
            }
            PcapBlockOwned::NG(_) => {}
        }
    }

    fn packet(&mut self, link: Option<Linktype>, bytes: &[u8]) {
        let ether_type = |at: usize, head: usize| {
            let [high, low] = bytes.get(at..at + 2)?.try_into().ok()?;
            let ether_type = EtherType(u16::from_be_bytes([high, low]));
            Some(LaxSlicedPacket::from_ether_type(ether_type, bytes.get(head..)?))
        };
        let sliced = match link {
            Some(Linktype::ETHERNET) => LaxSlicedPacket::from_ethernet(bytes).ok(),
            // What `tcpdump -i any` writes, older and newer.
            Some(Linktype::LINUX_SLL) => ether_type(14, 16),
            Some(Linktype(276)) => ether_type(0, 20),
            Some(Linktype::NULL | Linktype::LOOP) => bytes.get(4..).and_then(|rest| LaxSlicedPacket::from_ip(rest).ok()),
            Some(Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14)) => LaxSlicedPacket::from_ip(bytes).ok(),
            _ => None,
        };
        let Some(LaxSlicedPacket { net: Some(net), transport, .. }) = sliced else {
            self.others += 1;
            return;
        };
        let (source, is_fragment): (IpAddr, bool) = match &net {
            LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.payload().fragmented),
            LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.payload().fragmented),
            LaxNetSlice::Arp(_) => {
                self.others += 1;
                return;
            }
        };
        match transport {
            Some(TransportSlice::Udp(udp)) => self.datagrams.push(Captured {
                from: SocketAddr::new(source, udp.source_port()),
                to_port: Some(udp.destination_port()),
                bytes: udp.payload().to_owned(),
            }),
            _ if is_fragment => self.fragments += 1,
            _ => self.others += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn bytes(text: &str) -> Vec<Vec<u8>> {
        read(text.as_bytes(), SOURCE).expect("is read").datagrams.into_iter().map(|datagram| datagram.bytes).collect()
    }

    #[test]
    fn hexadecimal_text_is_read_as_people_write_it() {
        let one = vec![vec![0x30, 3, 2, 1, 1]];
        for text in
            ["3003020101", "30 03 02 01 01\n", "30:03:02:01:01", "0x30 0x03 0x02 0x01 0x01", "# a trap\n30 03\n02 01 01\n"]
        {
            assert_eq!(bytes(text), one, "{text:?}");
        }
        assert_eq!(bytes("3003020101\n3003020101\n").len(), 2, "each is whole");
        assert_eq!(bytes("30030201\n01\n\n3003\n020101\n").len(), 2, "an empty line ends one");
        assert!(read(b"hello", SOURCE).is_err() && read(b"", SOURCE).is_err() && read(b"303", SOURCE).is_err());
        let raw = read(&[0x30, 3, 2, 1, 1], SOURCE).expect("is read").datagrams;
        assert_eq!((raw.len(), raw[0].from), (1, SocketAddr::new(SOURCE, 0)));
    }

    /// A capture of one packet by pcap, and the same by pcapng.
    fn files(link: u16, packet: &[u8]) -> [Vec<u8>; 2] {
        let (length, link32) = (u32::try_from(packet.len()).expect("is short"), u32::from(link));
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let pcap = [words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 0xffff, link32, 1, 0, length, length]), packet.to_owned()].concat();
        let filled = [packet, &[0; 3][..(4 - packet.len() % 4) % 4]].concat();
        let block = u32::try_from(filled.len()).expect("is short") + 32;
        let pcapng = [
            words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]),
            words(&[1, 20, link32, 0, 20]),
            words(&[6, block, 0, 0, 0, length, length]),
            filled,
            words(&[block]),
        ];
        [pcap, pcapng.concat()]
    }

    #[test]
    fn captures_of_every_kind_of_link_hold_the_same_datagram() {
        let build = etherparse::PacketBuilder::ipv4([10, 7, 0, 3], [10, 7, 0, 1], 64).udp(40_000, 162);
        let (mut ip, payload) = (Vec::new(), [0x30, 3, 2, 1, 1]);
        build.write(&mut ip, &payload).expect("is built");
        let behind = |head: &[u8]| [head, &ip[..]].concat();
        let ethernet = behind(&[&[1; 12][..], &[8, 0]].concat());
        let vlan = behind(&[&[1; 12][..], &[0x81, 0, 0, 7, 8, 0]].concat());
        let cooked = behind(&[&[0; 14][..], &[8, 0]].concat());
        let cooked_2 = behind(&[&[8, 0][..], &[0; 18]].concat());
        for (link, packet) in
            [(1, ethernet), (1, vlan), (113, cooked), (276, cooked_2), (101, ip.clone()), (0, behind(&[2, 0, 0, 0]))]
        {
            for file in files(link, &packet) {
                let capture = read(&file, SOURCE).expect("is a capture");
                let from = "10.7.0.3:40000".parse().expect("an address");
                assert_eq!(capture.datagrams, [Captured { from, to_port: Some(162), bytes: payload.into() }], "link {link}");
                let cut = read(&file[..file.len() - 2], SOURCE).expect("is a capture");
                assert!(cut.cut.is_some(), "link {link}");
            }
        }
        let arp = [&[1; 12][..], &[8, 6], &[0; 28]].concat();
        assert_eq!(read(&files(1, &arp)[0], SOURCE).expect("is a capture").others, 1);
    }
}
