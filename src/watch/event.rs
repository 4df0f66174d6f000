//! What the server sends to the page.

use serde::Serialize;

use crate::run::printable::printable;

/// A server-sent event: its type, and its data as one line of JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent {
    pub name: &'static str,
    pub data: String,
}

/// Reads from the disk what the page does not know yet; called again and again.
pub trait WatchFeed: Send {
    /// Adds what has changed since the last call to `events`; on the first call, everything.
    ///
    /// # Errors
    /// A file that cannot be read. The next call may succeed.
    fn news(&mut self, events: &mut Vec<WatchEvent>) -> anyhow::Result<()>;
}

impl WatchEvent {
    pub fn new(name: &'static str, data: &impl Serialize) -> Self {
        let json = serde_json::to_string(data).expect("the data has keys that are strings");
        Self { name, data: json }
    }

    /// An error, which the page shows until the next event of this kind; an empty text removes it.
    pub fn problem(text: &str) -> Self {
        Self::new("problem", &printable(text))
    }

    /// The bytes on the wire. JSON has no line breaks, so one `data:` line is enough.
    pub fn frame(&self) -> String {
        format!("event: {}\ndata: {}\n\n", self.name, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_line_breaks_stays_in_one_data_line() {
        let event = WatchEvent::problem("a\n\nevent: run\r\ndata: {}\u{1b}[31m");
        assert_eq!(event.frame().matches('\n').count(), 3, "{}", event.frame());
        assert!(!event.frame().contains('\u{1b}') && !event.frame().contains('\r'));
    }
}
