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
    spoil(&mut runner, id);
    let error = runner.keep(id, &drop_first).unwrap_err();
    assert!(matches!(error, EngineError::Torch(_)), "{error}");
    // All is as before, what others may have included.
    assert_eq!(runner.needs(id).unwrap(), Needs::Keeping);
    assert_eq!(runner.tokens(id).unwrap(), tokens);
    let still = (0..runner.capacity()).rposition(|tokens| runner.fits(tokens));
    assert_eq!(still, free);
    assert_eq!(runner.probed(id).unwrap().items.len(), items);
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
