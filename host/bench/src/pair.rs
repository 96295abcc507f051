//! The demo pair on held-out questions, computed by our engine from the media files on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use msao_core::chat::Modality;
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, LoadOptions, Model, Place, Precision, generate};
use msao_media::Limits;
use msao_processor::{Prepared, Processor};

use crate::report::Row;
use crate::vqa::{self, Question};

/// Most tokens of an answer; descriptions are far shorter.
const LONGEST_ANSWER: usize = 160;

/// The share of short answers that the draft is most sure of in which it must equal the target.
const SUREST: f64 = 0.6;

/// One half of the pair.
struct Half {
    model: Model,
    processor: Processor,
}

/// A greedy answer.
struct Answer {
    tokens: Vec<u32>,
    text: String,
    /// The product of the answer's token probabilities, the end's included.
    probability: f64,
}

impl Half {
    fn load(dir: &Path, place: Place) -> Result<Self> {
        let options = LoadOptions {
            place,
            // The figures are those of the stored values computed in f32.
            precision: Precision::F32,
            ..Default::default()
        };
        Ok(Half {
            model: Model::load(dir, &options)?,
            processor: Processor::load(dir)?,
        })
    }

    /// Reads a question from its files on.
    fn prepare(&self, question: &Question, without: &[Modality]) -> Result<Prepared> {
        let (messages, files) = question.ask(without);
        let limits = Limits::default();
        let mut media = Vec::with_capacity(files.len());
        for (modality, path) in files {
            let bytes = msao_media::read_file(path, &limits)?;
            let medium = self.processor.decode(modality, &bytes, &limits);
            media.push(medium.with_context(|| path.display().to_string())?);
        }
        Ok(self.processor.prepare(&messages, &media)?)
    }

    /// Answers greedily.
    fn answer(&self, prepared: &Prepared) -> Result<Answer> {
        let params = SamplingParams {
            temperature: 0.0,
            ..Default::default()
        };
        let vocabulary = self.processor.tokenizer().vocab_size() as u32;
        let mut sampler = Sampler::new(params, vocabulary, &prepared.inputs.input_ids)?;
        let ends = &self.processor.generation().eos_token_ids;
        let options = GenerateOptions {
            max_new_tokens: LONGEST_ANSWER,
            // The end counts as a token here, so that its probability is known; it ends the answer below.
            end_of_sequence: Vec::new(),
            top_logprobs: Some(0),
        };
        let mut log_probability = 0.0;
        let mut tokens = Vec::new();
        generate(
            &self.model,
            &prepared.inputs,
            &mut sampler,
            &options,
            &mut |step| {
                if let Some((chosen, _)) = &step.logprobs {
                    log_probability += chosen.logprob;
                }
                if ends.contains(&step.pick.id) {
                    return ControlFlow::Break(());
                }
                tokens.push(step.pick.id);
                ControlFlow::Continue(())
            },
        )?;
        let text = self
            .processor
            .tokenizer()
            .decode(&tokens, true)
            .trim()
            .to_owned();
        Ok(Answer {
            tokens,
            text,
            probability: log_probability.exp(),
        })
    }

    /// At how many places of a given answer (and its end) this half's best token is the answer's.
    fn agreement(&self, prepared: &Prepared, answer: &[u32]) -> Result<(usize, usize)> {
        let end = self
            .processor
            .generation()
            .eos_token_ids
            .first()
            .copied()
            .context("no end token")?;
        let mut sequence = self.model.start()?;
        let mut rows = self.model.prefill(&prepared.inputs, &mut sequence)?;
        if !answer.is_empty() {
            rows.extend(self.model.extend(answer, &mut sequence)?);
        }
        let vocabulary = self.model.config().text.vocab_size;
        let places = answer.iter().chain([&end]);
        let same = places
            .zip(rows.chunks_exact(vocabulary))
            .filter(|(token, row)| best(row) == **token);
        Ok((same.count(), answer.len() + 1))
    }
}

fn best(row: &[f32]) -> u32 {
    let better = |best: (u32, f32), (id, &logit): (u32, &f32)| {
        if logit > best.1 { (id, logit) } else { best }
    };
    (0u32..).zip(row).fold((0, f32::NEG_INFINITY), better).0
}

/// Counts of right answers.
#[derive(Clone, Copy, Default)]
struct Share {
    right: usize,
    all: usize,
}

impl Share {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.all += 1;
    }

    fn percent(self) -> f64 {
        100.0 * self.right as f64 / self.all.max(1) as f64
    }
}

/// Everything that is counted over the questions.
#[derive(Default)]
struct Tally {
    target: Share,
    draft: Share,
    unseen: Share,
    /// By kind of question: target and draft.
    kinds: BTreeMap<String, (Share, Share)>,
    /// The draft's probability of its short answer, and whether it is the target's.
    sure: Vec<(f64, bool)>,
    /// Places of long answers at which the draft agrees.
    agreed: Share,
    /// By modality: the target with it and without it, on the questions that need it.
    needed: BTreeMap<Modality, (Share, Share)>,
    lengths: Vec<usize>,
    large_pictures: Share,
    /// Picture files already counted.
    pictures: BTreeSet<Option<PathBuf>>,
}

/// What the pair was measured to do; shares in percent.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Short questions of mixes that the recipe trains on.
    pub short_questions: usize,
    /// Of the pictures, those of 256 tokens or more.
    pub large_pictures: f64,
    /// The target's right answers.
    pub target: f64,
    /// The draft's right answers.
    pub draft: f64,
    /// Places of the target's long answers at which the draft's best token is the target's.
    pub agreement: f64,
    /// Of the short answers that the draft is most sure of, those that are the target's.
    pub surest_equal: f64,
    /// By modality: questions that need it, and the points that taking it away costs the target.
    pub needed: BTreeMap<Modality, (usize, f64)>,
    /// The target's right answers on mixes of modalities that the recipe never trains on.
    pub unseen: f64,
    /// Long answers, and their mean length in tokens.
    pub long: (usize, f64),
    /// A line for each kind of question.
    pub kinds: Vec<String>,
}

/// Measures the pair in `models` (`demo-target`, `demo-draft`) on the questions in `models/heldout`; `every` takes
/// each n-th question only. `progress` is told how many questions of how many are done.
pub fn measure(
    models: &Path,
    place: Place,
    every: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Figures> {
    let target = Half::load(&models.join("demo-target"), place)?;
    let draft = Half::load(&models.join("demo-draft"), place)?;
    let questions = vqa::read(&models.join("heldout"))?;
    let chosen: Vec<&Question> = questions.iter().step_by(every.max(1)).collect();
    let mut tally = Tally::default();
    for (done, question) in chosen.iter().enumerate() {
        progress(done, chosen.len());
        let taken = tally.take(&target, &draft, question);
        taken.with_context(|| format!("question {}", question.id))?;
    }
    progress(chosen.len(), chosen.len());
    Ok(tally.figures())
}

/// Bytes of the committed models and held-out set, beside what they may take.
fn sizes(models: &Path) -> Result<Vec<Row>> {
    let size = |folder: &str| -> Result<f64> {
        let mut bytes = 0;
        let mut folders = vec![models.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => folders.push(entry.path()),
                    false => bytes += entry.metadata()?.len(),
                }
            }
        }
        Ok(bytes as f64 / 1e6)
    };
    let pair = size("demo-target")? + size("demo-draft")?;
    Ok(vec![
        Row::at_most("both models in the repository", pair, 12.0, " MB"),
        Row::at_most(
            "held-out set in the repository",
            size("heldout")?,
            5.0,
            " MB",
        ),
    ])
}

/// [`measure`], as rows beside their aims.
pub fn rows(models: &Path, place: Place, every: usize) -> Result<Vec<Row>> {
    let figures = measure(models, place, every, &mut |done, all| {
        if done % 100 == 0 || done == all {
            eprint!("\r  {done} of {all} questions");
        }
    })?;
    eprintln!();
    let percent = " %";
    let mut rows = sizes(models)?;
    let short = figures.short_questions as f64;
    if every <= 1 {
        rows.push(Row::at_least("short held-out questions", short, 2000.0, ""));
        let name = "pictures of 256 tokens or more";
        rows.push(Row::at_least(
            name,
            figures.large_pictures,
            100.0 / 3.0,
            percent,
        ));
    } else {
        rows.push(Row::told("short questions asked", short, ""));
    }
    let right = Row::at_least("target, short answers right", figures.target, 95.0, percent);
    rows.push(right.with_details(figures.kinds));
    rows.push(Row::between(
        "draft, short answers right",
        figures.draft,
        65.0,
        88.0,
        percent,
    ));
    let (long, length) = figures.long;
    let name = format!("draft agrees on tokens of {long} long answers");
    rows.push(Row::at_least(name, figures.agreement, 70.0, percent));
    rows.push(Row::at_least(
        "draft equals target on its surest 60 %",
        figures.surest_equal,
        99.5,
        percent,
    ));
    for modality in [Modality::Image, Modality::Video, Modality::Audio] {
        let (questions, points) = figures.needed.get(&modality).copied().unwrap_or((0, 0.0));
        let name =
            format!("{modality:?} taken away where needed ({questions} questions): points lost");
        rows.push(Row::at_least(name, points, 30.0, ""));
    }
    rows.push(Row::told(
        "target, mixes never trained on",
        figures.unseen,
        percent,
    ));
    rows.push(Row::between(
        "tokens of a long answer, mean",
        length,
        30.0,
        80.0,
        "",
    ));
    Ok(rows)
}

impl Tally {
    fn take(&mut self, target: &Half, draft: &Half, question: &Question) -> Result<()> {
        let prepared = target.prepare(question, &[])?;
        // Pictures by file: several questions share one.
        for (place, span) in prepared.spans.iter().enumerate() {
            let file = question.media.get(place).map(|(_, path)| path.clone());
            if span.modality == Modality::Image && self.pictures.insert(file) {
                self.large_pictures.add(span.tokens.len() >= 256);
            }
        }
        let answer = target.answer(&prepared)?;
        let right = answer.text == question.answer;
        if !question.seen_mix {
            if !question.long {
                self.unseen.add(right);
            }
            return Ok(());
        }
        if question.long {
            self.lengths.push(answer.tokens.len());
            let (same, all) = draft.agreement(&draft.prepare(question, &[])?, &answer.tokens)?;
            self.agreed.right += same;
            self.agreed.all += all;
            return Ok(());
        }
        let drafted = draft.answer(&draft.prepare(question, &[])?)?;
        let draft_right = drafted.text == question.answer;
        self.target.add(right);
        self.draft.add(draft_right);
        let kind = self.kinds.entry(question.kind.clone()).or_default();
        kind.0.add(right);
        kind.1.add(draft_right);
        self.sure
            .push((drafted.probability, drafted.tokens == answer.tokens));
        for &modality in question
            .needs
            .iter()
            .filter(|&&modality| modality != Modality::Text)
        {
            let bare = target.answer(&target.prepare(question, &[modality])?)?;
            let (with, without) = self.needed.entry(modality).or_default();
            with.add(right);
            without.add(bare.text == question.answer);
        }
        Ok(())
    }

    fn figures(mut self) -> Figures {
        self.sure.sort_by(|a, b| b.0.total_cmp(&a.0));
        let count = (SUREST * self.sure.len() as f64).round() as usize;
        let mut surest = Share::default();
        for (_, equal) in self.sure.iter().take(count) {
            surest.add(*equal);
        }
        let lost =
            |(with, without): &(Share, Share)| (with.all, with.percent() - without.percent());
        let long = self.lengths.len();
        let kinds = self.kinds.iter().map(|(kind, (target, draft))| {
            let (of_target, of_draft) = (target.percent(), draft.percent());
            format!(
                "{kind}: target {of_target:.1}, draft {of_draft:.1} % of {}",
                target.all
            )
        });
        Figures {
            short_questions: self.target.all,
            large_pictures: self.large_pictures.percent(),
            target: self.target.percent(),
            draft: self.draft.percent(),
            agreement: self.agreed.percent(),
            surest_equal: surest.percent(),
            needed: self
                .needed
                .iter()
                .map(|(modality, shares)| (*modality, lost(shares)))
                .collect(),
            unseen: self.unseen.percent(),
            long: (
                long,
                self.lengths.iter().sum::<usize>() as f64 / long.max(1) as f64,
            ),
            kinds: kinds.collect(),
        }
    }
}
