//! What a runner does when something inside it fails, which cannot be brought about from outside.

use msao_golden::{Case, cases_of, root};

use super::*;
use crate::device::Precision;
use crate::model::LoadOptions;

const MODEL: &str = "qwen25-vl-windows";

fn load() -> Model {
    crate::set_threads(1);
    let options = LoadOptions {
        precision: Precision::F32,
        ..Default::default()
    };
    Model::load(&root().join("models").join(MODEL), &options).unwrap()
}

fn with_picture() -> Case {
    cases_of(MODEL)
        .into_iter()
        .find(|case| case.prepared.inputs.images.is_some())
        .unwrap()
}

fn runner(prefixes: usize) -> Runner {
    let options = RunnerOptions {
        cache_bytes: 64 << 20,
        media_cache_bytes: 0,
        prefixes,
        ..Default::default()
    };
    Runner::new(load(), &options).unwrap()
}

/// Goes on until something else than encoding and reading is needed. Returns the last pass's logits.
fn read(runner: &mut Runner, id: SequenceId, piece: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(_) => {
                let rows = runner.run(&[(id, Work::Read(piece))]).unwrap();
                logits = rows.of(0).to_vec();
            }
            Needs::Keeping | Needs::Nothing => return logits,
        }
    }
}

#[test]
fn a_keep_list_that_failed_can_be_given_again() {
    let case = with_picture();
    let inputs = Arc::new(case.prepared.inputs.clone());
    let mut runner = runner(0);
    let plain = runner
        .open(Arc::clone(&inputs), 8, &OpenOptions::default())
        .unwrap();
    let expected = read(&mut runner, plain, 20);
    let options = OpenOptions {
        keep: None,
        probe: Some(ProbeOptions::default()),
    };
    let id = runner.open(inputs, 8, &options).unwrap();
    read(&mut runner, id, 20);
    let tokens = runner.tokens(id).unwrap();
    let items = runner.items(id).unwrap().len();
    let free = (0..runner.capacity()).rposition(|tokens| runner.fits(tokens));
    let mut drop_first = Keep {
        items: vec![None; items],
    };
    drop_first.items[0] = Some(vec![0]);
    let report = runner.probed(id).unwrap();
    assert_eq!(report.items.len(), items);
    spoil(&mut runner, id);
    let error = runner.keep(id, &drop_first).unwrap_err();
    assert!(matches!(error, EngineError::Torch(_)), "{error}");
    // All is as before, what others may have included.
    assert_eq!(runner.needs(id).unwrap(), Needs::Keeping);
    assert_eq!(runner.tokens(id).unwrap(), tokens);
    let still = (0..runner.capacity()).rposition(|tokens| runner.fits(tokens));
    assert_eq!(still, free);
    assert_eq!(runner.probed(id).unwrap(), report);
    spoil(&mut runner, id);
    let all = Keep {
        items: vec![None; items],
    };
    runner.keep(id, &all).unwrap();
    let logits = read(&mut runner, id, 20);
    for (a, b) in logits.iter().zip(&expected) {
        // As far as two ways of computing the same in f32 may differ.
        assert!((a - b).abs() <= 1e-4, "{a} instead of {b}");
    }
}

fn spoil(runner: &mut Runner, id: SequenceId) {
    let reading = runner.sequences.get_mut(&id).unwrap().reading.as_mut();
    reading.unwrap().probe.as_mut().unwrap().spoil();
}

#[test]
fn going_on_in_blocks_that_are_there_throws_out_no_kept_prompt() {
    let model = load();
    let text = &model.config().text;
    let token = 2 * 4 * text.layers * text.kv_heads * text.head_dim;
    let options = RunnerOptions {
        cache_bytes: (16 * BLOCK * token) as u64,
        media_cache_bytes: 0,
        prefixes: 8,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &options).unwrap();
    let open = |runner: &mut Runner, tokens: u32, salt: u32| {
        let inputs = ModelInputs {
            input_ids: (0..tokens).map(|n| 3 + (7 * n + salt) % 50).collect(),
            ..Default::default()
        };
        let options = OpenOptions::default();
        runner.open(Arc::new(inputs), 40, &options).unwrap()
    };
    let kept = open(&mut runner, 40, 0);
    read(&mut runner, kept, 40);
    runner.close(kept).unwrap();
    // Three blocks are kept. Four prompts take two each, and copy their last to go on: one block is left.
    let running: Vec<SequenceId> = (1..5)
        .map(|salt| {
            let id = open(&mut runner, 17, salt);
            read(&mut runner, id, 17);
            id
        })
        .collect();
    let step = |runner: &mut Runner| {
        let batch: Vec<_> = running.iter().map(|id| (*id, Work::Append(&[9]))).collect();
        runner.run(&batch).unwrap();
    };
    for _ in 0..5 {
        step(&mut runner);
    }
    assert_eq!(runner.pool.short_of([1, 1]), None);
    assert_eq!(runner.pool.short_of([2, 2]), Some(0));
    let again = open(&mut runner, 40, 0);
    assert_eq!(runner.needs(again).unwrap(), Needs::Reading(1));
    runner.close(again).unwrap();
    // Of 17 + 15 tokens the next takes each a block: as many come free as are wanted, of those used least recently.
    for _ in 5..16 {
        step(&mut runner);
    }
    assert_eq!(runner.pool.short_of([1, 1]), Some(0));
    let again = open(&mut runner, 40, 0);
    assert_eq!(runner.needs(again).unwrap(), Needs::Reading(1));
}
