//! Reads VQAv2's two files and finds the media.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use msao_core::chat::Modality;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Answers, Rules};
use crate::error::DataError;
use crate::facts::Description;
use crate::files::{MAX_ITEMS, MAX_JSON, find, open, stored};
use crate::item::{Item, Mix, Reference, Source};
use crate::set::Set;

const QUESTIONS: (&str, &str) = ("v2_OpenEnded_mscoco_", "_questions.json");
/// People that were asked each question.
const PEOPLE: usize = 10;

#[derive(Deserialize)]
struct Questions {
    #[serde(default)]
    data_type: String,
    #[serde(default)]
    data_subtype: String,
    questions: Vec<RawQuestion>,
}

#[derive(Deserialize)]
struct RawQuestion {
    question_id: u64,
    image_id: u64,
    question: String,
    // The demo world's own keys from here on.
    images: Option<Vec<PathBuf>>,
    video: Option<PathBuf>,
    audio: Option<PathBuf>,
    #[serde(default)]
    needs: Vec<Modality>,
    mix: Option<String>,
    answer_length: Option<String>,
    split: Option<String>,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<RawAnnotation>,
}

#[derive(Deserialize)]
struct RawAnnotation {
    question_id: u64,
    image_id: u64,
    #[serde(default)]
    question_type: String,
    #[serde(default)]
    answer_type: String,
    multiple_choice_answer: String,
    answers: Vec<RawAnswer>,
}

#[derive(Deserialize)]
struct RawAnswer {
    answer: Box<str>,
    answer_id: u32,
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let mut json = serde_json::Deserializer::from_reader(open(path, MAX_JSON)?);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let at = error.path().to_string();
        let at = if at == "." { "the file".into() } else { at };
        let inner = error.into_inner();
        let hint = if inner.is_eof() {
            "; the file ends too early: fetch it again"
        } else if inner.is_syntax() {
            "; this is not JSON: fetch it again"
        } else {
            ""
        };
        DataError::content(path, at, format!("{inner}{hint}"))
    })?;
    json.end()
        .map_err(|error| DataError::content(path, "after the end", error.to_string()))?;
    Ok(value)
}

/// Each text once, however many questions have it.
#[derive(Default)]
struct Texts(HashSet<Arc<str>>);

impl Texts {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

/// Media files, each looked for once.
struct Media<'a> {
    folder: &'a Path,
    subtype: &'a str,
    questions: &'a Path,
    found: HashMap<PathBuf, PathBuf>,
}

impl Media<'_> {
    fn problem(&self, question: u64, problem: String) -> DataError {
        DataError::content(self.questions, format!("question {question}"), problem)
    }

    /// A file that the question names.
    fn named(&mut self, question: u64, name: &Path) -> Result<PathBuf, DataError> {
        if !name
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(self.problem(
                question,
                format!("{}: media must lie in the set's folder", name.display()),
            ));
        }
        self.look(question, name, &[""])
    }

    /// The picture that goes by a number, in one of the places that people unpack COCO to.
    fn numbered(&mut self, question: u64, image: u64) -> Result<PathBuf, DataError> {
        let name = format!("COCO_{}_{image:012}.jpg", self.subtype);
        let places = [
            String::new(),
            "images".to_owned(),
            self.subtype.to_owned(),
            format!("images/{}", self.subtype),
            format!("Images/mscoco/{}", self.subtype),
        ];
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        self.look(question, Path::new(&name), &places)
    }

    fn look(&mut self, question: u64, name: &Path, places: &[&str]) -> Result<PathBuf, DataError> {
        if let Some(path) = self.found.get(name) {
            return Ok(path.clone());
        }
        let mut paths = places
            .iter()
            .map(|place| self.folder.join(place).join(name));
        let Some(path) = paths.find(|path| path.is_file()) else {
            let among: Vec<&str> = places.iter().filter(|it| !it.is_empty()).copied().collect();
            let among = match among.as_slice() {
                [] => String::new(),
                some => format!(" and its subfolders {}", some.join(", ")),
            };
            return Err(self.problem(
                question,
                format!(
                    "{} is missing in {}{among}: unpack the set's media there",
                    name.display(),
                    self.folder.display()
                ),
            ));
        };
        self.found.insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

/// Reads the questions of `split`, or of the only one there is. `one_will_do`: questions of the demo world may have one answer.
pub(crate) fn load(
    folder: &Path,
    split: Option<&str>,
    one_will_do: bool,
) -> Result<Set, DataError> {
    let (path, split) = choose(folder, split)?;
    let answers_path = stored(folder, &format!("v2_mscoco_{split}_annotations.json"));
    let answers_path = answers_path.ok_or_else(|| {
        DataError::folder(
            folder,
            format!(
                "v2_mscoco_{split}_annotations.json is missing: fetch it; for test splits, whose answers are not published, \
                 take val2014"
            ),
        )
    })?;
    let file: Questions = parse(&path)?;
    if file.questions.is_empty() || file.questions.len() > MAX_ITEMS {
        let count = file.questions.len();
        return Err(DataError::content(
            &path,
            "questions",
            format!("there are {count}, where 1 to {MAX_ITEMS} can be"),
        ));
    }
    let mut annotations = annotations(&answers_path)?;
    let demo = file.data_type == "demo";
    let name: Arc<str> = if demo {
        split
    } else {
        format!("vqav2-{split}")
    }
    .into();
    let subtype = if file.data_subtype.is_empty() {
        name.trim_start_matches("vqav2-")
    } else {
        file.data_subtype.as_str()
    };
    let mut media = Media {
        folder,
        subtype,
        questions: &path,
        found: HashMap::new(),
    };
    let mut texts = Texts::default();
    let mut ids = HashSet::new();
    let mut items = Vec::with_capacity(file.questions.len());
    for raw in file.questions {
        let id = raw.question_id;
        let at = format!("question {id}");
        if !ids.insert(id) {
            return Err(DataError::content(&path, at, "question_id is there twice"));
        }
        let Some(annotation) = annotations.remove(&id) else {
            return Err(DataError::content(
                &path,
                at,
                format!(
                    "has no annotation in {}: the two files must be of one split",
                    answers_path.display()
                ),
            ));
        };
        if annotation.image_id != raw.image_id {
            return Err(DataError::content(
                &answers_path,
                at,
                format!(
                    "image_id is {}, but {} in the questions: the two files must be of one split",
                    annotation.image_id, raw.image_id
                ),
            ));
        }
        let kind = texts.get(&annotation.question_type);
        let answer_type = texts.get(&annotation.answer_type);
        let long = raw.answer_length.as_deref() == Some("long");
        let answer = texts.get(&annotation.multiple_choice_answer);
        let reference = reference(&answers_path, annotation, long, demo, one_will_do)?;
        let files = collect(&mut media, &raw, demo)?;
        let mix = Mix::of(files.iter().map(|(modality, _)| *modality));
        if let Some(said) = &raw.mix
            && said.parse() != Ok(mix)
        {
            let problem = format!("mix is {said}, but the media are {mix}");
            return Err(DataError::content(&path, at, problem));
        }
        items.push(Item {
            id,
            set: name.clone(),
            kind,
            answer_type,
            mix,
            text: raw.question,
            media: files,
            needs: raw.needs,
            long,
            seen_mix: raw.split.as_deref() != Some("unseen-mix"),
            answer,
            reference,
        });
    }
    Ok(Set { name, items })
}

/// The file of questions, and its split.
fn choose(folder: &Path, split: Option<&str>) -> Result<(PathBuf, String), DataError> {
    let mut found = find(folder, QUESTIONS.0, QUESTIONS.1)?;
    let names: Vec<String> = found.iter().map(|it| it.middle.clone()).collect();
    if let Some(split) = split {
        found.retain(|it| it.middle == split);
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok((one.path, one.middle)),
        (Some(_), false) => Err(DataError::folder(
            folder,
            format!("there are the splits {}: name one", names.join(", ")),
        )),
        (None, _) => {
            let what = split.unwrap_or("{split}");
            let (begin, end) = QUESTIONS;
            let there = match names.as_slice() {
                [] => String::new(),
                some => format!(" (there is {})", some.join(", ")),
            };
            let problem = format!("{begin}{what}{end} is missing{there}: name VQAv2's folder");
            Err(DataError::folder(folder, problem))
        }
    }
}

fn annotations(path: &Path) -> Result<HashMap<u64, RawAnnotation>, DataError> {
    let file: Annotations = parse(path)?;
    let mut all = HashMap::with_capacity(file.annotations.len());
    for annotation in file.annotations {
        let id = annotation.question_id;
        if all.insert(id, annotation).is_some() {
            let at = format!("annotation of question {id}");
            return Err(DataError::content(path, at, "is there twice"));
        }
    }
    Ok(all)
}

fn reference(
    path: &Path,
    annotation: RawAnnotation,
    long: bool,
    demo: bool,
    one_will_do: bool,
) -> Result<Reference, DataError> {
    let at = || format!("annotation of question {}", annotation.question_id);
    let count = annotation.answers.len();
    let one = one_will_do && demo && count == 1;
    if count != PEOPLE && !one {
        return Err(DataError::content(
            path,
            at(),
            format!(
                "has {count} answers; the soft accuracy is that of {PEOPLE} (a demo set made with --seen has 1, and is for \
                 training)"
            ),
        ));
    }
    let ids: HashSet<u32> = annotation.answers.iter().map(|it| it.answer_id).collect();
    if ids.len() != count {
        return Err(DataError::content(
            path,
            at(),
            "an answer_id is there twice",
        ));
    }
    if long {
        let described = Description::read(&annotation.multiple_choice_answer);
        let described = described.map_err(|problem| {
            DataError::content(path, at(), format!("multiple_choice_answer: {problem}"))
        })?;
        return Ok(Reference::Facts(described));
    }
    let answers = annotation.answers.into_iter().map(|it| it.answer);
    let mut answers: Vec<Box<str>> = answers.collect();
    if let (true, Some(only)) = (one, answers.first().cloned()) {
        answers.resize(PEOPLE, only);
    }
    let rules = if demo { Rules::Demo } else { Rules::Official };
    Ok(Reference::Vqa(Answers::new(answers, rules)))
}

/// In the order of the prompt. A published question is about one picture; a demo one names what it is about.
fn collect(
    media: &mut Media<'_>,
    raw: &RawQuestion,
    demo: bool,
) -> Result<Vec<(Modality, Source)>, DataError> {
    let id = raw.question_id;
    if !demo {
        let path = media.numbered(id, raw.image_id)?;
        return Ok(vec![(Modality::Image, Source::File(path))]);
    }
    let images = raw.images.iter().flatten().map(|it| (Modality::Image, it));
    let video = raw.video.iter().map(|it| (Modality::Video, it));
    let audio = raw.audio.iter().map(|it| (Modality::Audio, it));
    let named = images.chain(video).chain(audio);
    let found = named.map(|(modality, name)| Ok((modality, Source::File(media.named(id, name)?))));
    found.collect()
}
