//! The whole screen of a terminal, given back as it was.

use std::io::{self, Read as _, Write as _};
use std::thread;

use rustix::termios::tcgetwinsize;
use tokio::sync::mpsc;

use crate::terminal;

/// Keys that wait to be acted on. Who types faster waits.
const KEYS: usize = 64;

/// Lines of a page, for the keys that turn it.
const PAGE: usize = 20;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Sort,
    Up(usize),
    Down(usize),
}

/// The screen, until this is dropped.
pub(crate) struct Screen {
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    pub(crate) fn enter() -> io::Result<Self> {
        terminal::take_screen()?;
        let (sender, keys) = mpsc::channel(KEYS);
        // It ends with the process: a read of a terminal cannot be taken back.
        thread::spawn(move || {
            let mut reader = Keys::default();
            for byte in io::stdin().lock().bytes() {
                let Ok(byte) = byte else { return };
                if let Some(key) = reader.read(byte)
                    && sender.blocking_send(key).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { keys })
    }

    /// The next key; none if there will be none. Cancel safe.
    pub(crate) async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    /// Shows these lines, each no wider than the screen.
    pub(crate) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        // From the top, each line to its end, and nothing below: so nothing flickers.
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        terminal::restore();
    }
}

/// Bytes of a terminal as keys.
#[derive(Debug, Default)]
struct Keys {
    /// What has come of an escape sequence.
    sequence: Vec<u8>,
}

/// An escape sequence that is longer is none of ours.
const MAX_SEQUENCE: usize = 8;

impl Keys {
    fn read(&mut self, byte: u8) -> Option<Key> {
        match (&self.sequence[..], byte) {
            (_, 0x1b) => {
                self.sequence = vec![byte];
                return None;
            }
            ([], _) => {}
            ([0x1b], b'[' | b'O') => {
                self.sequence.push(byte);
                return None;
            }
            ([0x1b, _, ..], b'0'..=b'9' | b';') if self.sequence.len() < MAX_SEQUENCE => {
                self.sequence.push(byte);
                return None;
            }
            ([0x1b, _, number @ ..], end) => {
                let key = match (number, end) {
                    ([], b'A') => Some(Key::Up(1)),
                    ([], b'B') => Some(Key::Down(1)),
                    ([b'5'], b'~') => Some(Key::Up(PAGE)),
                    ([b'6'], b'~') => Some(Key::Down(PAGE)),
                    _ => None,
                };
                self.sequence.clear();
                return key;
            }
            // Escape, and then another key.
            _ => self.sequence.clear(),
        }
        match byte {
            b'q' | b'Q' | 0x03 | 0x04 => Some(Key::Quit),
            b's' | b'S' => Some(Key::Sort),
            b'k' => Some(Key::Up(1)),
            b'j' => Some(Key::Down(1)),
            b' ' => Some(Key::Down(PAGE)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_and_arrows() {
        let read = |bytes: &[u8]| -> Vec<Key> {
            let mut keys = Keys::default();
            bytes.iter().filter_map(|byte| keys.read(*byte)).collect()
        };
        assert_eq!(read(b"xsq"), [Key::Sort, Key::Quit]);
        assert_eq!(read(b"\x03"), [Key::Quit]);
        assert_eq!(
            read(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"),
            [Key::Up(1), Key::Down(1), Key::Up(PAGE), Key::Down(PAGE)]
        );
        // What is not known is passed over as a whole.
        assert_eq!(read(b"\x1b[1;5Cs\x1b[200~\x1bq"), [Key::Sort, Key::Quit]);
        assert_eq!(read(&[b"\x1b[", &[b'9'; 100][..], b"q"].concat()), [Key::Quit]);
    }
}
