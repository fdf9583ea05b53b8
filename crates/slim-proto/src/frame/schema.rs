//! Whether the parts that a node does not read are well-formed.
//!
//! A receiver whose library cannot decode one message loses its whole link, so a
//! node that forwards what it has not checked lets anybody cut off anybody. These
//! tables say which fields are integers, text, bytes and messages; values and
//! presence are the receiver's business.

use super::FrameError;
use super::scan::{Fields, Span};

/// The fields of a message, by number.
pub(super) type Schema = [(u32, Kind)];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Int,
    Text,
    Bytes,
    Message(&'static Schema),
}

use Kind::{Bytes, Int, Message, Text};

/// Checks the message at `span`, in depth. Unknown fields may be anything.
pub(super) fn check(bytes: &[u8], span: Span, schema: &Schema) -> Result<(), FrameError> {
    let mut fields = Fields::new(bytes, span);
    while let Some(field) = fields.next()? {
        let kind = schema.iter().find(|(number, _)| *number == field.number);
        match kind.map(|(_, kind)| kind) {
            None => {}
            Some(Int) => drop(field.varint()?),
            Some(Bytes) => drop(field.span()?),
            Some(Text) => check_text(bytes, field.span()?)?,
            Some(Message(schema)) => check(bytes, field.span()?, schema)?,
        }
    }
    Ok(())
}

/// Checks that the text at `span` is UTF-8.
pub(super) fn check_text(bytes: &[u8], span: Span) -> Result<(), FrameError> {
    match std::str::from_utf8(span.of(bytes)) {
        Ok(_) => Ok(()),
        Err(_) => Err(FrameError::Malformed("text is not UTF-8")),
    }
}

pub(super) const METADATA_ENTRY: &Schema = &[(1, Text), (2, Text)];

pub(super) const LINK: &Schema = &[(
    1,
    Message(&[
        (1, Text),
        (2, Text),
        (3, Int),
        (4, Bytes),
        (5, Int),
        (6, Text),
        (7, Text),
        (8, Bytes),
    ]),
)];

pub(super) const SUBSCRIPTION_ACK: &Schema = &[(1, Int), (2, Int), (3, Text)];

pub(super) const SESSION_HEADER: &Schema = &[(1, Int), (2, Int), (3, Int), (4, Int)];

pub(super) const CONTENT: &Schema =
    &[(1, Message(&[(1, Text), (2, Bytes)])), (2, Message(COMMAND))];

const COMMAND: &Schema = &[
    (1, Message(EMPTY)),
    (2, Message(EMPTY)),
    (3, Message(JOIN_REQUEST)),
    (4, Message(&[(1, Bytes), (2, Message(PARTICIPANT))])),
    (5, Message(EMPTY)),
    (6, Message(EMPTY)),
    (7, Message(GROUP_UPDATE)),
    (8, Message(&[(1, Message(PARTICIPANT)), (2, Message(MLS))])),
    (9, Message(&[(1, Message(NAME))])),
    (10, Message(&[(1, Message(NAME)), (2, Bytes)])),
    (11, Message(EMPTY)),
    (12, Message(EMPTY)),
    (13, Message(&[(1, Int)])),
    (14, Message(&[(1, Message(NAME)), (2, Int), (3, Int)])),
    (15, Message(&[(1, Message(NAME)), (2, Bytes)])),
    (16, Message(&[(1, Int), (2, Bytes)])),
];

const EMPTY: &Schema = &[];

const JOIN_REQUEST: &Schema = &[
    (1, Message(&[(1, Int), (2, Int)])),
    (2, Message(NAME)),
    (3, Message(NAME)),
    (4, Message(&[(1, Int)])),
];

const GROUP_UPDATE: &Schema =
    &[(1, Int), (2, Message(PARTICIPANT)), (3, Message(PARTICIPANT)), (4, Message(MLS))];

const PARTICIPANT: &Schema = &[(1, Message(NAME)), (2, Message(&[(1, Int), (2, Int)])), (3, Int)];

const MLS: &Schema = &[(1, Int), (2, Bytes)];

const NAME: &Schema = &[
    (1, Message(&[(1, Int), (2, Int), (3, Int), (4, Message(&[(1, Int), (2, Int)]))])),
    (2, Message(&[(1, Text), (2, Text), (3, Text)])),
];
