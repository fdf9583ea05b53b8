//! The little of gRPC that a link needs: one method, five bytes in front of each
//! message, a status at the end.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use slim_proto::MAX_MESSAGE_LEN;

use crate::{CloseReason, LinkEnd};

/// The only method.
pub(crate) const PATH: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The status that says: do not come back.
pub(crate) const PERMISSION_DENIED: u16 = 7;

/// The status that says: come back.
pub(crate) const UNAVAILABLE: u16 = 14;

/// The status that says: show who you are.
pub(crate) const UNAUTHENTICATED: u16 = 16;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Bytes of the peer's status text that are kept.
const MAX_STATUS_TEXT: usize = 200;

/// Longest first message, in bytes. With all keys it takes less than 3 KiB; whoever
/// has not negotiated yet is given no more memory than this.
pub(crate) const MAX_NEGOTIATION_LEN: usize = 16 * 1024;

/// Bytes in front of each message: a flag for compression, then the length.
pub(crate) const PREFIX_LEN: usize = 5;

/// The bytes in front of an uncompressed message. No message here is longer than
/// [`MAX_MESSAGE_LEN`].
pub(crate) fn prefix(len: usize) -> [u8; PREFIX_LEN] {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [0, a, b, c, d]
}

/// Headers that begin a response.
pub(crate) fn response_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, CONTENT_TYPE)])
}

/// The whole answer to any other method.
pub(crate) fn unimplemented() -> HeaderMap {
    trailers_only(12, None)
}

/// The whole answer to somebody who may not open a link.
pub(crate) fn unauthenticated(reason: &str) -> HeaderMap {
    trailers_only(UNAUTHENTICATED, status_text(reason))
}

fn trailers_only(status: u16, text: Option<HeaderValue>) -> HeaderMap {
    let mut headers = response_headers();
    headers.insert(STATUS, status.into());
    if let Some(text) = text {
        headers.insert(MESSAGE, text);
    }
    headers
}

/// Trailers that end a stream, with this text instead of the usual one.
pub(crate) fn trailers(reason: CloseReason, text: Option<HeaderValue>) -> HeaderMap {
    let (status, usual) = match reason {
        CloseReason::Done => ("0", None),
        CloseReason::TooSlow => ("14", Some("reads too slowly")),
        CloseReason::Refused => ("7", Some("not wanted here")),
        CloseReason::NotFound => ("5", Some("no such service")),
    };
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(STATUS, HeaderValue::from_static(status));
    if let Some(text) = text.or_else(|| usual.map(HeaderValue::from_static)) {
        trailers.insert(MESSAGE, text);
    }
    trailers
}

/// A text as a status has it: what is not printable ASCII, and `%`, is percent-encoded.
pub(crate) fn status_text(text: &str) -> Option<HeaderValue> {
    let encoded = text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    });
    HeaderValue::try_from(encoded).ok()
}

/// gRPC status in the headers or trailers of a response, with its text.
pub(crate) fn status(headers: &HeaderMap) -> Option<(u16, String)> {
    let code = headers.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let text = headers.get(MESSAGE).map(|text| peer_text(text.as_bytes()));
    Some((code, text.unwrap_or_default()))
}

/// What is kept of a peer's text.
pub(crate) fn peer_text(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_STATUS_TEXT)]).into_owned()
}

/// Why a stream with these trailers has ended.
pub(crate) fn end_of(trailers: &HeaderMap) -> LinkEnd {
    match status(trailers) {
        None | Some((0, _)) => LinkEnd::Ended,
        Some((PERMISSION_DENIED, message)) => LinkEnd::PermissionDenied(message),
        Some((code, message)) => LinkEnd::Status { code, message },
    }
}

/// Cuts a body into messages. A message that lies within one chunk is not copied.
#[derive(Debug)]
pub(crate) struct Deframer {
    limit: usize,
    /// Not looked at yet.
    chunk: Bytes,
    /// The beginning of a message that continues in the next chunk, with prefix.
    partial: BytesMut,
}

impl Deframer {
    /// Takes the first message only up to [`MAX_NEGOTIATION_LEN`].
    pub(crate) fn new() -> Self {
        Self { limit: MAX_NEGOTIATION_LEN, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// From now on messages may be as long as any.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = MAX_MESSAGE_LEN;
    }

    /// Takes the next chunk of the body, once [`Self::next`] has returned none.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the last chunk is used up");
        self.chunk = chunk;
    }

    /// Whether the body may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_empty()
    }

    /// The next whole message, none if the rest of it has not come yet.
    ///
    /// # Errors
    /// If what comes is compressed or too long. There is no way on from here.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, LinkEnd> {
        if self.partial.is_empty()
            && let Some(len) = self.len_in(&self.chunk)?
            && self.chunk.len() >= PREFIX_LEN + len
        {
            self.chunk.advance(PREFIX_LEN);
            return Ok(Some(self.chunk.split_to(len)));
        }
        // Memory grows with what has come, not with what is announced.
        self.take_up_to(PREFIX_LEN);
        let Some(len) = self.len_in(&self.partial)? else {
            return Ok(None);
        };
        self.take_up_to(PREFIX_LEN + len);
        if self.partial.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        let mut message = self.partial.split().freeze();
        message.advance(PREFIX_LEN);
        Ok(Some(message))
    }

    /// Moves bytes from the chunk until `partial` has this length.
    fn take_up_to(&mut self, len: usize) {
        let missing = len.saturating_sub(self.partial.len());
        let taken = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&taken);
    }

    /// Length of the message that begins here, if its prefix is complete.
    fn len_in(&self, bytes: &[u8]) -> Result<Option<usize>, LinkEnd> {
        let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(LinkEnd::BadFraming);
        }
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.limit {
            return Err(LinkEnd::TooLarge(len));
        }
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let frame = |message: &Vec<u8>| [&prefix(message.len())[..], message].concat();
        messages.iter().flat_map(frame).collect()
    }

    /// The messages in these chunks, and whether nothing is left over.
    fn cut(chunks: impl IntoIterator<Item = Vec<u8>>) -> Result<(Vec<Bytes>, bool), LinkEnd> {
        let mut deframer = Deframer::new();
        let mut messages = Vec::new();
        for chunk in chunks {
            deframer.push(chunk.into());
            while let Some(message) = deframer.next()? {
                messages.push(message);
            }
        }
        Ok((messages, deframer.is_between_messages()))
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_the_chunks(
            messages in collection::vec(collection::vec(any::<u8>(), 0..30), 0..6),
            sizes in collection::vec(0..20_usize, 0..40),
            rest in 0..5_usize,
        ) {
            let mut bytes = framed(&messages);
            // The beginning of one more.
            bytes.extend_from_slice(&[0, 0, 0, 0][..rest.min(4)]);
            let mut chunks = Vec::new();
            for size in sizes {
                chunks.push(bytes.drain(..size.min(bytes.len())).collect());
            }
            chunks.push(bytes);
            let (cut, complete) = cut(chunks).unwrap();
            prop_assert_eq!(cut, messages);
            prop_assert_eq!(complete, rest == 0);
        }
    }

    #[test]
    fn one_byte_at_a_time_will_do() {
        let messages = [b"first".to_vec(), Vec::new(), vec![7; 1000]];
        let bytes = framed(&messages);
        let (cut, complete) = cut(bytes.into_iter().map(|byte| vec![byte])).unwrap();
        assert_eq!(cut, messages);
        assert!(complete);
    }

    #[test]
    fn what_is_whole_is_not_copied() {
        let chunk = Bytes::from(framed(&[vec![1; 10], vec![2; 20]]));
        let mut deframer = Deframer::new();
        deframer.push(chunk.clone());
        for _ in 0..2 {
            let message = deframer.next().unwrap().unwrap();
            assert!(chunk.as_ptr_range().contains(&message.as_ptr()));
        }
    }

    #[test]
    fn limits_are_checked_before_anything_is_kept() {
        let announced = |len: usize| prefix(len).to_vec();
        let too_large = LinkEnd::TooLarge(MAX_NEGOTIATION_LEN + 1);
        assert_eq!(cut([announced(MAX_NEGOTIATION_LEN + 1)]), Err(too_large));
        assert_eq!(cut([announced(MAX_NEGOTIATION_LEN)]), Ok((vec![], false)));

        let mut deframer = Deframer::new();
        deframer.lift_limit();
        deframer.push(announced(MAX_MESSAGE_LEN).into());
        assert_eq!(deframer.next(), Ok(None));
        assert!(deframer.partial.capacity() < 1000);
        let mut deframer = Deframer::new();
        deframer.lift_limit();
        deframer.push(announced(MAX_MESSAGE_LEN + 1).into());
        assert_eq!(deframer.next(), Err(LinkEnd::TooLarge(MAX_MESSAGE_LEN + 1)));
    }

    #[test]
    fn compression_was_never_agreed_on() {
        assert_eq!(cut([vec![1, 0, 0, 0, 0]]), Err(LinkEnd::BadFraming));
    }

    #[test]
    fn a_status_says_how_a_stream_ended() {
        let check = |status: &'static str, message: Option<&'static str>, expected| {
            let mut trailers = HeaderMap::new();
            trailers.insert(STATUS, HeaderValue::from_static(status));
            if let Some(message) = message {
                trailers.insert(MESSAGE, HeaderValue::from_static(message));
            }
            assert_eq!(end_of(&trailers), expected);
        };
        check("0", None, LinkEnd::Ended);
        check("0", Some("fine"), LinkEnd::Ended);
        check("7", Some("go"), LinkEnd::PermissionDenied("go".to_owned()));
        check("14", None, LinkEnd::Status { code: 14, message: String::new() });
        assert_eq!(end_of(&HeaderMap::new()), LinkEnd::Ended);
        for reason in [CloseReason::Done, CloseReason::TooSlow, CloseReason::Refused] {
            let ended = end_of(&trailers(reason, None)) == LinkEnd::Ended;
            assert_eq!(ended, reason == CloseReason::Done);
        }
        let refused = trailers(CloseReason::Refused, status_text("100 % \"n\u{f6}\"\n"));
        let text = "100 %25 \"n%C3%B6\"%0A".to_owned();
        assert_eq!(end_of(&refused), LinkEnd::PermissionDenied(text));
    }
}
