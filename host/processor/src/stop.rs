//! Ending a text at stop strings, while it is still being written.

/// Watches a growing text for stop strings and holds back what may become one.
///
/// The text ends before the stop string that is complete first; of several that are complete at the same
/// character, before the longest. How the text is cut into pieces does not matter.
///
/// ```
/// let mut stop = msao_processor::StopStrings::new(["\n\n", "END"]);
/// assert_eq!(stop.push("one\n").text, "one");
/// assert_eq!(stop.push("two E").text, "\ntwo ");
/// let last = stop.push("ND and more");
/// assert_eq!((last.text.as_str(), last.stop.as_deref()), ("", Some("END")));
/// assert!(stop.stopped());
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// A tail of the text that begins at least one stop string.
    held: String,
    stopped: bool,
}

/// What a push or the end of the text let out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Text that is certain to be before any stop string.
    pub text: String,
    /// The stop string that ended the text just now.
    pub stop: Option<String>,
}

impl StopStrings {
    /// Watches for these strings; empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops
            .into_iter()
            .map(Into::into)
            .filter(|stop: &String| !stop.is_empty())
            .collect();
        Self {
            stops,
            ..Self::default()
        }
    }

    /// Whether a stop string has been found; nothing more comes out then.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Emitted {
        if self.stopped {
            return Emitted::default();
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_stop() {
            let stop = stop.to_owned();
            self.stopped = true;
            self.held.truncate(start);
            return Emitted {
                text: std::mem::take(&mut self.held),
                stop: Some(stop),
            };
        }
        let keep = self.open_tail();
        let held = self.held.split_off(self.held.len() - keep);
        Emitted {
            text: std::mem::replace(&mut self.held, held),
            stop: None,
        }
    }

    /// The text is complete: what was held back is text after all.
    pub fn finish(&mut self) -> Emitted {
        Emitted {
            text: std::mem::take(&mut self.held),
            stop: None,
        }
    }

    /// Start and text of the stop string that ends first (of those, starts first).
    fn first_stop(&self) -> Option<(usize, &str)> {
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop).map(|start| (start, stop.as_str())));
        found.min_by_key(|&(start, stop)| (start + stop.len(), start))
    }

    /// Bytes of the longest tail that begins a stop string.
    fn open_tail(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter_map(|start| self.held.get(start..))
            .find(|tail| self.stops.iter().any(|stop| stop.starts_with(tail)))
            .map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Character by character: the text before the stop string that is complete first.
    fn reference(text: &str, stops: &[String]) -> (String, bool) {
        for end in text.char_indices().map(|(i, c)| i + c.len_utf8()) {
            let read = &text[..end];
            let longest = stops
                .iter()
                .filter(|stop| !stop.is_empty() && read.ends_with(*stop))
                .map(String::len)
                .max();
            if let Some(length) = longest {
                return (read[..end - length].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    #[test]
    fn a_beginning_that_leads_nowhere_is_let_out() {
        let mut stop = StopStrings::new(["aab"]);
        assert_eq!(stop.push("aa").text, "");
        assert_eq!(stop.push("a").text, "a", "still ends in aa");
        assert_eq!(stop.push("c").text, "aac");
        assert_eq!(stop.push("a").text, "");
        assert_eq!(stop.finish().text, "a");
        assert!(!stop.stopped());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            pieces in prop::collection::vec("[abé🎉]{0,4}", 0..12),
            stops in prop::collection::vec("[abé🎉]{0,4}", 0..4),
        ) {
            let text = pieces.concat();
            let mut stop = StopStrings::new(stops.clone());
            let mut out = String::new();
            for piece in &pieces {
                let emitted = stop.push(piece);
                prop_assert!(stop.stopped() || emitted.stop.is_none());
                out += &emitted.text;
            }
            if !stop.stopped() {
                out += &stop.finish().text;
            }
            prop_assert_eq!((out, stop.stopped()), reference(&text, &stops));
        }
    }
}
