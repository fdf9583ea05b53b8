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

    fn skip(&mut self, len: usize) -> Result<Span, FrameError> {
        if len > self.bytes.len() - self.at {
            return Err(FrameError::Malformed("truncated field"));
        }
        let start = self.at;
        self.at += len;
        Ok(Span::new(start, self.at))
    }

    fn varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(FrameError::Malformed("truncated integer"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if shift == 63 && byte > 1 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(FrameError::Malformed("integer out of range"))
    }
}

/// Appends an integer as Protobuf writes it.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
