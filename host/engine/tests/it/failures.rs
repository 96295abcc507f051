//! What goes wrong with one request stays with it: a forward pass that gives no numbers, memory that is not there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)] // a test's helpers may panic, and tell what they saw

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use msao_core::inputs::{Array, Grid, ModelInputs, Patches};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Event, Open, Service, ServiceError, ServiceOptions, Session, Tell};
use msao_engine::{LoadOptions, OpenOptions, Precision, RunnerOptions};
use msao_golden::root;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const ANSWER: usize = 200;

fn dir(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn f32_options() -> LoadOptions {
    msao_engine::set_threads(1);
    LoadOptions {
        precision: Precision::F32,
        ..Default::default()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn text(ids: &[u32]) -> ModelInputs {
    ModelInputs {
        input_ids: ids.to_vec(),
        ..Default::default()
    }
}

async fn open(service: &Service, inputs: ModelInputs) -> Result<Session, ServiceError> {
    let vocabulary = service.config().text.vocab_size as u32;
    let params = SamplingParams {
        temperature: 0.0,
        ..Default::default()
    };
    service
        .open(Open {
            sampler: Sampler::new(params, vocabulary, &inputs.input_ids).unwrap(),
            inputs: Arc::new(inputs),
            reserve: ANSWER,
            options: OpenOptions::default(),
            end_of_sequence: Vec::new(),
            tell: Tell::default(),
        })
        .await
}

/// The answer, or why it ended early.
async fn answer(session: &Session, most: usize) -> Result<Vec<u32>, ServiceError> {
    let mut events = session.generate(most)?;
    let mut tokens = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            Event::Token(step) => tokens.push(step.pick.id),
            Event::End(_) => return Ok(tokens),
            Event::Failed(error) => return Err(error),
        }
    }
}

/// A copy of a checkpoint in one file in which the embedding of one token is not a number.
fn spoilt(from: &Path, to: &Path, token: usize) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name != "model.safetensors" {
            std::fs::copy(&path, to.join(&name)).unwrap();
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut tensors: HashMap<String, _> = HashMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let mut data = view.data().to_vec();
            if name.ends_with("embed_tokens.weight") {
                assert_eq!(view.dtype(), safetensors::Dtype::F32);
                let row = 4 * view.shape()[1];
                for value in data[token * row..(token + 1) * row].chunks_mut(4) {
                    value.copy_from_slice(&f32::NAN.to_le_bytes());
                }
            }
            tensors.insert(name, (view.dtype(), view.shape().to_vec(), data));
        }
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
            (name.clone(), view)
        });
        safetensors::serialize_to_file(views, None, &to.join(name)).unwrap();
    }
}

#[test]
fn a_pass_that_gives_no_numbers_fails_its_own_answer_alone() {
    const BAD: u32 = 17;
    let copy = tempfile::tempdir().unwrap();
    // Its output matrix is its own: a tied one would spoil everybody's logits.
    spoilt(&dir("qwen25-vl-windows"), copy.path(), BAD as usize);
    block_on(async {
        let service = Service::start(
            copy.path().to_owned(),
            f32_options(),
            ServiceOptions::default(),
        )
        .await
        .unwrap();
        let good = text(&[5, 6, 7, 8]);
        let alone = open(&service, good.clone()).await.unwrap();
        let expected = answer(&alone, 20).await.unwrap();
        let (first, bad, second) = (
            open(&service, good.clone()).await.unwrap(),
            open(&service, text(&[5, BAD, 7])).await.unwrap(),
            open(&service, good).await.unwrap(),
        );
        let (first, spoilt, second) =
            tokio::join!(answer(&first, 20), answer(&bad, 20), answer(&second, 20));
        let error = spoilt.unwrap_err().to_string();
        assert!(error.contains("forward pass went wrong"), "{error}");
        assert_eq!(first.unwrap(), expected);
        assert_eq!(second.unwrap(), expected);
        // The session is over, and says so.
        let error = bad.output().await.unwrap_err().to_string();
        assert!(
            error.contains("over") || error.contains("session"),
            "{error}"
        );
    });
}

#[test]
fn a_choice_that_cannot_be_made_ends_its_session_and_no_other() {
    const BAD: u32 = 17;
    let copy = tempfile::tempdir().unwrap();
    spoilt(&dir("qwen25-vl-windows"), copy.path(), BAD as usize);
    block_on(async {
        let options = ServiceOptions::default();
        let service = Service::start(copy.path().to_owned(), f32_options(), options);
        let service = service.await.unwrap();
        let prompt = text(&[5, 6, 7, 8]);
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(open(&service, prompt.clone()).await.unwrap());
        }
        let [generating, verifying, good] = sessions.as_slice() else {
            panic!("three were opened");
        };
        let expected = answer(good, 20).await.unwrap();
        good.roll_back(0).await.unwrap();
        // What follows this token is not a number.
        generating.append(vec![BAD]).await.unwrap();
        verifying.append(vec![BAD]).await.unwrap();
        let (generated, verified, answered) = tokio::join!(
            answer(generating, 20),
            verifying.verify(vec![5, 6]),
            answer(good, 20),
        );
        for error in [generated.unwrap_err(), verified.unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("forward pass went wrong"), "{error}");
        }
        for over in [generating, verifying] {
            let error = over.output().await.unwrap_err().to_string();
            assert!(error.contains("over"), "{error}");
        }
        assert_eq!(answered.unwrap(), expected);
    });
}

#[test]
fn a_grid_that_no_picture_has_is_refused() {
    block_on(async {
        let options = ServiceOptions::default();
        let service = Service::start(dir("qwen25-vl-windows"), f32_options(), options);
        let service = service.await.unwrap();
        let merge = service.config().vision.merge_size;
        for (t, h, w) in [
            (1, 0, 4),
            (0, 4, 4),
            (usize::MAX, 0, 0),
            (usize::MAX, merge, merge),
            (usize::MAX, usize::MAX, usize::MAX),
            (1, merge + 1, merge),
        ] {
            let mut inputs = picture(&service, 2 * merge);
            inputs.images.as_mut().unwrap().grids = vec![Grid { t, h, w }];
            let error = open(&service, inputs).await.unwrap_err().to_string();
            assert!(
                error.contains("grid") || error.contains("patches"),
                "{error}"
            );
        }
    });
}

/// Names the child process of the test below.
const CHILD: &str = "MSAO_TEST_WITHOUT_MEMORY";

/// In a process of its own, since the limit is the process's.
#[test]
fn memory_that_is_not_there_refuses_the_request_and_others_go_on() {
    if std::env::var_os(CHILD).is_some() {
        block_on(without_memory());
        return;
    }
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("not tested: util-linux's prlimit is not here to take memory away");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("failures::memory_that_is_not_there_refuses_the_request_and_others_go_on")
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("refused for want of memory"), "{said}");
}

fn limit_memory(bytes: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--as={bytes}:unlimited"))
        .status()
        .unwrap();
    assert!(status.success());
}

fn virtual_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

/// A picture of so many patches a side.
fn picture(service: &Service, side: usize) -> ModelInputs {
    let config = service.config();
    let width = config.vision.patch_values();
    let merge = config.vision.merge_size * config.vision.merge_size;
    let data = (0..side * side * width).map(|n| (n % 251) as f32 / 251.0 - 0.5);
    let mut input_ids = vec![5];
    input_ids.extend(std::iter::repeat_n(config.image_token, side * side / merge));
    input_ids.extend([6, 7]);
    ModelInputs {
        input_ids,
        images: Some(Patches {
            values: Array {
                shape: vec![side * side, width],
                data: data.collect(),
            },
            grids: vec![Grid {
                t: 1,
                h: side,
                w: side,
            }],
        }),
        ..Default::default()
    }
}

async fn without_memory() {
    let options = ServiceOptions {
        runner: RunnerOptions {
            cache_bytes: 64 << 20,
            ..Default::default()
        },
        ..Default::default()
    };
    let demo = root().join("../../models/demo-target");
    let service = Service::start(demo, f32_options(), options).await.unwrap();
    let running = open(&service, text(&[5, 6, 7, 8])).await.unwrap();
    let expected = answer(&running, 40).await.unwrap();
    running.roll_back(0).await.unwrap();
    // Small ones work, and leave behind whatever is made once.
    let small = open(&service, picture(&service, 16)).await.unwrap();
    let small_answer = answer(&small, 8).await.unwrap();
    // 43 MB of pixels: more than an allocator hands out of what it has kept.
    let large = picture(&service, 96);
    let mut events = running.generate(40).unwrap();
    let mut tokens = Vec::new();
    // From here on nothing large can be had.
    limit_memory(&(virtual_bytes() + (8 << 20)).to_string());
    let refused = match open(&service, large.clone()).await {
        Err(error) => error,
        Ok(session) => answer(&session, 8).await.unwrap_err(),
    };
    loop {
        match events.recv().await.unwrap() {
            Event::Token(step) => tokens.push(step.pick.id),
            Event::End(_) => break,
            Event::Failed(error) => panic!("the running answer failed: {error}"),
        }
    }
    small.roll_back(0).await.unwrap();
    assert_eq!(answer(&small, 8).await.unwrap(), small_answer);
    limit_memory("unlimited");
    assert!(
        matches!(
            refused,
            ServiceError::Engine(msao_engine::EngineError::Torch(_))
        ) || refused.to_string().contains("memory"),
        "{refused}"
    );
    println!("refused for want of memory: {refused}");
    assert_eq!(tokens, expected);
    // With memory back, the same request is answered.
    let again = open(&service, large).await.unwrap();
    assert_eq!(answer(&again, 8).await.unwrap().len(), 8);
}
