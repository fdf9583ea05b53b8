//! Walks over encoded Protobuf without copying and without trusting a length.

use super::FrameError;

/// A range of the frame. Frames are shorter than [`crate::MAX_MESSAGE_LEN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The bytes of this span, which was made for `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// One field, key included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// From the first byte of the key to the end of the value.
    pub(super) whole: Span,
    pub(super) value: Value,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Varint(u64),
    Len(Span),
    /// Four or eight bytes; no known field has this type.
    Fixed,
}

impl Field {
    /// The value of a field that has to be an integer.
    pub(super) fn varint(&self) -> Result<u64, FrameError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Len(_) | Value::Fixed => Err(FrameError::Malformed("wrong wire type")),
        }
    }

    /// The range of a field that has to be bytes, a string or a message.
    pub(super) fn span(&self) -> Result<Span, FrameError> {
        match self.value {
            Value::Len(span) => Ok(span),
            Value::Varint(_) | Value::Fixed => Err(FrameError::Malformed("wrong wire type")),
        }
    }
}

/// Reads the fields of one message of the frame, in the order they come.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The frame up to the end of this message.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message at `span`, which was made for `bytes`.
    pub(super) fn new(bytes: &'a [u8], span: Span) -> Self {
        Self { bytes: &bytes[..span.end as usize], at: span.start as usize }
    }

    /// The fields of the whole frame.
    pub(super) fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field, `None` at the end.
    // A frame has some forty fields; called for each, this is half of reading it.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<Field>, FrameError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let key = u32::try_from(self.varint()?)
            .map_err(|_| FrameError::Malformed("field key out of range"))?;
        if key >> 3 == 0 {
            return Err(FrameError::Malformed("field number 0"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Len(self.skip(len)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            // Groups are history; nobody sends them.
            _ => return Err(FrameError::Malformed("unknown wire type")),
        };
        Ok(Some(Field { number: key >> 3, whole: Span::new(start, self.at), value }))
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Result<Span, FrameError> {
        if len > self.bytes.len() - self.at {
            return Err(FrameError::Malformed("truncated field"));
        }
        let start = self.at;
        self.at += len;
        Ok(Span::new(start, self.at))
    }

    /// Nearly all keys, lengths and numbers are one byte long.
    #[inline]
    fn varint(&mut self) -> Result<u64, FrameError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    /// Nearly all of the others are hashes, nine or ten bytes long: eight at once.
    fn long_varint(&mut self) -> Result<u64, FrameError> {
        let rest = &self.bytes[self.at..];
        let (mut value, mut len) = (0, 0);
        if let Some(&first) = rest.first_chunk::<8>() {
            let eight = u64::from_le_bytes(first);
            if eight & CONTINUED == CONTINUED {
                (value, len) = (joined(eight), 8);
            }
        }
        for (index, &byte) in rest.iter().enumerate().take(MAX_VARINT_LEN).skip(len) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == MAX_VARINT_LEN - 1 && byte > 1 {
                    break;
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(FrameError::Malformed(if rest.len() < MAX_VARINT_LEN {
            "truncated integer"
        } else {
            "integer out of range"
        }))
    }
}

/// Bytes of the longest integer.
const MAX_VARINT_LEN: usize = 10;

/// The bits of eight bytes that say that another one follows.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// The lower seven bits of eight bytes, joined: pairs, then pairs of these, then both
/// halves.
fn joined(eight: u64) -> u64 {
    let pairs = (eight & 0x007f_007f_007f_007f) | (eight & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4
}

/// Appends an integer as Protobuf writes it.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<(u64, usize), FrameError> {
        let mut fields = Fields::whole(bytes);
        fields.varint().map(|value| (value, fields.at))
    }

    proptest! {
        #[test]
        fn integers_are_read_as_they_are_written(value: u64, bits in 0..64_u32) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let len = bytes.len();
            prop_assert_eq!(read(&bytes), Ok((value, len)));
            bytes.extend_from_slice(&[0xff; 12]);
            prop_assert_eq!(read(&bytes), Ok((value, len)));
            prop_assert!(read(&bytes[..len - 1]).is_err());
        }
    }

    #[test]
    fn integers_of_more_than_64_bits_are_none() {
        let mut bytes = [0xff; 10];
        for last in [2, 0x7f, 0x80, 0xff] {
            bytes[9] = last;
            assert_eq!(read(&bytes), Err(FrameError::Malformed("integer out of range")));
        }
        bytes[9] = 1;
        assert_eq!(read(&bytes), Ok((u64::MAX, 10)));
    }

    #[test]
    fn longer_than_needed_is_allowed() {
        assert_eq!(read(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]), Ok((1, 9)));
        assert_eq!(read(&[0x81, 0]), Ok((1, 2)));
    }
}
