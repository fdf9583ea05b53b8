//! The prompt on a terminal, with line editing and a history.
//!
//! What others say appears above the prompt and leaves a half-typed line alone.
//! The history is kept in memory only: its lines are a conversation, and the next
//! process is another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Editor, Helper};
use tokio::sync::mpsc::Sender;

use crate::input::{self, Action};
use crate::output::Output;
use crate::signals::Stop;
use crate::source::Input;

/// Lines that arrow-up finds again.
const HISTORY: usize = 500;

/// How long an interrupted prompt has to end before it is interrupted again, which
/// takes a signal that came in the moment between two lines.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// How many times it is interrupted.
const INTERRUPTS: usize = 20;

/// A prompt that is on the screen.
#[derive(Debug)]
pub(crate) struct Prompt {
    stop: Stop,
    closing: Arc<AtomicBool>,
    /// Whether the row that the prompt left is empty, once it has ended.
    ended: Receiver<bool>,
}

impl Prompt {
    /// Shows the prompt and sends what is typed.
    ///
    /// # Errors
    /// If the terminal cannot do it.
    pub(crate) fn open(sender: Sender<Input>, output: &Output, stop: Stop) -> io::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(io::Error::other)?
            .history_ignore_space(true)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(io::Error::other)?;
        editor.set_helper(Some(ColouredPrompt));
        let printer = editor.create_external_printer().map_err(io::Error::other)?;
        output.write_above(printer);
        let closing = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let mut reader = Reader {
            editor,
            prompt: output.prompt(),
            sender: Some(sender),
            stop: stop.clone(),
            closing: closing.clone(),
        };
        thread::spawn(move || {
            reader.run();
            let empty_row = reader.sender.is_none();
            drop(reader);
            // Nobody may be waiting: the process ends, too.
            end.send(empty_row).ok();
        });
        Ok(Self { stop, closing, ended })
    }

    /// Takes the prompt off the screen once all that was told stands above it.
    pub(crate) fn close(self, output: &Output) {
        output.settle();
        self.closing.store(true, Ordering::SeqCst);
        for _ in 0..INTERRUPTS {
            if let Ok(empty_row) = self.ended.try_recv() {
                return output.write_below(empty_row);
            }
            self.stop.interrupt_prompt();
            if let Ok(empty_row) = self.ended.recv_timeout(INTERRUPT_INTERVAL) {
                return output.write_below(empty_row);
            }
        }
        output.write_below(false);
    }
}

/// Without a helper, even one that does nothing, the prompt has no colours.
#[derive(Debug)]
struct ColouredPrompt;

impl Helper for ColouredPrompt {}
impl Completer for ColouredPrompt {
    type Candidate = String;
}
impl Hinter for ColouredPrompt {
    type Hint = String;
}
impl Highlighter for ColouredPrompt {}
impl Validator for ColouredPrompt {}

/// The thread that waits for keys.
struct Reader {
    editor: Editor<ColouredPrompt, MemHistory>,
    /// Plain and coloured.
    prompt: (String, String),
    /// `None` once the person has left: what is typed then goes nowhere, but the
    /// lines of others still need somebody to write them above.
    sender: Option<Sender<Input>>,
    stop: Stop,
    closing: Arc<AtomicBool>,
}

impl Reader {
    fn run(&mut self) {
        while !self.closing.load(Ordering::SeqCst) {
            let prompt = match self.sender {
                Some(_) => self.prompt.clone(),
                None => Default::default(),
            };
            match self.editor.readline(&prompt) {
                Ok(text) => self.take(&text),
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {
                    if !self.stop.take_own() {
                        self.sender = None;
                        self.stop.request();
                    }
                }
                Err(_) if self.sender.is_none() => return,
                Err(_) => self.sender = None,
            }
        }
    }

    /// Sends each line of what was typed or pasted.
    fn take(&mut self, text: &str) {
        if text.is_empty() || self.sender.is_none() {
            return;
        }
        // A history that is full forgets its oldest line; there is no other error.
        self.editor.add_history_entry(text).ok();
        for line in text.lines() {
            let line = Bytes::copy_from_slice(line.as_bytes());
            let leaves = input::action(line.clone()) == Action::Leave;
            if let Some(sender) = &self.sender {
                // The queue is full only if hundreds of lines were pasted.
                if sender.try_send(Input::Line(line)).is_err() {
                    tracing::warn!("too many lines at once, one was dropped");
                }
            }
            if leaves {
                self.sender = None;
            }
        }
    }
}
