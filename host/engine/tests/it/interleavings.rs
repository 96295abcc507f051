//! Prompts of any length, read in any pieces, pruned, probed, gone on with, taken back and split in any order: whatever
//! happens beside a sequence, it gets what it gets alone. On two threads, among which attention over more than 512
//! tokens is divided.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::inputs::ModelInputs;
use msao_core::sampling::{Sampler, SamplingParams, Scratch};
use msao_engine::service::{Event, Open, Service, ServiceOptions, Session, Tell};
use msao_engine::{
    Keep, Kernels, LoadOptions, Model, Needs, OpenOptions, Padding, Precision, ProbeOptions,
    Runner, RunnerOptions, SequenceId, Work, items,
};
use msao_golden::{Case, cases_of, models, root};
use proptest::prelude::*;

/// What two ways of computing the same logits may differ by in f32.
const TOLERANCE: f32 = 1e-4;
/// Most tokens of an answer.
const RESERVE: usize = 400;
/// Ids of plain text: those of media have no place in it.
const TEXT: usize = 60;

fn options(kernels: Kernels) -> LoadOptions {
    msao_engine::set_threads(2);
    LoadOptions {
        precision: Precision::F32,
        kernels,
        ..Default::default()
    }
}

fn load(name: &str, kernels: Kernels) -> Model {
    Model::load(&root().join("models").join(name), &options(kernels)).unwrap()
}

/// Numbers below any bound, from a tape that proptest shrinks.
struct Tape<'a>(std::iter::Cycle<std::iter::Copied<std::slice::Iter<'a, u32>>>);

impl<'a> Tape<'a> {
    fn new(tape: &'a [u32]) -> Self {
        Tape(tape.iter().copied().cycle())
    }

    fn draw(&mut self, below: usize) -> usize {
        self.0.next().unwrap() as usize % below.max(1)
    }

    fn text(&mut self, tokens: usize) -> Vec<u32> {
        (0..tokens).map(|_| self.draw(TEXT) as u32).collect()
    }

    /// Often short, sometimes up to `most`.
    fn length(&mut self, most: usize) -> usize {
        let most = [40, 600, most][self.draw(3)].min(most);
        1 + self.draw(most)
    }
}

/// A prompt and how it is read.
#[derive(Clone, Debug)]
struct Prompt {
    inputs: Arc<ModelInputs>,
    probe: bool,
    keep: Option<Keep>,
}

impl Prompt {
    /// Text, or the prompt of a case between two texts.
    fn draw(tape: &mut Tape, cases: &[Case], model: &Model) -> Self {
        if tape.draw(2) == 0 {
            let length = tape.length(2000);
            return Prompt {
                inputs: Arc::new(ModelInputs {
                    input_ids: tape.text(length),
                    ..Default::default()
                }),
                probe: false,
                keep: None,
            };
        }
        let mut inputs = cases[tape.draw(cases.len())].prepared.inputs.clone();
        let (before, behind) = (tape.length(900), tape.length(900));
        let mut ids = tape.text(before);
        ids.append(&mut inputs.input_ids);
        ids.extend(tape.text(behind));
        inputs.input_ids = ids;
        let found = items(model.config(), &inputs).unwrap();
        let keep = (tape.draw(3) > 0).then(|| Keep {
            items: found
                .iter()
                .map(|item| {
                    let step = 1 + tape.draw(4);
                    let tokens = 0..item.places.len() as u32;
                    (step > 1).then(|| tokens.step_by(step).collect())
                })
                .collect(),
        });
        Prompt {
            inputs: Arc::new(inputs),
            probe: tape.draw(2) == 0,
            keep,
        }
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            keep: self.keep.clone().filter(|_| !self.probe),
            probe: self.probe.then(|| ProbeOptions {
                content_free: vec![1, 2, 3],
                seed: 5,
            }),
        }
    }

    /// What is said once the probe has looked.
    fn keep(&self, items: usize) -> Keep {
        self.keep.clone().unwrap_or(Keep {
            items: vec![None; items],
        })
    }
}

/// One sequence in a runner in which nobody else is, read in one piece and gone on with token by token.
struct Alone {
    id: SequenceId,
    tokens: Vec<u32>,
    after_prompt: Vec<f32>,
}

impl Alone {
    fn new(runner: &mut Runner, prompt: &Prompt) -> Self {
        let inputs = Arc::clone(&prompt.inputs);
        let id = runner.open(inputs, RESERVE, &prompt.options()).unwrap();
        loop {
            match runner.needs(id).unwrap() {
                Needs::Encoding => runner.encode(id).unwrap(),
                Needs::Keeping => {
                    let items = runner.items(id).unwrap().len();
                    runner.keep(id, &prompt.keep(items)).unwrap();
                }
                Needs::Reading(left) => {
                    let rows = runner.run(&[(id, Work::Read(left))]).unwrap();
                    let after_prompt = rows.of(0).to_vec();
                    if !after_prompt.is_empty() {
                        return Alone {
                            id,
                            tokens: Vec::new(),
                            after_prompt,
                        };
                    }
                }
                Needs::Nothing => panic!("a prompt gave no logits"),
            }
        }
    }

    /// The logits behind an answer that begins like this.
    fn after(&mut self, runner: &mut Runner, answer: &[u32]) -> Vec<f32> {
        let Some((last, before)) = answer.split_last() else {
            return self.after_prompt.clone();
        };
        let pairs = self.tokens.iter().zip(before);
        let common = pairs.take_while(|(a, b)| a == b).count();
        let back = self.tokens.len() - common;
        runner.roll_back(self.id, back).unwrap();
        self.tokens.truncate(common);
        let mut logits = Vec::new();
        for token in before[common..].iter().chain([last]) {
            let rows = runner.run(&[(self.id, Work::Extend(&[*token]))]).unwrap();
            logits = rows.of(0).to_vec();
            self.tokens.push(*token);
        }
        logits
    }
}

fn assert_close(ours: &[f32], expected: &[f32], what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (a, b) in ours.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{what}: {a} instead of {b}");
    }
}

/// A sequence among others.
struct Running {
    id: SequenceId,
    prompt: Prompt,
    /// Made when its prompt has been read.
    alone: Option<usize>,
    answer: Vec<u32>,
}

/// Drives a runner by a tape and holds every logit against sequences that run alone.
fn drive(name: &str, kernels: Kernels, padding: Padding, tape: &[u32]) {
    let cases: Vec<Case> = cases_of(name).into_iter().collect();
    let runner = |prefixes, padding| {
        let options = RunnerOptions {
            cache_bytes: 256 << 20,
            media_cache_bytes: 1 << 20,
            prefixes,
            padding,
            ..Default::default()
        };
        Runner::new(load(name, kernels), &options).unwrap()
    };
    let mut runner_alone = runner(0, Padding::Never);
    let mut runner = runner(3, padding);
    let vocabulary = runner.model().config().text.vocab_size;
    let mut tape = Tape::new(tape);
    let mut alone: Vec<Alone> = Vec::new();
    let mut running: Vec<Running> = Vec::new();
    for _ in 0..16 {
        if running.len() < 5 && tape.draw(2) == 0 {
            let prompt = Prompt::draw(&mut tape, &cases, runner.model());
            let inputs = Arc::clone(&prompt.inputs);
            let id = runner.open(inputs, RESERVE, &prompt.options()).unwrap();
            running.push(Running {
                id,
                prompt,
                alone: None,
                answer: Vec::new(),
            });
        }
        // What each does in this round; a probed prompt is read by itself.
        let mut together: Vec<(usize, What)> = Vec::new();
        let mut apart: Vec<(usize, What)> = Vec::new();
        for (index, one) in running.iter().enumerate() {
            if tape.draw(4) == 0 {
                continue;
            }
            if tape.draw(2) == 0 {
                runner.share(one.id).unwrap();
            }
            while runner.needs(one.id).unwrap() == Needs::Encoding {
                runner.encode(one.id).unwrap();
            }
            match runner.needs(one.id).unwrap() {
                Needs::Keeping => {
                    let report = runner.probed(one.id).unwrap();
                    let keep = one.prompt.keep(report.items.len());
                    runner.keep(one.id, &keep).unwrap();
                }
                Needs::Reading(_) if runner.is_probed(one.id) => {
                    apart.push((index, What::Read(tape.length(1500))));
                }
                Needs::Reading(_) => together.push((index, What::Read(tape.length(1500)))),
                _ => {
                    let most = if tape.draw(6) == 0 { 150 } else { 9 };
                    let count = 1 + tape.draw(most);
                    if one.answer.len() + count > RESERVE {
                        continue;
                    }
                    let tokens = tape.text(count);
                    together.push((
                        index,
                        match tape.draw(3) {
                            0 => What::Append(tokens),
                            _ => What::Verify(tokens),
                        },
                    ));
                }
            }
        }
        let batches = apart
            .into_iter()
            .map(|one| vec![one])
            .chain((!together.is_empty()).then_some(together));
        for round in batches.collect::<Vec<_>>() {
            let batch: Vec<(SequenceId, Work)> = round
                .iter()
                .map(|(index, what)| (running[*index].id, what.work()))
                .collect();
            let rows = runner.run(&batch).unwrap();
            for ((index, what), ours) in round.iter().zip(rows.iter()) {
                let one = &mut running[*index];
                let tokens = match what {
                    What::Read(_) if ours.is_empty() => continue,
                    What::Read(_) => {
                        let new = Alone::new(&mut runner_alone, &one.prompt);
                        assert_close(ours, &new.after_prompt, "prompt");
                        one.alone = Some(alone.len());
                        alone.push(new);
                        continue;
                    }
                    What::Append(tokens) | What::Verify(tokens) => tokens,
                };
                let beside = &mut alone[one.alone.unwrap()];
                if let What::Append(_) = what {
                    one.answer.extend(tokens);
                    let expected = beside.after(&mut runner_alone, &one.answer);
                    assert_close(ours, &expected, "append");
                    continue;
                }
                for (row, token) in ours.chunks(vocabulary).zip(tokens) {
                    one.answer.push(*token);
                    let expected = beside.after(&mut runner_alone, &one.answer);
                    assert_close(row, &expected, "verify");
                }
                // Of the drafts some stand; sometimes more is taken back.
                let back = match tape.draw(5) {
                    0 => tape.draw(one.answer.len() + 1),
                    _ => tape.draw(tokens.len() + 1),
                };
                runner.roll_back(one.id, back).unwrap();
                one.answer.truncate(one.answer.len() - back);
            }
        }
        let read: Vec<usize> = (0..running.len())
            .filter(|&index| running[index].alone.is_some())
            .collect();
        if !read.is_empty() {
            let index = read[tape.draw(read.len())];
            match tape.draw(5) {
                0 => {
                    let gone = running.swap_remove(index);
                    runner.close(gone.id).unwrap();
                }
                1 => {
                    let one = &running[index];
                    let split = Running {
                        id: runner.fork(one.id).unwrap(),
                        prompt: one.prompt.clone(),
                        alone: one.alone,
                        answer: one.answer.clone(),
                    };
                    running.push(split);
                }
                _ => {}
            }
        }
    }
    for one in running {
        runner.close(one.id).unwrap();
    }
    runner.clear_caches();
    assert_eq!(runner.occupancy(), Default::default());
}

/// A sequence's part in a round.
enum What {
    Read(usize),
    Append(Vec<u32>),
    Verify(Vec<u32>),
}

impl What {
    fn work(&self) -> Work<'_> {
        match self {
            What::Read(most) => Work::Read(*most),
            What::Append(tokens) => Work::Append(tokens),
            What::Verify(tokens) => Work::Extend(tokens),
        }
    }
}

/// A choice that a service made: by which noise, behind which answer, and what.
struct Choice {
    seed: u64,
    behind: Vec<u32>,
    id: u32,
}

fn sampler(prompt: &Prompt, vocabulary: usize, seed: u64) -> Sampler {
    let params = SamplingParams {
        temperature: 0.8,
        seed,
        ..Default::default()
    };
    Sampler::new(params, vocabulary as u32, &prompt.inputs.input_ids).unwrap()
}

/// One client of a service.
struct Client {
    session: Session,
    seed: u64,
    answer: Vec<u32>,
    made: Vec<Choice>,
}

impl Client {
    fn chose(&mut self, id: u32) {
        self.made.push(Choice {
            seed: self.seed,
            behind: self.answer.clone(),
            id,
        });
        self.answer.push(id);
    }

    async fn generate(&mut self, most: usize) {
        let mut events = self.session.generate(most).unwrap();
        loop {
            match events.recv().await.unwrap() {
                Event::Token(step) => self.chose(step.pick.id),
                Event::End(_) => return,
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }

    async fn verify(&mut self, drafts: Vec<u32>) {
        let verdict = self.session.verify(drafts.clone()).await.unwrap();
        assert_eq!(verdict.picks.len(), verdict.accepted + 1);
        for (place, pick) in verdict.picks.iter().enumerate() {
            assert_eq!(
                place < verdict.accepted,
                drafts.get(place) == Some(&pick.id)
            );
            self.chose(pick.id);
        }
    }

    async fn roll_back(&mut self, tokens: usize) {
        self.session.roll_back(tokens).await.unwrap();
        self.answer.truncate(tokens);
    }
}

/// What one client asks for; gives back the choices that were made for it.
async fn visit(
    service: Service,
    prompt: Prompt,
    vocabulary: usize,
    seed: u64,
    numbers: Vec<u32>,
) -> Vec<Choice> {
    let mut tape = Tape::new(&numbers);
    let open = Open {
        inputs: Arc::clone(&prompt.inputs),
        sampler: sampler(&prompt, vocabulary, seed),
        reserve: RESERVE,
        options: prompt.options(),
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    };
    let session = service.open(open).await.unwrap();
    if prompt.probe {
        let report = session.probed().await.unwrap();
        let keep = prompt.keep(report.items.len());
        session.keep(keep).await.unwrap();
    }
    let mut clients = vec![Client {
        session,
        seed,
        answer: Vec::new(),
        made: Vec::new(),
    }];
    // Tokens that the model once chose, to draft again.
    let mut known: Vec<u32> = Vec::new();
    for _ in 0..10 {
        let number = tape.draw(clients.len());
        let client = &mut clients[number];
        if client.answer.len() + 200 > RESERVE {
            client.roll_back(3).await;
        }
        match tape.draw(6) {
            0 => {
                client.generate(1 + tape.draw(8)).await;
                known.clone_from(&client.answer);
            }
            1 | 2 => {
                let from = known.iter().skip(client.answer.len());
                let mut drafts: Vec<u32> = from.take(tape.draw(9)).copied().collect();
                let wrong = tape.draw(3);
                drafts.extend(tape.text(wrong));
                client.verify(drafts).await;
            }
            3 => {
                let most = if tape.draw(4) == 0 { 150 } else { 6 };
                let count = 1 + tape.draw(most);
                let tokens = tape.text(count);
                client.session.append(tokens.clone()).await.unwrap();
                client.answer.extend(tokens);
            }
            4 => {
                let tokens = tape.draw(client.answer.len() + 1);
                client.roll_back(tokens).await;
            }
            _ => {
                let seed = seed + 100 * clients.len() as u64;
                let client = &clients[number];
                let mut other = sampler(&prompt, vocabulary, seed);
                for token in &client.answer {
                    other.commit(*token);
                }
                let session = client.session.fork(other).await.unwrap();
                let answer = client.answer.clone();
                clients.push(Client {
                    session,
                    seed,
                    answer,
                    made: Vec::new(),
                });
            }
        }
    }
    for client in &mut clients {
        assert_eq!(client.session.output().await.unwrap(), client.answer);
        client.generate(2).await;
    }
    clients.into_iter().flat_map(|client| client.made).collect()
}

/// Lets some clients at a service and holds every choice against the logits of their sequence alone.
fn serve(name: &str, kernels: Kernels, numbers: &[u32]) {
    let cases: Vec<Case> = cases_of(name).into_iter().collect();
    let runner_options = RunnerOptions {
        cache_bytes: 256 << 20,
        media_cache_bytes: 1 << 20,
        prefixes: 0,
        ..Default::default()
    };
    let mut runner = Runner::new(load(name, kernels), &runner_options).unwrap();
    let vocabulary = runner.model().config().text.vocab_size;
    let mut tape = Tape::new(numbers);
    let prompts: Vec<Prompt> = (0..4)
        .map(|_| Prompt::draw(&mut tape, &cases, runner.model()))
        .collect();
    let made: Vec<Vec<Choice>> = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let service_options = ServiceOptions {
                // Not left to the process: tests beside this one set it to one.
                threads: Some(2),
                runner: RunnerOptions {
                    prefixes: 3,
                    ..runner_options
                },
                prompt_rows: 1 + tape.draw(700),
                idle_prompt_rows: 1 + tape.draw(1500),
                decode_rows: 16 + tape.draw(100),
                ..Default::default()
            };
            let dir = root().join("models").join(name);
            let service = Service::start(dir, options(kernels), service_options);
            let service = service.await.unwrap();
            let mut visits = Vec::new();
            for (seed, prompt) in prompts.iter().enumerate() {
                let numbers: Vec<u32> = (0..60).map(|_| tape.draw(1 << 30) as u32).collect();
                visits.push(tokio::spawn(visit(
                    service.clone(),
                    prompt.clone(),
                    vocabulary,
                    seed as u64,
                    numbers,
                )));
            }
            let mut made = Vec::new();
            for visit in visits {
                made.push(visit.await.unwrap());
            }
            made
        });
    let mut scratch = Scratch::default();
    for (prompt, made) in prompts.iter().zip(made) {
        let mut alone = Alone::new(&mut runner, prompt);
        for choice in made {
            let logits = alone.after(&mut runner, &choice.behind);
            let sampler = sampler(prompt, vocabulary, choice.seed);
            let index = choice.behind.len() as u32;
            let pick = sampler.pick(&logits, index, None, &mut scratch).unwrap();
            // Two that are as good as equal may change places.
            assert!(
                pick.id == choice.id || pick.margin < f64::from(2.0 * TOLERANCE),
                "{} instead of {} by {}, behind {index} tokens",
                choice.id,
                pick.id,
                pick.margin
            );
        }
        runner.close(alone.id).unwrap();
    }
}

fn name(model: prop::sample::Index) -> String {
    let names: Vec<String> = models();
    names[model.index(names.len())].clone()
}

fn kernels(libtorch: bool) -> Kernels {
    if libtorch {
        Kernels::Libtorch
    } else {
        Kernels::Best
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..Default::default() })]

    #[test]
    fn whatever_runs_beside_a_sequence_it_gets_what_it_gets_alone(
        tape in prop::collection::vec(any::<u32>(), 300..600),
        model in any::<prop::sample::Index>(),
        libtorch in any::<bool>(),
    ) {
        drive(&name(model), kernels(libtorch), Padding::Never, &tape);
    }

    #[test]
    fn a_padded_pass_gives_what_another_gives(
        tape in prop::collection::vec(any::<u32>(), 300..600),
        model in any::<prop::sample::Index>(),
    ) {
        drive(&name(model), Kernels::Libtorch, Padding::Always, &tape);
    }

    #[test]
    fn whatever_is_ordered_the_choices_are_those_of_the_sequence_alone(
        tape in prop::collection::vec(any::<u32>(), 300..600),
        model in any::<prop::sample::Index>(),
        libtorch in any::<bool>(),
    ) {
        serve(&name(model), kernels(libtorch), &tape);
    }
}
