//! Reads a table and gives each row its picture.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use msao_core::chat::Modality;

use super::tsv::{Rows, TsvError};
use super::{Choice, ROTATION, prompt};
use crate::error::DataError;
use crate::files::{MAX_FIELD, MAX_ITEMS, MAX_PICTURES, MAX_TABLE, find, open};
use crate::item::{Item, Mix, Reference, Source, picture_mime};
use crate::set::Set;

const ENDING: &str = ".tsv";
/// What is no longer than this is another row's index: no picture is as small (the rule of MMBench's own tools).
const LONGEST_INDEX: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where the columns are that are read; others do not matter.
struct Columns {
    count: usize,
    index: usize,
    question: usize,
    hint: Option<usize>,
    /// One letter each, in order.
    options: Vec<(char, usize)>,
    answer: usize,
    category: Option<usize>,
    image: usize,
    parent: Option<usize>,
}

impl Columns {
    fn new(header: &[String]) -> Result<Columns, String> {
        let mut places: HashMap<String, usize> = HashMap::new();
        for (place, name) in header.iter().enumerate() {
            let name = name.trim().trim_start_matches('\u{feff}').to_lowercase();
            if !name.is_empty() && places.insert(name.clone(), place).is_some() {
                return Err(format!("column {name:?} is there twice"));
            }
        }
        let needed = |name: &str| {
            places.get(name).copied().ok_or_else(|| {
                format!(
                    "there is no column {name:?}, but {}: is this a table of MMBench?",
                    header.join(", ").chars().take(200).collect::<String>()
                )
            })
        };
        let options = ('a'..='z').filter_map(|letter| {
            let place = places.get(letter.encode_utf8(&mut [0; 4]) as &str)?;
            Some((letter.to_ascii_uppercase(), *place))
        });
        needed("a")?;
        needed("b")?;
        Ok(Columns {
            count: header.len(),
            index: needed("index")?,
            question: needed("question")?,
            hint: places.get("hint").copied(),
            options: options.collect(),
            answer: needed("answer")?,
            category: places.get("category").copied(),
            image: needed("image")?,
            parent: places.get("l2-category").copied(),
        })
    }
}

/// A row's picture as the table has it.
enum Picture {
    Here(Source),
    /// At the row with this index.
    At(u64),
}

struct Row {
    line: u64,
    index: u64,
    text: String,
    choice: Choice,
    category: Arc<str>,
    parent: Arc<str>,
}

/// Reads a table of a folder: that of the given name, or the only one.
pub(crate) fn load(folder: &Path, file: Option<&str>) -> Result<Set, DataError> {
    let (path, name) = choose(folder, file)?;
    let wrong =
        |line: u64, problem: String| DataError::content(&path, format!("line {line}"), problem);
    let mut table = Rows::new(open(&path, MAX_TABLE)?, MAX_FIELD);
    let failed = |line: u64, error: TsvError| wrong(line, error.to_string());
    let header = table.next_row();
    let header = header.map_err(|error| failed(table.line(), error))?;
    let header = header.ok_or_else(|| wrong(1, "the table is empty: fetch it again".into()))?;
    let columns = Columns::new(&header).map_err(|problem| wrong(1, problem))?;

    let mut rows: Vec<Row> = Vec::new();
    let mut pictures: HashMap<u64, Picture> = HashMap::new();
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut held = 0_usize;
    loop {
        let fields = table.next_row();
        let line = table.line();
        let Some(fields) = fields.map_err(|error| failed(line, error))? else {
            break;
        };
        if rows.len() == MAX_ITEMS {
            return Err(wrong(line, format!("there are more than {MAX_ITEMS} rows")));
        }
        let (row, picture) =
            row(&columns, line, &fields, &mut names).map_err(|problem| wrong(line, problem))?;
        if let Picture::Here(Source::Bytes { bytes, .. }) = &picture {
            held += bytes.len();
        }
        if held > MAX_PICTURES {
            let most = MAX_PICTURES >> 20;
            return Err(wrong(
                line,
                format!("the pictures so far have more than {most} MiB"),
            ));
        }
        if pictures.insert(row.index, picture).is_some() {
            return Err(wrong(line, format!("index {} is there twice", row.index)));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(wrong(
            1,
            "there are no rows below the header: fetch it again".into(),
        ));
    }

    let mut rotations: HashMap<u64, u32> = HashMap::new();
    for row in &rows {
        *rotations.entry(row.choice.group).or_default() += 1;
    }
    let set: Arc<str> = name.into();
    let item = |mut row: Row| {
        let source = resolve(&pictures, row.index)
            .map_err(|problem| wrong(row.line, format!("index {}: {problem}", row.index)))?;
        row.choice.rotations = rotations.get(&row.choice.group).copied().unwrap_or(1);
        Ok(Item {
            id: row.index,
            set: set.clone(),
            kind: row.category,
            answer_type: row.parent,
            mix: Mix::IMAGE,
            text: row.text,
            media: vec![(Modality::Image, source)],
            needs: vec![Modality::Image],
            long: false,
            seen_mix: true,
            answer: row.choice.letter.to_string().into(),
            reference: Reference::Choice(row.choice),
        })
    };
    let items: Result<Vec<Item>, DataError> = rows.into_iter().map(item).collect();
    let items = items?;
    Ok(Set { name: set, items })
}

fn choose(folder: &Path, file: Option<&str>) -> Result<(PathBuf, String), DataError> {
    let mut found = find(folder, "", ENDING)?;
    let names: Vec<String> = found
        .iter()
        .map(|it| format!("{}{ENDING}", it.middle))
        .collect();
    if let Some(file) = file {
        found.retain(|it| it.middle == file.trim_end_matches(ENDING));
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok((one.path, one.middle)),
        (Some(_), false) => Err(DataError::folder(
            folder,
            format!("there are the tables {}: name one", names.join(", ")),
        )),
        (None, _) => {
            let what = file.unwrap_or("a table that ends in .tsv");
            let there = match names.as_slice() {
                [] => String::new(),
                some => format!(" (there is {})", some.join(", ")),
            };
            let problem =
                format!("{what} is missing{there}: name the folder with MMBench's tables");
            Err(DataError::folder(folder, problem))
        }
    }
}

/// What a field holds; blank and `nan`, which is how pandas writes a blank, are nothing.
fn filled(field: &str) -> Option<&str> {
    let field = field.trim();
    (!field.is_empty() && !field.eq_ignore_ascii_case("nan")).then_some(field)
}

/// An index; pandas writes `12.0` where a column has blanks.
fn whole(field: &str) -> Option<u64> {
    let field = field.trim();
    field.strip_suffix(".0").unwrap_or(field).parse().ok()
}

fn row(
    columns: &Columns,
    line: u64,
    fields: &[String],
    names: &mut HashSet<Arc<str>>,
) -> Result<(Row, Picture), String> {
    if fields.len() != columns.count {
        return Err(format!(
            "there are {} fields under {} columns: is a quote missing?",
            fields.len(),
            columns.count
        ));
    }
    let field = |place: usize| fields.get(place).map_or("", String::as_str);
    let optional = |place: Option<usize>| place.and_then(|place| filled(field(place)));
    let index = whole(field(columns.index)).ok_or_else(|| {
        format!(
            "index is {:?}, not a whole number",
            short(field(columns.index))
        )
    })?;
    let question = filled(field(columns.question)).ok_or("question is blank")?;
    let options = columns.options.iter();
    let options: Vec<(char, String)> = options
        .filter_map(|&(letter, place)| Some((letter, filled(field(place))?.to_owned())))
        .collect();
    let answer = field(columns.answer).trim();
    if filled(answer).is_none() {
        return Err(
            "answer is blank: answers of the test split are not published, take the dev split"
                .into(),
        );
    }
    let mut letters = options.iter().map(|(letter, _)| *letter);
    let letter =
        letters.find(|letter| answer.eq_ignore_ascii_case(letter.encode_utf8(&mut [0; 4])));
    let letter = letter.ok_or_else(|| {
        let there: String = options.iter().map(|(letter, _)| *letter).collect();
        format!(
            "answer is {:?}, and there are the options {there}",
            short(answer)
        )
    })?;
    let picture = picture(field(columns.image)).map_err(|problem| format!("image {problem}"))?;
    let mut name = |place: Option<usize>| {
        let text: Arc<str> = optional(place).unwrap_or_default().into();
        names.get(&text).cloned().unwrap_or_else(|| {
            names.insert(text.clone());
            text
        })
    };
    let row = Row {
        line,
        index,
        text: prompt(question, optional(columns.hint), &options),
        category: name(columns.category),
        parent: name(columns.parent),
        choice: Choice {
            letter,
            options,
            group: index % ROTATION,
            rotations: 1,
        },
    };
    Ok((row, picture))
}

/// The beginning of a field that may be huge.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn picture(field: &str) -> Result<Picture, String> {
    let field = field.trim();
    if filled(field).is_none() {
        return Err("is blank: it is base64, or the index of the row that has it".into());
    }
    if field.len() <= LONGEST_INDEX {
        let index = whole(field);
        return index
            .map(Picture::At)
            .ok_or_else(|| format!("is {field:?}, too short for base64 and no index of a row"));
    }
    let joined: String;
    let encoded = if field.contains(char::is_whitespace) {
        joined = field.split_whitespace().collect();
        &joined
    } else {
        field
    };
    let bytes = BASE64.decode(encoded);
    let bytes = bytes.map_err(|error| format!("is not base64 ({error}): fetch the table again"))?;
    let mime = picture_mime(&bytes).ok_or("is neither JPEG, PNG, GIF nor WebP")?;
    Ok(Picture::Here(Source::Bytes {
        bytes: bytes.into(),
        mime,
    }))
}

/// Follows indices to the row that holds the picture.
fn resolve(pictures: &HashMap<u64, Picture>, index: u64) -> Result<Source, String> {
    let mut seen = vec![index];
    let mut at = index;
    loop {
        match pictures.get(&at) {
            Some(Picture::Here(source)) => return Ok(source.clone()),
            Some(Picture::At(next)) if seen.contains(next) => {
                return Err(format!(
                    "image is that of row {next}, which leads back here: a cycle"
                ));
            }
            Some(Picture::At(_)) if seen.len() > 8 => {
                return Err("image is reached over more than 8 rows".into());
            }
            Some(Picture::At(next)) => {
                seen.push(*next);
                at = *next;
            }
            None => return Err(format!("image is that of row {at}, which is not there")),
        }
    }
}
