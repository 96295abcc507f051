//! Which option an answer means.

use super::Choice;

/// Words after a letter that show it to be no article, though no mark follows: "A is right".
const AFTER_LETTER: [&str; 5] = ["is", "because", "since", "or", "and"];

/// A word of an answer: letters and digits with nothing between them.
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    let mut start = None;
    let ends = text.char_indices().map(|(at, c)| (at, Some(c)));
    for (at, c) in ends.chain([(text.len(), None)]) {
        let inside = c.is_some_and(char::is_alphanumeric);
        match (start, inside) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                let text = text.get(from..at).unwrap_or_default();
                out.push(Word {
                    text,
                    start: from,
                    end: at,
                });
                start = None;
            }
            _ => {}
        }
    }
    out
}

/// Words in lower case, single spaces between them.
fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = words(&lower).iter().map(|word| word.text).collect();
    words.join(" ")
}

impl Choice {
    /// The option that an answer means: that of the one option letter in it, else the one whose text is in it, else none.
    ///
    /// - A letter is a capital on its own ("B", "(B)", "B. red", "Answer: B"), in any case if it is the whole answer. One at a
    ///   hyphen or an apostrophe is part of a word, and an "A" before a word in lower case is an article ("A red ring"). Two
    ///   different ones are none.
    /// - Texts are compared by their words, in lower case. An answer that is just one option's text means that one. Else an
    ///   option counts where its words are in the answer and not within those of a longer option ("top" within "top left").
    ///
    /// The tools of MMBench's authors differ here, and ask a language model where such rules fail. None is asked here, so what
    /// is not parsed is wrong, and how often that is, is told.
    pub fn extract(&self, answer: &str) -> Option<char> {
        self.by_letter(answer).or_else(|| self.by_text(answer))
    }

    fn is_option(&self, letter: char) -> bool {
        self.options.iter().any(|(option, _)| *option == letter)
    }

    fn by_letter(&self, answer: &str) -> Option<char> {
        let words = words(answer);
        if let [word] = words.as_slice() {
            return single(&word.text.to_uppercase()).filter(|&letter| self.is_option(letter));
        }
        let mut found = None;
        for (place, word) in words.iter().enumerate() {
            let Some(letter) = single(word.text).filter(|&letter| self.is_option(letter)) else {
                continue;
            };
            let before = answer
                .get(..word.start)
                .and_then(|text| text.chars().next_back());
            let after = answer.get(word.end..).unwrap_or_default();
            let next = words.get(place + 1).map_or("", |word| word.text);
            let marked = place.checked_sub(1).and_then(|place| words.get(place));
            let marked = marked.is_some_and(|word| {
                let word = word.text.to_lowercase();
                ["option", "answer", "choice"].contains(&word.as_str())
            });
            let joined = |c: Option<char>| matches!(c, Some('-' | '\'' | '\u{2019}'));
            let in_word = joined(before)
                || (joined(after.chars().next())
                    && after.chars().nth(1).is_some_and(char::is_alphanumeric));
            let article = letter == 'A'
                && !marked
                && after.starts_with(' ')
                && after.chars().nth(1).is_some_and(char::is_lowercase)
                && !AFTER_LETTER.contains(&next);
            if in_word || article {
                continue;
            }
            match found {
                Some(other) if other != letter => return None,
                _ => found = Some(letter),
            }
        }
        found
    }

    fn by_text(&self, answer: &str) -> Option<char> {
        let answer = format!(" {} ", plain(answer));
        let options = self.options.iter();
        let options = options.map(|(letter, text)| (*letter, format!(" {} ", plain(text))));
        let options: Vec<(char, String)> = options
            .filter(|(_, text)| !text.trim().is_empty())
            .collect();
        let mut same = options.iter().filter(|(_, text)| *text == answer);
        if let Some((letter, _)) = same.next() {
            return same.next().is_none().then_some(*letter);
        }
        // All places of all options; those within a longer option's place do not count.
        let mut places: Vec<(usize, usize, char)> = Vec::new();
        for (letter, text) in &options {
            let mut from = 0;
            while let Some(at) = answer.get(from..).and_then(|rest| rest.find(text.as_str())) {
                places.push((from + at, from + at + text.len(), *letter));
                // The space at an end is the next word's too.
                from += at + 1;
            }
        }
        let within = |&(start, end, _): &(usize, usize, char)| {
            places
                .iter()
                .any(|&(from, to, _)| from <= start && end <= to && to - from > end - start)
        };
        let mut counting = places.iter().filter(|place| !within(place)).map(|it| it.2);
        let first = counting.next()?;
        counting.all(|letter| letter == first).then_some(first)
    }
}

/// The one character of a word that has one.
fn single(word: &str) -> Option<char> {
    let mut all = word.chars();
    all.next().filter(|_| all.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(texts: &[&str]) -> Choice {
        let options = ('A'..)
            .zip(texts.iter().map(|it| (*it).to_owned()))
            .collect();
        Choice {
            letter: 'A',
            options,
            group: 1,
            rotations: 4,
        }
    }

    #[test]
    fn letters() {
        let of = |answer| choice(&["red ring", "blue ring", "green", "dog"]).extract(answer);
        for (answer, letter) in [
            ("B", Some('B')),
            ("b", Some('B')),
            (" (b). ", Some('B')),
            ("B. red ring", Some('B')),
            ("Answer: C", Some('C')),
            ("The answer is D.", Some('D')),
            ("**B**", Some('B')),
            ("B because B is right", Some('B')),
            ("A is the right one", Some('A')),
            ("Option A shows it", Some('A')),
            ("A. A dog", Some('A')),
            ("A dog", Some('D')),
            ("A", Some('A')),
            ("It is a blue ring", Some('B')),
            ("A or B", None),
            ("E", None),
            ("", None),
            ("I cannot say.", None),
            ("B-movie", None),
            ("Plan B's", None),
            ("Both A and B, but green", Some('C')),
        ] {
            assert_eq!(of(answer), letter, "{answer:?}");
        }
    }

    #[test]
    fn texts() {
        let of = |answer| choice(&["top", "top left", "left", "bottom right"]).extract(answer);
        for (answer, letter) in [
            ("top", Some('A')),
            ("Top left.", Some('B')),
            ("It is at the top  left", Some('B')),
            ("in the top of the picture", Some('A')),
            ("stopped", None),
            ("top or left", None),
            ("top left, not bottom right", None),
            ("right", None),
        ] {
            assert_eq!(of(answer), letter, "{answer:?}");
        }
        // Two options with the same words mean nothing, and neither does one without words.
        assert_eq!(choice(&["red", "Red!"]).extract("red"), None);
        assert_eq!(choice(&["+", "-"]).extract("+"), None);
        assert_eq!(choice(&["0", "10", "1"]).extract("10"), Some('B'));
        // An option whose text is a letter: letters come first.
        assert_eq!(choice(&["B", "A"]).extract("A"), Some('A'));
    }

    proptest! {
        #[test]
        fn what_is_found_is_an_option(answer in ".{0,60}", texts in prop::collection::vec("[a-c ]{0,5}", 1..5)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let choice = choice(&texts);
            let found = choice.extract(&answer);
            prop_assert!(found.is_none_or(|letter| choice.is_option(letter)));
        }

        #[test]
        fn the_right_letter_is_found_however_it_is_dressed(place in 0_usize..4, dress in "[(\\[*]{0,2}") {
            let choice = choice(&["w", "x", "y", "z"]);
            let letter = choice.options[place].0;
            prop_assert_eq!(choice.extract(&format!("{dress}{letter})")), Some(letter));
            prop_assert_eq!(choice.extract(&format!("The answer is {dress}{letter}.")), Some(letter));
        }
    }
}
