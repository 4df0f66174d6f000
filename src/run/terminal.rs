//! The terminal: its width, and how a status line is drawn on it.

use std::io::{self, Write, stderr};

use comfy_table::Table;
use indicatif::{ProgressDrawTarget, TermLike};

/// Columns of standard output if it is a terminal.
pub fn stdout_width() -> Option<usize> {
    Table::new().width().map(usize::from)
}

/// Columns of standard error if it is a terminal.
pub fn stderr_width() -> Option<usize> {
    Table::new().use_stderr().width().map(usize::from)
}

/// Where a status line of one line is drawn: on standard error.
///
/// indicatif fills a line with spaces. The `^C` of an interrupt would then go to the next line, and only that one would be cleared,
/// so the status line would stay on the screen. Here it ends after its text, with room for `^C`.
pub fn status_line() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(StatusLine), 20)
}

/// Columns for the `^C` of two interrupts, and one in which the cursor is.
const ROOM: usize = 5;
/// The width of a terminal that does not report one.
const USUAL_WIDTH: usize = 80;

#[derive(Debug)]
struct StatusLine;

impl TermLike for StatusLine {
    fn width(&self) -> u16 {
        stderr_width().unwrap_or(USUAL_WIDTH).saturating_sub(ROOM).max(1) as u16
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.moved(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.moved(lines, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.moved(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.moved(columns, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(stderr(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(stderr(), "{}", text.trim_end_matches(' '))
    }

    fn clear_line(&self) -> io::Result<()> {
        write!(stderr(), "\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        stderr().flush()
    }
}

impl StatusLine {
    fn moved(&self, count: usize, direction: char) -> io::Result<()> {
        if count > 0 { write!(stderr(), "\x1b[{count}{direction}") } else { Ok(()) }
    }
}
