//! Recorded requests: when they came, and how long they were.
//!
//! Three published formats are read:
//! - *Azure* (2023 to 2025, github.com/Azure/AzurePublicDataset): CSV with the columns `TIMESTAMP`, `ContextTokens`,
//!   `GeneratedTokens`, and `NumImages` in the multimodal one. A time is `2024-10-15 00:00:07.25` or a number of seconds.
//! - *BurstGPT* (github.com/HPMLL/BurstGPT): CSV with `Timestamp` in seconds, `Request tokens`, `Response tokens`. Requests that
//!   failed there (no response tokens) came too, and count.
//! - *Mooncake* (github.com/kvcache-ai/Mooncake): a JSON object on each line with `timestamp` in ms, `input_length`,
//!   `output_length`.
//!
//! Columns are found by name, whatever their case and order; others are passed over. Compressed files are refused: unpack them
//! first. Requests are sorted by their time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::csv;
use crate::spec::ArrivalFormat;

/// Requests of a file at most.
pub const MOST_REQUESTS: usize = 10_000_000;
/// Bytes of a line at most: Mooncake's list hashes of blocks.
const MOST_LINE: u64 = 4 << 20;
/// Longest recording: ten years.
const MOST_MS: f64 = 3_660.0 * 86_400e3;

/// Why a recording cannot be used.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("{path}: {source}; name a file that can be read", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is compressed.
    #[error("{path}: is compressed, which is not read; unpack it first: gunzip -k {path}", path = .0.display())]
    Compressed(PathBuf),
    /// A line that is not of the format.
    #[error("{path}: line {line}: {problem}", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// No request.
    #[error("{path}: has no requests, or fewer than are skipped; name another file or a smaller `skip`", path = .0.display())]
    Empty(PathBuf),
}

/// A request that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Since the first of the recording, in ms.
    pub at_ms: f64,
    /// Tokens of its prompt, media included.
    pub prompt_tokens: u64,
    /// Tokens of its answer.
    pub answer_tokens: u64,
    /// Pictures, where the recording tells.
    pub images: Option<u64>,
}

/// Reads a file.
///
/// # Errors
/// [`TraceError`].
pub fn read(path: &Path, format: ArrivalFormat) -> Result<Vec<Recorded>, TraceError> {
    let io = |source| TraceError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    // The magic numbers of gzip and of Zstandard.
    let begin = file.fill_buf().map_err(io)?;
    if begin.starts_with(&[0x1f, 0x8b]) || begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(TraceError::Compressed(path.to_owned()));
    }
    let mut reader = Reader::new(format);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = (&mut file).take(MOST_LINE).read_until(b'\n', &mut text);
        let size = read.map_err(io)?;
        if size == 0 {
            break;
        }
        let told = match std::str::from_utf8(&text) {
            Ok(_) if size as u64 == MOST_LINE => Err(format!("has {MOST_LINE} bytes or more")),
            Ok(text) => reader.line(text.trim_start_matches('\u{feff}').trim()),
            Err(_) => Err("is no UTF-8".to_owned()),
        };
        told.map_err(|problem| TraceError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?;
    }
    reader
        .finish()
        .ok_or_else(|| TraceError::Empty(path.to_owned()))
}

/// Which columns say what.
#[derive(Clone, Copy, Debug)]
struct Columns {
    at: usize,
    prompt: usize,
    answer: usize,
    images: Option<usize>,
}

/// A request with its time in ms since anything.
struct Came {
    at_ms: f64,
    recorded: Recorded,
}

struct Reader {
    format: ArrivalFormat,
    columns: Option<Columns>,
    came: Vec<Came>,
}

#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
}

impl Reader {
    fn new(format: ArrivalFormat) -> Reader {
        Reader {
            format,
            columns: None,
            came: Vec::new(),
        }
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let (at_ms, prompt_tokens, answer_tokens, images) = match self.format {
            ArrivalFormat::Mooncake => {
                let line: MooncakeLine = serde_json::from_str(text).map_err(|error| {
                    format!(
                        "{error}; allowed: a JSON object with timestamp (ms), input_length, output_length"
                    )
                })?;
                (line.timestamp, line.input_length, line.output_length, None)
            }
            ArrivalFormat::Azure | ArrivalFormat::Burstgpt => {
                let fields = match csv::Records::new(text).next() {
                    Some(Ok((_, fields))) => fields,
                    Some(Err((_, problem))) => return Err(problem.to_owned()),
                    None => return Ok(()),
                };
                let Some(columns) = self.columns else {
                    self.columns = Some(self.header(&fields)?);
                    return Ok(());
                };
                self.record(columns, &fields)?
            }
        };
        if !(at_ms.is_finite() && at_ms.abs() <= 1e15) {
            return Err(format!("has the time {at_ms} ms, which is none"));
        }
        if self.came.len() >= MOST_REQUESTS {
            return Err(format!(
                "is beyond {MOST_REQUESTS} requests; use a part of the file"
            ));
        }
        self.came.push(Came {
            at_ms,
            recorded: Recorded {
                at_ms: 0.0,
                prompt_tokens,
                answer_tokens,
                images,
            },
        });
        Ok(())
    }

    fn header(&self, fields: &[String]) -> Result<Columns, String> {
        let place = |name: &str| {
            let mut all = fields.iter();
            all.position(|field| field.trim().eq_ignore_ascii_case(name))
        };
        let (at, prompt, answer) = match self.format {
            ArrivalFormat::Burstgpt => ("Timestamp", "Request tokens", "Response tokens"),
            _ => ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        };
        match (place(at), place(prompt), place(answer)) {
            (Some(at), Some(prompt), Some(answer)) => Ok(Columns {
                at,
                prompt,
                answer,
                images: place("NumImages"),
            }),
            _ => Err(format!(
                "is `{}`; allowed: a header with the columns {at}, {prompt} and {answer}",
                fields.join(",").chars().take(120).collect::<String>()
            )),
        }
    }

    fn record(
        &self,
        columns: Columns,
        fields: &[String],
    ) -> Result<(f64, u64, u64, Option<u64>), String> {
        let field = |place: usize| fields.get(place).map_or("", |field| field.trim());
        // Some tools write whole numbers as 12.0.
        let count = |place: usize, name: &str| {
            let value = field(place);
            match value.parse::<f64>() {
                Ok(count) if (0.0..=1e9).contains(&count) && count.fract() == 0.0 => {
                    Ok(count as u64)
                }
                _ => Err(format!("has {value:?} {name}; allowed: 0 to 1000000000")),
            }
        };
        let at = field(columns.at);
        let at_s = seconds(at).ok_or_else(|| {
            format!(
                "has the time {at:?}; allowed: seconds, or a date such as 2024-10-15 00:00:07.25"
            )
        })?;
        let images = match columns.images {
            Some(place) => Some(count(place, "pictures")?),
            None => None,
        };
        Ok((
            at_s * 1e3,
            count(columns.prompt, "tokens of the prompt")?,
            count(columns.answer, "tokens of the answer")?,
            images,
        ))
    }

    /// None: no requests, or they span more than ten years, which no recording does.
    fn finish(mut self) -> Option<Vec<Recorded>> {
        self.came.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let first = self.came.first()?.at_ms;
        let last = self.came.last()?.at_ms;
        if last - first > MOST_MS {
            return None;
        }
        let relative = |it: Came| Recorded {
            at_ms: it.at_ms - first,
            ..it.recorded
        };
        Some(self.came.into_iter().map(relative).collect())
    }
}

/// A time in s: a number, or `YYYY-MM-DD hh:mm:ss[.f][Z|+hh:mm]`, since 1970.
fn seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if date.next().is_some() || !(1970..=2200).contains(&year) {
        return None;
    }
    let (time, offset_s) = match time.find(['Z', '+', '-']) {
        None => (time, 0),
        Some(end) => {
            let (time, zone) = time.split_at(end);
            (time, zone_s(zone)?)
        }
    };
    let mut time = time.splitn(3, ':');
    let (hours, minutes) = (
        time.next()?.parse::<u32>().ok()?,
        time.next()?.parse::<u32>().ok()?,
    );
    let seconds: f64 = time.next()?.parse().ok()?;
    let allowed = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hours < 24
        && minutes < 60
        && (0.0..61.0).contains(&seconds);
    let days = days(year, month, day) * 86_400 - offset_s;
    allowed.then(|| days as f64 + f64::from(hours * 3_600 + minutes * 60) + seconds)
}

fn zone_s(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (hours, minutes) = zone
        .get(1..)?
        .split_once(':')
        .unwrap_or((zone.get(1..)?, "0"));
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = hours * 3_600 + minutes * 60;
    let allowed = (0..=14).contains(&hours) && (0..60).contains(&minutes);
    allowed.then_some(if zone.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

/// Days since 1970-01-01 (Gregorian). Years are counted from March, so that the day of a leap year is the last one: the months
/// then have 153 days in each five.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year / 4 - year / 100 + year / 400;
    // 719,468 days from 0000-03-01 to 1970-01-01.
    year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str, format: ArrivalFormat) -> Result<Vec<Recorded>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        std::fs::write(&path, text).unwrap();
        read(&path, format).map_err(|error| error.to_string())
    }

    #[test]
    fn azure_has_dates_and_pictures() {
        let text = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\r\n\
                    2024-10-15 23:59:59.5000000,2,1500,30\r\n2024-10-16 00:00:01.25+00:00,0,20,400\r\n";
        let came = parse(text, ArrivalFormat::Azure).unwrap();
        assert_eq!((came[0].at_ms, came[0].images), (0.0, Some(2)));
        assert_eq!(
            (came[1].at_ms, came[1].prompt_tokens, came[1].answer_tokens),
            (1750.0, 20, 400)
        );
        // Before 2025 there were no pictures.
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n";
        assert_eq!(parse(text, ArrivalFormat::Azure).unwrap()[0].images, None);
    }

    #[test]
    fn burstgpt_has_seconds_and_more_columns_later() {
        let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                    45,ChatGPT,1087,230,1317,Conversation log\n5,ChatGPT,472,0,472,\"API, log\"\n";
        let came = parse(text, ArrivalFormat::Burstgpt).unwrap();
        assert_eq!((came[0].at_ms, came[0].prompt_tokens), (0.0, 472));
        assert_eq!((came[1].at_ms, came[1].answer_tokens), (40_000.0, 230));
        let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                    1.5,x,2,GPT-4,10,20.0,30,API log\n";
        assert_eq!(
            parse(text, ArrivalFormat::Burstgpt).unwrap()[0].answer_tokens,
            20
        );
    }

    #[test]
    fn mooncake_has_milliseconds() {
        let text = "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n\
                    {\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26, \"hash_ids\": []}\n";
        let came = parse(text, ArrivalFormat::Mooncake).unwrap();
        assert_eq!((came[1].at_ms, came[1].prompt_tokens), (3053.0, 6472));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        use ArrivalFormat::{Azure, Burstgpt, Mooncake};
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
        for (text, format, told) in [
            (String::new(), Azure, "has no requests"),
            (azure.to_owned(), Azure, "has no requests"),
            (
                "a,b\n".to_owned(),
                Azure,
                "line 1: is `a,b`; allowed: a header with the columns TIMESTAMP",
            ),
            (
                format!("{azure}\n2024-13-01 00:00:00,1,1\n"),
                Azure,
                "line 3: has the time \"2024-13-01",
            ),
            (
                format!("{azure}1,-1,1\n"),
                Azure,
                "line 2: has \"-1\" tokens of the prompt",
            ),
            (
                format!("{azure}1,1\n"),
                Azure,
                "line 2: has \"\" tokens of the answer",
            ),
            (
                format!("{azure}nan,1,1\n"),
                Azure,
                "line 2: has the time NaN ms",
            ),
            (
                format!("{azure}0,1,1\n1e11,1,1\n"),
                Azure,
                "has no requests",
            ),
            (azure.to_owned(), Burstgpt, "Request tokens"),
            (
                "{}\n".to_owned(),
                Mooncake,
                "line 1: missing field `timestamp`",
            ),
            ("\u{1f}".to_owned(), Mooncake, "line 1"),
        ] {
            let error = parse(&text, format).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.csv.gz");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        let error = read(&path, Azure).unwrap_err().to_string();
        assert!(error.contains("gunzip -k"), "{error}");
        std::fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(
            read(&path, Azure)
                .unwrap_err()
                .to_string()
                .contains("line 1: is no UTF-8")
        );
    }

    #[test]
    fn days_are_the_calendar_s() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2024, 10, 15), 20_011);
        assert_eq!(days(2024, 3, 1) - days(2024, 2, 28), 2);
        assert_eq!(
            seconds("1970-01-02T00:00:01.5+01:00"),
            Some(86_401.5 - 3_600.0)
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in any::<String>(), odd in "[-0-9:+ TZ.]{0,30}") {
            for format in [ArrivalFormat::Azure, ArrivalFormat::Burstgpt, ArrivalFormat::Mooncake] {
                let mut reader = Reader::new(format);
                for line in text.lines() {
                    let _either = reader.line(line);
                }
                let _any = reader.finish();
            }
            let _any = seconds(&odd);
        }
    }
}
