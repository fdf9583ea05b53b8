//! What a measuring message says: whose it is, which one, and when it was sent.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};

/// Payloads that begin otherwise are not ours.
const MAGIC: [u8; 4] = *b"slb1";

/// The beginning of a payload, little-endian; the rest is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// One measurement, drawn at random.
    pub(crate) run: u32,
    /// Who of its publishers.
    pub(crate) publisher: u16,
    /// How many they are.
    pub(crate) publishers: u16,
    /// Counts from 0; at the end, how many there were.
    pub(crate) number: u64,
    /// When it was sent, see [`now`].
    pub(crate) sent_at: u64,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of many.
    Data,
    /// The last of this publisher, and this run; another size follows.
    End,
    /// The last of all.
    Over,
}

impl Stamp {
    /// Bytes of the stamp.
    pub(crate) const LEN: usize = 32;

    /// One of many in a session, which knows whose it is.
    pub(crate) fn of(number: u64, sent_at: u64) -> Self {
        Self { run: 0, publisher: 0, publishers: 1, number, sent_at, kind: Kind::Data }
    }

    /// A payload of this length, which is at least [`Self::LEN`].
    pub(crate) fn payload(&self, len: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(len.max(Self::LEN));
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(self.run);
        bytes.put_u16_le(self.publisher);
        bytes.put_u16_le(self.publishers);
        bytes.put_u64_le(self.number);
        bytes.put_u64_le(self.sent_at);
        bytes.put_u8(match self.kind {
            Kind::Data => 0,
            Kind::End => 1,
            Kind::Over => 2,
        });
        bytes.resize(len.max(Self::LEN), 0x5A);
        bytes.freeze()
    }

    /// Reads the beginning of a payload. `None`: not one of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (run, rest) = rest.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (publishers, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sent_at, rest) = rest.split_first_chunk()?;
        let kind = match rest.first()? {
            0 => Kind::Data,
            1 => Kind::End,
            2 => Kind::Over,
            _ => return None,
        };
        Some(Self {
            run: u32::from_le_bytes(*run),
            publisher: u16::from_le_bytes(*publisher),
            publishers: u16::from_le_bytes(*publishers),
            number: u64::from_le_bytes(*number),
            sent_at: u64::from_le_bytes(*sent_at),
            kind,
        })
    }
}

/// Nanoseconds since the Unix epoch, steady within a process: it follows the wall
/// clock as it was at the first call.
pub(crate) fn now() -> u64 {
    static ORIGIN: OnceLock<(Instant, u64)> = OnceLock::new();
    let (origin, unix) = ORIGIN.get_or_init(|| {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX))
    });
    unix.saturating_add(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_as_long_as_asked_for_and_tells_its_stamp() {
        for (len, kind) in [(Stamp::LEN, Kind::Data), (512, Kind::End), (4096, Kind::Over)] {
            let stamp = Stamp {
                run: 7,
                publisher: 2,
                publishers: 3,
                number: u64::MAX - 1,
                sent_at: now(),
                kind,
            };
            let payload = stamp.payload(len);
            assert_eq!(payload.len(), len);
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
    }

    #[test]
    fn what_others_say_is_none_of_ours() {
        assert_eq!(Stamp::read(b""), None);
        assert_eq!(Stamp::read(b"hello, this is a message of somebody else"), None);
        assert_eq!(Stamp::read(b"slb1 too short"), None);
        let stamp =
            Stamp { run: 0, publisher: 0, publishers: 1, number: 0, sent_at: 0, kind: Kind::Data };
        let mut payload = stamp.payload(Stamp::LEN).to_vec();
        payload[28] = 9;
        assert_eq!(Stamp::read(&payload), None);
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(now() >= before);
    }
}
