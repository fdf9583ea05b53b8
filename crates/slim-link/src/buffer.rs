//! Memory that pieces are written into, and that is used again.
//!
//! A busy node fills and sends thousands of pieces a second. An allocator gives
//! memory of that size back to the system, which then clears each page of it before
//! it is written again: that cost more than everything else about a piece.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::PIECE_LEN;

/// Buffers that are kept for later by the whole process: 4 MiB. More are freed.
const SPARES: usize = 64;

/// Shorter ones are left to the allocator, so that a link with little to send takes
/// little memory.
const MIN_LEN: usize = PIECE_LEN / 4;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// What is written into before it is sent. Empty ones take no memory.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one with room for at least as many bytes.
    pub(crate) fn with_room(len: usize) -> Self {
        if !(MIN_LEN..=PIECE_LEN).contains(&len) {
            return Self(Vec::with_capacity(len));
        }
        let spare = spares().pop();
        Self(spare.unwrap_or_else(|| Vec::with_capacity(PIECE_LEN)))
    }

    /// What was written. The memory is used again when the last clone is dropped.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.0.capacity() {
            PIECE_LEN => Bytes::from_owner(self),
            _ => mem::take(&mut self.0).into(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() == PIECE_LEN {
            let mut buffer = mem::take(&mut self.0);
            buffer.clear();
            let mut spares = spares();
            if spares.len() < SPARES {
                spares.push(buffer);
            }
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// Nothing panics while it holds the lock.
fn spares() -> MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize) -> Bytes {
        let mut buffer = Buffer::with_room(len);
        buffer.resize(len, 7);
        buffer.into_bytes()
    }

    #[test]
    fn what_was_written_is_sent_whatever_its_length() {
        for len in [0, 1, MIN_LEN - 1, MIN_LEN, PIECE_LEN, PIECE_LEN + 1] {
            assert_eq!(filled(len), vec![7; len]);
        }
    }

    #[test]
    fn a_buffer_is_empty_when_it_is_used_again() {
        for _ in 0..3 {
            drop(filled(PIECE_LEN));
            assert_eq!(filled(MIN_LEN), vec![7; MIN_LEN]);
        }
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let many: Vec<Bytes> = (0..2 * SPARES).map(|_| filled(PIECE_LEN)).collect();
        drop(many);
        assert!(spares().len() <= SPARES);
    }

    #[test]
    fn little_is_no_reason_to_take_a_whole_buffer() {
        assert!(Buffer::with_room(MIN_LEN - 1).capacity() < MIN_LEN * 2);
    }
}
