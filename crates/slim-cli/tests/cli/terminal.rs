//! The same on a terminal.
