//! The thread that writes lines, so that neither a slow reader of standard output
//! nor a person searching the prompt's history holds up the session itself.
//!
//! The thread's queue is bounded. When it is full the conversation waits, and with
//! it the session's own queue of events, whose documentation says what happens
//! then; log lines are dropped and counted instead.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustyline::ExternalPrinter;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::text::Text;
use super::{Event, json};
use crate::failure::Failure;

/// Lines that wait to be written: what a person can leave behind for a moment,
/// and not much memory.
const QUEUE: usize = 1024;

/// How long a process that ends at once waits for its reader.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Up one row and down again: shows nothing. A prompt takes one line after the
/// other, so when it has taken this one, it has shown all before it.
const BARRIER: &str = "\x1b[1A\n";

/// To the start of the row, and clear it.
const CLEAR_ROW: &str = "\r\x1b[K";

type Printer = Box<dyn ExternalPrinter + Send>;

enum Order {
    /// A line, or several, without the last line end.
    Line(String),
    /// A line that the next one replaces.
    Progress(String),
    /// Write above this prompt from now on.
    Above(Printer),
    /// There is no prompt any more; if true, the row that it left is empty.
    Below(bool),
    /// Tell when everything before is written.
    Settle(Sender<()>),
}

/// Where events go.
pub(crate) struct Output {
    orders: SyncSender<Order>,
    /// `None`: JSON.
    text: Option<Text>,
    /// True once standard output takes no more.
    broken: watch::Receiver<bool>,
    /// Whether a line may be written over.
    updates_in_place: bool,
    dropped_logs: Arc<AtomicU64>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Output {
    /// Starts the thread. `text` makes lines for people, without it they are JSON;
    /// `updates_in_place` is true if standard output is a terminal.
    pub(crate) fn new(text: Option<Text>, updates_in_place: bool) -> Self {
        let (orders, queue) = sync_channel(QUEUE);
        let (breaks, broken) = watch::channel(false);
        thread::spawn(move || Writer { printer: None, progress: false, breaks }.run(&queue));
        Self { orders, text, broken, updates_in_place, dropped_logs: Arc::default() }
    }

    /// Writes an event.
    pub(crate) fn emit(&mut self, event: &Event) {
        let line = match &mut self.text {
            Some(text) => text.line(event),
            None => Some(json::line(event, OffsetDateTime::now_utc())),
        };
        if let Some(line) = line {
            self.order(Order::Line(line));
        }
    }

    /// Writes a line as it is.
    pub(crate) fn print(&self, line: String) {
        self.order(Order::Line(line));
    }

    /// Writes a line that only people need.
    pub(crate) fn note(&self, note: &str) {
        if let Some(text) = &self.text {
            self.order(Order::Line(text.note(note)));
        }
    }

    /// Shows on a terminal what is going on, until the next line replaces it.
    pub(crate) fn progress(&self, progress: &str) {
        if let (Some(text), true) = (&self.text, self.updates_in_place) {
            self.order(Order::Progress(text.note(progress)));
        }
    }

    /// The prompt, plain and coloured.
    pub(crate) fn prompt(&self) -> (String, String) {
        self.text.as_ref().map(Text::prompt).unwrap_or_default()
    }

    /// From now on a prompt is on the screen, and this writes above it.
    pub(crate) fn write_above(&self, printer: impl ExternalPrinter + Send + 'static) {
        self.order(Order::Above(Box::new(printer)));
    }

    /// There is no prompt any more. If the row that it left is empty, it is used.
    pub(crate) fn write_below(&self, empty_row: bool) {
        self.order(Order::Below(empty_row));
    }

    /// Waits until all that was told is written.
    pub(crate) fn settle(&self) {
        let (done, wait) = channel();
        self.order(Order::Settle(done));
        // An error means that the thread is gone, and nothing more is written.
        wait.recv().ok();
    }

    /// Done when standard output takes no more.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let mut broken = self.broken.clone();
        async move {
            // The thread lives as long as the process.
            broken.wait_for(|broken| *broken).await.ok();
        }
    }

    /// Where log lines go while there is a prompt.
    pub(crate) fn log_writer(&self) -> LogWriter {
        LogWriter { orders: self.orders.clone(), dropped: self.dropped_logs.clone() }
    }

    /// What a process that ends at once can still say.
    pub(crate) fn last_words(&self) -> LastWords {
        LastWords { orders: self.orders.clone(), is_json: self.text.is_none() }
    }

    fn order(&self, order: Order) {
        // An error means that the thread is gone, and nothing more is written.
        self.orders.send(order).ok();
    }
}

/// Writes log lines where they do not disturb the prompt. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    orders: SyncSender<Order>,
    /// Lines that found the queue full.
    dropped: Arc<AtomicU64>,
}

impl Write for LogWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut line = String::from_utf8_lossy(buffer).trim_end().to_owned();
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            line = format!("({dropped} log lines before this one were dropped)\n{line}");
        }
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says why the process ends, without waiting long for anybody to hear it.
#[derive(Clone, Debug)]
pub(crate) struct LastWords {
    orders: SyncSender<Order>,
    is_json: bool,
}

impl LastWords {
    /// Tells people and, if they listen, programs.
    pub(crate) fn say(&self, failure: &'static Failure) {
        let (done, said) = channel();
        let this = self.clone();
        thread::spawn(move || {
            if let (true, Some(event)) = (this.is_json, failure.event()) {
                let (written, wait) = channel();
                let line = json::line(&event, OffsetDateTime::now_utc());
                let orders = [Order::Line(line), Order::Settle(written)];
                if orders.into_iter().all(|order| this.orders.try_send(order).is_ok()) {
                    wait.recv_timeout(LAST_WORDS).ok();
                }
            }
            failure.print();
            // The process may be gone already.
            done.send(()).ok();
        });
        said.recv_timeout(LAST_WORDS * 2).ok();
    }
}

struct Writer {
    printer: Option<Printer>,
    /// The current row holds a line that the next one replaces.
    progress: bool,
    breaks: watch::Sender<bool>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            match order {
                Order::Line(line) => self.line(line),
                Order::Progress(line) => {
                    self.progress = true;
                    self.write(&format!("{CLEAR_ROW}{line}"));
                }
                Order::Above(printer) => self.printer = Some(printer),
                Order::Below(empty_row) => {
                    self.printer = None;
                    if empty_row {
                        self.write(&format!("\x1b[1A{CLEAR_ROW}"));
                    }
                }
                Order::Settle(done) => {
                    if let Some(printer) = &mut self.printer {
                        // An error means that there is no prompt, so no queue of its own.
                        printer.print(BARRIER.to_owned()).ok();
                    }
                    self.clear_progress();
                    // Whoever asked may have stopped waiting.
                    done.send(()).ok();
                }
            }
        }
    }

    fn line(&mut self, mut line: String) {
        line.push('\n');
        if let Some(printer) = &mut self.printer
            && printer.print(line.clone()).is_ok()
        {
            return;
        }
        self.clear_progress();
        self.write(&line);
    }

    fn clear_progress(&mut self) {
        if std::mem::take(&mut self.progress) {
            self.write(CLEAR_ROW);
        }
    }

    fn write(&mut self, text: &str) {
        if *self.breaks.borrow() {
            return;
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        if written.is_err() {
            self.breaks.send_replace(true);
        }
    }
}
