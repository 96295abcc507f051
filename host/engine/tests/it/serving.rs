//! Whatever a batch is made of, each sequence gets what it would get alone: property tests of the runner against
//! one-sequence passes, on golden checkpoints of the three families.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::inputs::{Grid, ModelInputs};
use msao_engine::{
    Keep, Kernels, LoadOptions, Model, Needs, OpenOptions, Precision, ProbeOptions, Runner,
    RunnerOptions, Sequence, SequenceId, Work, items,
};
use msao_golden::{Case, cases_of, models, root};
use proptest::prelude::*;

/// What two ways of computing the same logits may differ by in f32.
const TOLERANCE: f32 = 1e-4;

fn load(name: &str, kernels: Kernels) -> Model {
    msao_engine::set_threads(1);
    let options = LoadOptions {
        precision: Precision::F32,
        kernels,
        ..Default::default()
    };
    Model::load(&root().join("models").join(name), &options).unwrap()
}

/// A runner that keeps nothing for later.
fn plain(model: Model) -> Runner {
    let options = RunnerOptions {
        cache_bytes: 64 << 20,
        media_cache_bytes: 0,
        prefixes: 0,
        ..Default::default()
    };
    Runner::new(model, &options).unwrap()
}

fn inputs(case: &Case) -> Arc<ModelInputs> {
    Arc::new(case.prepared.inputs.clone())
}

/// Encodes what a sequence needs and reads its prompt in pieces of at most `piece` tokens.
fn read(runner: &mut Runner, id: SequenceId, piece: usize) -> Vec<f32> {
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(left) => {
                let rows = runner.run(&[(id, Work::Read(piece))]).unwrap();
                let logits = rows.of(0).to_vec();
                assert_eq!(logits.is_empty(), left > piece && piece > 0);
                if !logits.is_empty() {
                    return logits;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn open(runner: &mut Runner, case: &Case) -> SequenceId {
    runner
        .open(inputs(case), 64, &OpenOptions::default())
        .unwrap()
}

fn assert_close(ours: &[f32], expected: &[f32], what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (a, b) in ours.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{what}: {a} instead of {b}");
    }
}

/// One case of each checkpoint, those with most media first.
fn chosen() -> Vec<(String, Case)> {
    let mut chosen = Vec::new();
    for name in models() {
        let mut cases: Vec<Case> = cases_of(&name).into_iter().collect();
        cases.sort_by_key(|case| {
            let inputs = &case.prepared.inputs;
            let media = usize::from(inputs.images.is_some())
                + usize::from(inputs.videos.is_some())
                + usize::from(inputs.audio.is_some());
            (std::cmp::Reverse(media), case.name.clone())
        });
        if let Some(case) = cases.into_iter().next() {
            chosen.push((name, case));
        }
    }
    assert!(chosen.len() > 8);
    chosen
}

#[test]
fn a_prompt_read_in_pieces_is_the_prompt_read_at_once() {
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        for (name, case) in chosen() {
            let model = load(&name, kernels);
            let mut alone = model.start().unwrap();
            let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
            let mut runner = plain(model);
            for piece in [1, 7, 16, 33, 100_000] {
                let id = open(&mut runner, &case);
                let logits = read(&mut runner, id, piece);
                assert_close(&logits, &expected, &format!("{name}, pieces of {piece}"));
                runner.close(id).unwrap();
            }
            assert_eq!(runner.occupancy(), Default::default());
        }
    }
}

#[test]
fn keeping_every_token_is_keeping_no_list() {
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        for (name, case) in chosen() {
            let model = load(&name, kernels);
            let found = items(model.config(), &case.prepared.inputs).unwrap();
            let mut alone = model.start().unwrap();
            let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
            let mut runner = plain(model);
            let keep = Keep {
                items: found
                    .iter()
                    .map(|item| Some((0..item.places.len() as u32).collect()))
                    .collect(),
            };
            // Before the first layer.
            let options = OpenOptions {
                keep: Some(keep.clone()),
                probe: None,
            };
            let id = runner.open(inputs(&case), 8, &options).unwrap();
            assert_close(&read(&mut runner, id, 20), &expected, &name);
            runner.close(id).unwrap();
            // Behind the probe's layers.
            let options = OpenOptions {
                keep: None,
                probe: Some(ProbeOptions {
                    content_free: vec![1, 2, 3],
                    seed: 5,
                }),
            };
            let id = runner.open(inputs(&case), 8, &options).unwrap();
            look(&mut runner, id, 20);
            let report = runner.probed(id).unwrap();
            assert_eq!(report.items.len(), found.len());
            for (item, found) in report.items.iter().zip(&found) {
                let tokens = found.places.len();
                assert_eq!(item.saliency.len(), tokens);
                assert_eq!(item.features.len(), 16 * tokens);
                assert_eq!(item.relevance.len(), tokens);
                assert_eq!(item.relevance_of_nothing.len(), tokens);
                assert_eq!(item.grid.patches(), tokens);
                let paid: f32 = item.relevance.iter().sum();
                // A window may hide an item from the token that the answer begins with.
                let window = runner.model().config().text.windows[report.layers];
                let length = case.prepared.inputs.input_ids.len();
                let seen = window.is_none_or(|window| found.places.end + window > length);
                assert_eq!(paid > 0.0, seen, "{name}: {paid}");
                assert!(paid <= 1.0 + 1e-5, "{name}: {paid}");
            }
            runner.keep(id, &keep).unwrap();
            assert_close(&read(&mut runner, id, 20), &expected, &name);
            // And what is read behind it.
            let tokens = &case.greedy_tokens[..5];
            let rows = runner.run(&[(id, Work::Extend(tokens))]).unwrap();
            let expected = runner.model().extend(tokens, &mut alone).unwrap();
            assert_close(rows.of(0), &expected, &name);
            runner.close(id).unwrap();
            assert_eq!(runner.occupancy(), Default::default());
        }
    }
}

/// Runs the probe's layers to the end of the prompt.
fn look(runner: &mut Runner, id: SequenceId, piece: usize) {
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(_) => {
                let rows = runner.run(&[(id, Work::Read(piece))]).unwrap();
                assert!(rows.of(0).is_empty());
            }
            Needs::Keeping => return,
            Needs::Nothing => panic!("the probe was passed over"),
        }
    }
}

/// Opens a prompt with a probe and lets it look.
fn probe(runner: &mut Runner, inputs: &ModelInputs, content_free: &[u32]) -> SequenceId {
    let options = OpenOptions {
        keep: None,
        probe: Some(ProbeOptions {
            content_free: content_free.to_vec(),
            seed: 5,
        }),
    };
    let id = runner.open(Arc::new(inputs.clone()), 8, &options).unwrap();
    look(runner, id, 20);
    id
}

#[test]
fn items_of_no_tokens_have_a_report_of_nothing() {
    for (name, case) in chosen() {
        let mut more = case.prepared.inputs.clone();
        let Some(images) = &mut more.images else {
            continue;
        };
        let nothing = Grid { t: 0, h: 0, w: 0 };
        images.grids.insert(0, nothing);
        let mut runner = plain(load(&name, Kernels::Best));
        let id = probe(&mut runner, &case.prepared.inputs, &[1, 2, 3]);
        let expected = runner.probed(id).unwrap();
        let id = probe(&mut runner, &more, &[1, 2, 3]);
        let report = runner.probed(id).unwrap();
        let found = runner.items(id).unwrap().to_vec();
        assert_eq!(report.items.len(), expected.items.len() + 1);
        let (empty, full): (Vec<_>, Vec<_>) = report
            .items
            .iter()
            .zip(&found)
            .partition(|(_, item)| item.places.is_empty());
        assert_eq!(empty.len(), 1);
        assert!(empty.iter().all(|(report, _)| report.saliency.is_empty()));
        let full: Vec<_> = full.into_iter().map(|(report, _)| report.clone()).collect();
        assert_eq!(full, expected.items, "{name}");
        assert_eq!(report.extra_flops, expected.extra_flops, "{name}");
    }
}

/// Nothing runs before what is kept is said: the one layer is the one looked ahead to.
#[test]
fn a_model_of_one_layer_is_looked_at_too() {
    let name = "qwen2-vl-gqa";
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(root().join("models").join(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["text_config"]["num_hidden_layers"] = 1.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let (_, case) = chosen().into_iter().find(|(it, _)| it == name).unwrap();
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        let options = LoadOptions {
            precision: Precision::F32,
            kernels,
            ..Default::default()
        };
        let mut runner = plain(Model::load(folder.path(), &options).unwrap());
        let id = open(&mut runner, &case);
        let expected = read(&mut runner, id, 20);
        runner.close(id).unwrap();
        let id = probe(&mut runner, &case.prepared.inputs, &[1, 2, 3]);
        let report = runner.probed(id).unwrap();
        assert_eq!(report.layers, 0);
        for item in &report.items {
            let paid = |each: &[f32]| each.iter().sum::<f32>();
            assert!(paid(&item.relevance) > 0.0 && paid(&item.relevance_of_nothing) > 0.0);
        }
        let keep = Keep {
            items: vec![None; report.items.len()],
        };
        runner.keep(id, &keep).unwrap();
        assert_close(&read(&mut runner, id, 20), &expected, "one layer");
        runner.close(id).unwrap();
        assert_eq!(runner.occupancy(), Default::default());
    }
}

#[test]
fn a_look_is_charged_for_its_projection_and_each_score_once() {
    for (name, case) in chosen() {
        let inputs = &case.prepared.inputs;
        let mut runner = plain(load(&name, Kernels::Best));
        let config = runner.model().config().text.clone();
        let id = open(&mut runner, &case);
        read(&mut runner, id, 20);
        let plain = runner.close(id).unwrap().flops();
        let id = probe(&mut runner, inputs, &[]);
        let found = runner.items(id).unwrap().to_vec();
        let report = runner.probed(id).unwrap();
        let tokens: usize = found.iter().map(|item| item.places.len()).sum();
        let length = inputs.input_ids.len();
        let projected = 2 * tokens * config.hidden_size * 16;
        // Of the layer behind the probe's, what attention begins with, and the last token's scores.
        let wide = (config.heads + 2 * config.kv_heads) * config.head_dim;
        let ahead = 2 * length * config.hidden_size * wide;
        let scores = 2 * config.heads * config.head_dim * length;
        assert_eq!(
            report.extra_flops,
            (projected + ahead + scores) as u64,
            "{name}"
        );
        let keep = Keep {
            items: vec![None; found.len()],
        };
        runner.keep(id, &keep).unwrap();
        read(&mut runner, id, 20);
        let whole = runner.close(id).unwrap().flops();
        assert_eq!(whole, plain + report.extra_flops, "{name}");
    }
}

#[test]
fn dropped_tokens_cost_nothing_and_positions_stay() {
    for (name, case) in chosen() {
        let model = load(&name, Kernels::Best);
        let found = items(model.config(), &case.prepared.inputs).unwrap();
        if found.is_empty() {
            continue;
        }
        let mut runner = plain(model);
        let whole = case.prepared.inputs.input_ids.len();
        // Every second token of the first item, the others whole.
        let first: Vec<u32> = (0..found[0].places.len() as u32).step_by(2).collect();
        let dropped = found[0].places.len() - first.len();
        let mut keep = Keep {
            items: vec![None; found.len()],
        };
        keep.items[0] = Some(first);
        let mut meters = Vec::new();
        for options in [
            OpenOptions::default(),
            OpenOptions {
                keep: Some(keep.clone()),
                probe: None,
            },
        ] {
            let id = runner.open(inputs(&case), 8, &options).unwrap();
            let logits = read(&mut runner, id, 50);
            assert!(logits.iter().all(|x| x.is_finite()));
            let left = whole - if options.keep.is_some() { dropped } else { 0 };
            assert_eq!(runner.tokens(id).unwrap(), left);
            // Pieces must not matter here either.
            let again = runner.open(inputs(&case), 8, &options).unwrap();
            assert_close(&read(&mut runner, again, 9), &logits, &name);
            runner.close(again).unwrap();
            meters.push(runner.close(id).unwrap());
        }
        assert!(meters[1].flops() < meters[0].flops(), "{name}");
        assert!(meters[1].cache_bytes < meters[0].cache_bytes, "{name}");
        // Behind the probe: the layers after it hold fewer tokens, those before all.
        let options = OpenOptions {
            keep: None,
            probe: Some(ProbeOptions::default()),
        };
        let id = runner.open(inputs(&case), 8, &options).unwrap();
        look(&mut runner, id, 50);
        runner.keep(id, &keep).unwrap();
        read(&mut runner, id, 50);
        assert_eq!(runner.tokens(id).unwrap(), whole);
        let meter = runner.close(id).unwrap();
        assert!(meter.cache_bytes <= meters[0].cache_bytes, "{name}");
        assert!(meter.cache_bytes > meters[1].cache_bytes, "{name}");
        // A dropped item is not even encoded.
        let nothing = Keep {
            items: vec![Some(Vec::new()); found.len()],
        };
        let options = OpenOptions {
            keep: Some(nothing),
            probe: None,
        };
        let id = runner.open(inputs(&case), 8, &options).unwrap();
        assert_ne!(runner.needs(id).unwrap(), Needs::Encoding, "{name}");
        read(&mut runner, id, 50);
        runner.close(id).unwrap();
    }
}

#[test]
fn keep_lists_that_fit_no_prompt_are_refused() {
    let (name, case) = chosen()
        .into_iter()
        .find(|(_, case)| case.prepared.inputs.images.is_some())
        .unwrap();
    let model = load(&name, Kernels::Best);
    let found = items(model.config(), &case.prepared.inputs).unwrap();
    let tokens = found[0].places.len() as u32;
    let mut runner = plain(model);
    let mut with = |first: Vec<u32>, count: usize| {
        let mut items = vec![None; count];
        items[0] = Some(first);
        let options = OpenOptions {
            keep: Some(Keep { items }),
            probe: None,
        };
        runner.open(inputs(&case), 8, &options)
    };
    assert!(with(vec![0, 1], found.len()).is_ok());
    for (first, count) in [
        (vec![1, 0], found.len()),
        (vec![0, 0], found.len()),
        (vec![tokens], found.len()),
        (vec![0], found.len() + 1),
    ] {
        let error = with(first, count).unwrap_err().to_string();
        assert!(error.contains("keep list"), "{error}");
    }
}

#[test]
fn prompts_that_begin_alike_share_what_was_read() {
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        for (name, case) in chosen() {
            let model = load(&name, kernels);
            let mut alone = model.start().unwrap();
            let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
            let longer = {
                let mut longer = case.prepared.inputs.clone();
                longer.input_ids.extend([5, 6, 7, 8, 9, 10]);
                longer
            };
            let mut alone = model.start().unwrap();
            let expected_longer = model.prefill(&longer, &mut alone).unwrap();
            let mut runner = Runner::new(
                model,
                &RunnerOptions {
                    cache_bytes: 64 << 20,
                    ..Default::default()
                },
            )
            .unwrap();
            let first = open(&mut runner, &case);
            let logits = read(&mut runner, first, 50);
            assert_close(&logits, &expected, &name);
            let spent = runner.close(first).unwrap();
            let held = runner.occupancy();
            assert!(held.held_blocks > 0 && held.held_blocks == held.prefix_blocks);
            // The same again: all but the last token is there, and no encoder runs.
            let again = open(&mut runner, &case);
            assert_eq!(runner.needs(again).unwrap(), Needs::Reading(1), "{name}");
            assert_close(&read(&mut runner, again, 50), &expected, &name);
            assert!(runner.close(again).unwrap().flops() < spent.flops());
            // One that goes on where the first ended.
            let on = runner
                .open(Arc::new(longer), 8, &OpenOptions::default())
                .unwrap();
            assert_eq!(runner.needs(on).unwrap(), Needs::Reading(6), "{name}");
            assert_close(&read(&mut runner, on, 50), &expected_longer, &name);
            runner.close(on).unwrap();
            // Other content at the same places is another prompt.
            let mut other = case.prepared.inputs.clone();
            let changed = match (&mut other.images, &mut other.videos, &mut other.audio) {
                (Some(patches), _, _) | (None, Some(patches), _) => {
                    patches.values.data[0] += 0.5;
                    true
                }
                (None, None, Some(mels)) => {
                    mels.features.data[0] += 0.5;
                    true
                }
                _ => false,
            };
            if changed {
                let id = runner
                    .open(Arc::new(other), 8, &OpenOptions::default())
                    .unwrap();
                assert_eq!(runner.needs(id).unwrap(), Needs::Encoding, "{name}");
                runner.close(id).unwrap();
            }
            runner.clear_caches();
            assert_eq!(runner.occupancy(), Default::default());
        }
    }
}

#[test]
fn a_prompt_takes_over_what_was_read_beside_it() {
    let (name, case) = chosen().into_iter().next().unwrap();
    let model = load(&name, Kernels::Best);
    let mut alone = model.start().unwrap();
    let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
    let options = RunnerOptions {
        cache_bytes: 64 << 20,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &options).unwrap();
    let tokens = case.prepared.inputs.input_ids.len();
    let ids: Vec<SequenceId> = (0..3).map(|_| open(&mut runner, &case)).collect();
    let [first, second, begun] = ids[..] else {
        panic!("three were opened");
    };
    let mut other = case.prepared.inputs.clone();
    other.input_ids.insert(0, 3);
    let other = runner
        .open(Arc::new(other), 8, &OpenOptions::default())
        .unwrap();
    // Worth it only for who has most of it before them.
    let long = tokens > 64;
    assert_eq!(runner.had_better_wait(second, &[first]), long, "{tokens}");
    assert!(!runner.had_better_wait(second, &[]));
    assert!(!runner.had_better_wait(other, &[first]));
    // One of them begins for itself all the same.
    while runner.needs(begun).unwrap() == Needs::Encoding {
        runner.encode(begun).unwrap();
    }
    runner.run(&[(begun, Work::Read(3))]).unwrap();
    assert!(!runner.had_better_wait(begun, &[first]));
    assert_close(&read(&mut runner, first, 50), &expected, &name);
    for id in [second, begun, other] {
        runner.share(id).unwrap();
    }
    assert_eq!(runner.needs(second).unwrap(), Needs::Reading(1));
    assert_eq!(runner.needs(begun).unwrap(), Needs::Reading(tokens - 3));
    assert_close(&read(&mut runner, second, 50), &expected, &name);
    assert_close(&read(&mut runner, begun, 50), &expected, &name);
    for id in [first, second, begun, other] {
        runner.close(id).unwrap();
    }
    runner.clear_caches();
    assert_eq!(runner.occupancy(), Default::default());
}

#[test]
fn media_seen_before_are_not_encoded_again() {
    let (name, case) = chosen()
        .into_iter()
        .find(|(_, case)| case.prepared.inputs.images.is_some())
        .unwrap();
    let model = load(&name, Kernels::Best);
    let mut alone = model.start().unwrap();
    let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
    let mut runner = Runner::new(
        model,
        &RunnerOptions {
            cache_bytes: 64 << 20,
            media_cache_bytes: 1 << 20,
            prefixes: 0,
            ..Default::default()
        },
    )
    .unwrap();
    use msao_core::meter::Phase;
    for turn in 0..2 {
        let id = open(&mut runner, &case);
        assert_close(&read(&mut runner, id, 50), &expected, &name);
        let meter = runner.close(id).unwrap();
        assert_eq!(meter.cost(Phase::Vision).flops > 0, turn == 0);
    }
    assert!(runner.occupancy().media_bytes > 0);
}

#[test]
fn a_full_cache_refuses_and_nothing_is_lost() {
    let (name, case) = chosen().into_iter().next().unwrap();
    let model = load(&name, Kernels::Best);
    let mut alone = model.start().unwrap();
    let expected = model.prefill(&case.prepared.inputs, &mut alone).unwrap();
    let next = model.extend(&case.greedy_tokens[..1], &mut alone).unwrap();
    let config = &model.config().text;
    let token = 2 * 4 * config.layers * config.kv_heads * config.head_dim;
    let tokens = case.prepared.inputs.input_ids.len();
    // Room for one and a half.
    let options = RunnerOptions {
        cache_bytes: (token * (tokens * 3 / 2 + 32)) as u64,
        media_cache_bytes: 0,
        prefixes: 4,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &options).unwrap();
    assert!(runner.fits(tokens));
    let first = open(&mut runner, &case);
    assert_close(&read(&mut runner, first, 50), &expected, &name);
    assert!(!runner.fits(tokens + 64));
    // Another prompt, so that nothing is shared.
    let mut other = case.prepared.inputs.clone();
    other.input_ids.insert(0, 3);
    let second = runner
        .open(Arc::new(other), 8, &OpenOptions::default())
        .unwrap();
    while runner.needs(second).unwrap() == Needs::Encoding {
        runner.encode(second).unwrap();
    }
    let error = runner
        .run(&[
            (first, Work::Extend(&case.greedy_tokens[..1])),
            (second, Work::Read(100_000)),
        ])
        .unwrap_err();
    assert!(error.to_string().contains("cache has room for"), "{error}");
    assert_eq!(runner.tokens(first).unwrap(), tokens);
    assert_eq!(runner.tokens(second).unwrap(), 0);
    let rows = runner
        .run(&[(first, Work::Extend(&case.greedy_tokens[..1]))])
        .unwrap();
    assert_close(rows.of(0), &next, &name);
}

/// A sequence of the runner beside the same one alone.
struct Pair {
    id: SequenceId,
    case: usize,
    alone: Option<Sequence>,
    /// Tokens added behind the prompt.
    tokens: Vec<u32>,
}

impl Pair {
    /// The same state reached by one sequence alone, from nothing.
    fn replay(model: &Model, case: &Case, tokens: &[u32]) -> Sequence {
        let mut alone = model.start().unwrap();
        model.prefill(&case.prepared.inputs, &mut alone).unwrap();
        if !tokens.is_empty() {
            model.extend(tokens, &mut alone).unwrap();
        }
        alone
    }
}

/// Drives a runner by a tape of random numbers and holds every logit against sequences that run alone.
fn drive(name: &str, kernels: Kernels, tape: &[u32]) {
    let cases: Vec<Case> = cases_of(name).into_iter().collect();
    let reference = load(name, kernels);
    let mut runner = Runner::new(
        load(name, kernels),
        &RunnerOptions {
            cache_bytes: 256 << 20,
            media_cache_bytes: 1 << 20,
            prefixes: 3,
            ..Default::default()
        },
    )
    .unwrap();
    let vocabulary = reference.config().text.vocab_size as u32;
    let mut pairs: Vec<Pair> = Vec::new();
    let mut tape = tape.iter().copied().cycle();
    let mut draw = move |below: usize| tape.next().unwrap() as usize % below.max(1);
    for _ in 0..24 {
        if pairs.len() < 6 && draw(3) == 0 {
            let case = draw(cases.len());
            let id = open(&mut runner, &cases[case]);
            pairs.push(Pair {
                id,
                case,
                alone: None,
                tokens: Vec::new(),
            });
        }
        // A batch of some of them, each with work of its own.
        let mut drafts: Vec<(usize, Option<Vec<u32>>, usize)> = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            if draw(4) == 0 {
                continue;
            }
            while runner.needs(pair.id).unwrap() == Needs::Encoding {
                runner.encode(pair.id).unwrap();
            }
            match runner.needs(pair.id).unwrap() {
                Needs::Reading(_) => drafts.push((index, None, 1 + draw(40))),
                _ => {
                    // Ids of plain text: those of media have no place behind a prompt.
                    let count = 1 + draw(9);
                    if pair.tokens.len() + count > 64 {
                        // Room was set aside for no more.
                        continue;
                    }
                    let ids = (0..count).map(|_| draw(vocabulary.min(60) as usize) as u32);
                    drafts.push((index, Some(ids.collect()), 0));
                }
            }
        }
        if drafts.is_empty() {
            continue;
        }
        let batch: Vec<(SequenceId, Work)> = drafts
            .iter()
            .map(|(index, tokens, piece)| {
                let work = match tokens {
                    Some(tokens) => Work::Extend(tokens),
                    None => Work::Read(*piece),
                };
                (pairs[*index].id, work)
            })
            .collect();
        let rows = runner.run(&batch).unwrap();
        for ((index, tokens, _), ours) in drafts.iter().zip(rows.iter()) {
            let pair = &mut pairs[*index];
            let case = &cases[pair.case];
            match tokens {
                None if ours.is_empty() => {}
                None => {
                    let mut alone = reference.start().unwrap();
                    let expected = reference
                        .prefill(&case.prepared.inputs, &mut alone)
                        .unwrap();
                    assert_close(ours, &expected, "prompt");
                    pair.alone = Some(alone);
                }
                Some(tokens) => {
                    // One by one, where the runner read all at once.
                    let alone = pair.alone.as_mut().unwrap();
                    for (row, token) in ours.chunks(vocabulary as usize).zip(tokens) {
                        let expected = reference.extend(&[*token], alone).unwrap();
                        assert_close(row, &expected, "extend");
                    }
                    pair.tokens.extend(tokens);
                    let back = draw(tokens.len() + 1);
                    runner.roll_back(pair.id, back).unwrap();
                    reference.roll_back(back, alone).unwrap();
                    pair.tokens.truncate(pair.tokens.len() - back);
                }
            }
        }
        if let Some(index) = pairs.iter().position(|pair| pair.alone.is_some()) {
            match draw(5) {
                0 => {
                    let pair = pairs.remove(index);
                    runner.close(pair.id).unwrap();
                }
                1 => {
                    let (case, tokens) = (pairs[index].case, pairs[index].tokens.clone());
                    let id = runner.fork(pairs[index].id).unwrap();
                    let alone = Pair::replay(&reference, &cases[case], &tokens);
                    pairs.push(Pair {
                        id,
                        case,
                        alone: Some(alone),
                        tokens,
                    });
                }
                _ => {}
            }
        }
    }
    for pair in pairs {
        runner.close(pair.id).unwrap();
    }
    runner.clear_caches();
    assert_eq!(runner.occupancy(), Default::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..Default::default() })]

    #[test]
    fn any_interleaving_gives_each_what_it_gets_alone(
        tape in prop::collection::vec(any::<u32>(), 200..400),
        model in any::<prop::sample::Index>(),
        libtorch in any::<bool>(),
    ) {
        let names: Vec<String> = models();
        let kernels = if libtorch { Kernels::Libtorch } else { Kernels::Best };
        drive(names[model.index(names.len())].as_str(), kernels, &tape);
    }
}

#[test]
fn room_for_an_answer_stays_set_aside_while_its_prompt_is_read() {
    let (name, case) = chosen().into_iter().next().unwrap();
    let model = load(&name, Kernels::Best);
    let config = &model.config().text;
    let token = 2 * 4 * config.layers * config.kv_heads * config.head_dim;
    let tokens = case.prepared.inputs.input_ids.len();
    let reserve = 64;
    // Room for two, the second of which begins like the first.
    let options = RunnerOptions {
        cache_bytes: (token * (2 * (tokens + reserve) + 64)) as u64,
        media_cache_bytes: 0,
        prefixes: 4,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &options).unwrap();
    let capacity = runner.capacity();
    let first = open(&mut runner, &case);
    while runner.needs(first).unwrap() == Needs::Encoding {
        runner.encode(first).unwrap();
    }
    // However far the prompt has been read, what is left for others is the same.
    while runner.needs(first).unwrap() != Needs::Nothing {
        let left = capacity - tokens - reserve;
        assert!(!runner.fits(left + 32), "{:?}", runner.needs(first));
        assert!(
            runner.fits(left.saturating_sub(48)),
            "{:?}",
            runner.needs(first)
        );
        runner.run(&[(first, Work::Read(13))]).unwrap();
    }
    assert!(!runner.fits(capacity - tokens - reserve + 32));
    // More than was asked for is refused, and nothing is lost.
    let more = vec![3; reserve + 1];
    let error = runner.run(&[(first, Work::Extend(&more))]).unwrap_err();
    assert!(error.to_string().contains("set aside"), "{error}");
    runner.run(&[(first, Work::Extend(&more[1..]))]).unwrap();
    // A prompt that is found whole still has its answer's room set aside.
    let second = open(&mut runner, &case);
    assert_eq!(runner.needs(second).unwrap(), Needs::Reading(1));
    assert!(!runner.fits(capacity - tokens - 2 * reserve + 32));
    assert!(runner.roll_back(second, 1).is_err());
}
