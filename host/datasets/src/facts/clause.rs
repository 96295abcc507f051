//! From the words of one clause to a fact.

const COLORS: [&str; 7] = [
    "red", "green", "blue", "yellow", "purple", "orange", "white",
];
const SHAPES: [&str; 6] = ["circle", "square", "triangle", "star", "cross", "ring"];
const NUMBERS: [&str; 11] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];
const PITCHES: [&str; 3] = ["low", "middle", "high"];
const DIRECTIONS: [&str; 4] = ["left", "right", "up", "down"];
const TONES: [&str; 2] = ["dark", "light"];

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The tone of the picture's background.
    Background,
    /// How many shapes the picture shows.
    Shapes,
    /// What is in a ninth of the picture, from 0 at the top left by rows.
    PictureAt(u8),
    /// The card.
    Card,
    /// How many shapes the clip shows.
    ClipShapes,
    /// What moves, and where to.
    Mover,
    /// What stays in a ninth of the clip.
    ClipAt(u8),
    /// What else the clip shows.
    ClipRest,
    /// How many beeps the sound has.
    Beeps,
    /// The pitch of a beep, from 0.
    Beep(u8),
}

/// What is said about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// That there is nothing: no card, nothing else.
    Nothing,
    /// A number.
    Number(u8),
    /// A tone or a pitch.
    Word(&'static str),
    /// A thing of a colour and a shape.
    Thing(&'static str, &'static str),
    /// A thing of a colour and a shape that goes somewhere.
    Moving(&'static str, &'static str, &'static str),
    /// A card: its ninth of the picture, whether it has a digit (or else a letter), and which.
    Card(u8, bool, char),
}

/// What a clause tells of, until another is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Picture,
    Clip,
    Sound,
}

/// The medium that a clause names.
pub(super) fn medium(words: &[String]) -> Option<Medium> {
    words.iter().find_map(|word| match word.as_str() {
        "picture" | "image" | "card" => Some(Medium::Picture),
        "clip" | "video" | "moves" | "stays" => Some(Medium::Clip),
        "sound" | "audio" | "beep" | "beeps" => Some(Medium::Sound),
        _ => None,
    })
}

/// The one fact that a clause states.
pub(super) fn read(words: &[String], medium: Medium) -> Option<(Subject, Value)> {
    let has = |word: &str| words.iter().any(|it| it == word);
    let either = |one: &str, many: &str| has(one) || has(many);
    if has("background") {
        return Some((Subject::Background, Value::Word(only(words, &TONES)?)));
    }
    if has("card") {
        return card(words);
    }
    if has("nothing") && has("else") {
        return Some((Subject::ClipRest, Value::Nothing));
    }
    if either("beep", "beeps")
        && let Some(count) = number(words)
    {
        return Some((Subject::Beeps, Value::Number(count)));
    }
    if either("shape", "shapes") {
        let subject = if medium == Medium::Clip {
            Subject::ClipShapes
        } else {
            Subject::Shapes
        };
        return Some((subject, Value::Number(number(words)?)));
    }
    if medium == Medium::Sound {
        let ordinal = only(words, &ORDINALS)?;
        let place = ORDINALS.iter().position(|it| *it == ordinal)?;
        let pitch = Value::Word(only(words, &PITCHES)?);
        return Some((Subject::Beep(u8::try_from(place).ok()?), pitch));
    }
    let (color, shape) = (only(words, &COLORS)?, only(words, &SHAPES)?);
    if let Some(place) = words.iter().position(|it| it == "moves") {
        let way = only(words.get(place..)?, &DIRECTIONS)?;
        return Some((Subject::Mover, Value::Moving(color, shape, way)));
    }
    let at = zone(words)?;
    let subject = if medium == Medium::Clip {
        Subject::ClipAt(at)
    } else {
        Subject::PictureAt(at)
    };
    Some((subject, Value::Thing(color, shape)))
}

fn card(words: &[String]) -> Option<(Subject, Value)> {
    if words.iter().any(|it| it == "no") {
        return Some((Subject::Card, Value::Nothing));
    }
    let what = words
        .iter()
        .position(|it| it == "digit" || it == "letter")?;
    let mut glyph = words.get(what + 1)?.chars();
    let (Some(glyph), None) = (glyph.next(), glyph.next()) else {
        return None;
    };
    let digit = words.get(what)? == "digit";
    let at = zone(words.get(..what)?)?;
    Some((Subject::Card, Value::Card(at, digit, glyph)))
}

/// The one of some words that is there.
fn only(words: &[String], among: &[&'static str]) -> Option<&'static str> {
    let mut found = words
        .iter()
        .filter_map(|word| among.iter().find(|it| *it == word));
    let first = found.next()?;
    found.next().is_none().then_some(*first)
}

/// The one number that is there, in words or digits.
fn number(words: &[String]) -> Option<u8> {
    let mut found = words.iter().filter_map(|word| {
        let place = NUMBERS.iter().position(|name| name == word);
        place
            .and_then(|place| u8::try_from(place).ok())
            .or_else(|| word.parse().ok())
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The ninth that "at the top left" or "in the center" means.
fn zone(words: &[String]) -> Option<u8> {
    let named = words.iter().rposition(|it| it == "at" || it == "in")?;
    let named = words.get(named + 1..)?;
    let named: Vec<&str> = named
        .iter()
        .map(String::as_str)
        .filter(|it| *it != "the")
        .collect();
    match named.as_slice() {
        ["top", "left", ..] => Some(0),
        ["top", "right", ..] => Some(2),
        ["top", ..] => Some(1),
        ["left", ..] => Some(3),
        ["center" | "centre", ..] => Some(4),
        ["right", ..] => Some(5),
        ["bottom", "left", ..] => Some(6),
        ["bottom", "right", ..] => Some(8),
        ["bottom", ..] => Some(7),
        _ => None,
    }
}
