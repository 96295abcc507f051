//! VQAv2's files, whole and damaged.

use std::fs;
use std::path::Path;

use msao_datasets::{Mean, Source, Tally, score};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fails, load};

const QUESTIONS: &str = "v2_OpenEnded_mscoco_val2014_questions.json";
const ANNOTATIONS: &str = "v2_mscoco_val2014_annotations.json";

fn question(id: u64, image: u64) -> Value {
    json!({"image_id": image, "question": "Is it red?", "question_id": id})
}

fn annotation(id: u64, image: u64) -> Value {
    let answers: Vec<Value> = (1..=10)
        .map(|k| json!({"answer": if k < 3 { "yes" } else { "no" }, "answer_confidence": "yes", "answer_id": k}))
        .collect();
    json!({"question_type": "is it", "multiple_choice_answer": "no", "answers": answers, "image_id": image,
           "answer_type": "yes/no", "question_id": id})
}

fn write(folder: &Path, questions: &[Value], annotations: &[Value]) {
    let head = json!({"info": {"year": 2017}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "val2014"});
    let mut file = head.clone();
    file["questions"] = json!(questions);
    fs::write(folder.join(QUESTIONS), file.to_string()).unwrap();
    let mut file = head;
    file["annotations"] = json!(annotations);
    fs::write(folder.join(ANNOTATIONS), file.to_string()).unwrap();
}

/// Two questions about two pictures.
fn small() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[question(1000, 1), question(2000, 2)],
        &[annotation(2000, 2), annotation(1000, 1)],
    );
    fs::create_dir(folder.path().join("val2014")).unwrap();
    for image in [1, 2] {
        fs::write(
            folder
                .path()
                .join(format!("val2014/COCO_val2014_{image:012}.jpg")),
            b"jpeg",
        )
        .unwrap();
    }
    folder
}

#[test]
fn the_published_layout_is_read() {
    let folder = small();
    for kind in ["vqav2", "vqav2:val2014"] {
        let set = load(folder.path(), kind).unwrap();
        assert_eq!(&*set.name, "vqav2-val2014");
        let item = &set.items[1];
        assert_eq!(
            (item.id, &*item.kind, &*item.answer_type),
            (2000, "is it", "yes/no")
        );
        let path = folder.path().join("val2014/COCO_val2014_000000000002.jpg");
        assert_eq!(item.media[0].1, Source::File(path));
        assert_eq!((score(item, "Yes.").value * 10.0).round(), 6.0);
        assert_eq!(score(item, "no").value, 1.0);
        assert!(!score(item, "the").parsed);
    }
    // Annotations of questions that are not there do not matter.
    write(
        folder.path(),
        &[question(1000, 1)],
        &[annotation(2000, 2), annotation(1000, 1)],
    );
    assert_eq!(load(folder.path(), "vqav2").unwrap().items.len(), 1);
}

#[test]
fn packed_files_are_read_and_the_unpacked_one_comes_first() {
    let folder = small();
    let path = folder.path().join(QUESTIONS);
    let packed = folder.path().join(format!("{QUESTIONS}.zst"));
    let whole = fs::read(&path).unwrap();
    fs::write(&packed, zstd::encode_all(whole.as_slice(), 1).unwrap()).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(load(folder.path(), "vqav2").unwrap().items.len(), 2);
    fs::write(&path, whole).unwrap();
    fs::write(&packed, b"damaged").unwrap();
    assert_eq!(load(folder.path(), "vqav2").unwrap().items.len(), 2);
    fs::remove_file(&path).unwrap();
    fails(folder.path(), "vqav2", &["questions.json.zst"]);
    let whole = zstd::encode_all([b' '; 5_000].as_slice(), 1).unwrap();
    fs::write(&packed, &whole[..whole.len() - 4]).unwrap();
    fails(folder.path(), "vqav2", &["questions.json.zst"]);
}

#[test]
fn what_is_missing_is_named() {
    let empty = tempfile::tempdir().unwrap();
    fails(
        empty.path(),
        "vqav2",
        &[
            "v2_OpenEnded_mscoco_{split}_questions.json is missing",
            "name VQAv2's folder",
        ],
    );
    fails(Path::new("/nowhere"), "vqav2", &["/nowhere"]);
    let folder = small();
    fails(
        folder.path(),
        "vqav2:train2014",
        &["mscoco_train2014_questions.json is missing (there is val2014)"],
    );
    fs::copy(
        folder.path().join(QUESTIONS),
        folder.path().join(QUESTIONS.replace("val2014", "test2015")),
    )
    .unwrap();
    fails(
        folder.path(),
        "vqav2",
        &["the splits test2015, val2014: name one"],
    );
    fails(
        folder.path(),
        "vqav2:test2015",
        &[
            "v2_mscoco_test2015_annotations.json is missing",
            "not published",
        ],
    );
    fs::remove_file(folder.path().join("val2014/COCO_val2014_000000000002.jpg")).unwrap();
    fails(
        folder.path(),
        "vqav2:val2014",
        &[
            QUESTIONS,
            "question 2000",
            "COCO_val2014_000000000002.jpg is missing",
            "val2014",
        ],
    );
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let folder = small();
    let path = folder.path();
    let two = [annotation(1000, 1), annotation(2000, 2)];
    write(path, &[question(1000, 1), question(1000, 1)], &two);
    fails(path, "vqav2", &[QUESTIONS, "question 1000", "twice"]);
    write(path, &[question(3000, 1)], &two);
    fails(
        path,
        "vqav2",
        &[
            QUESTIONS,
            "question 3000",
            "no annotation",
            ANNOTATIONS,
            "one split",
        ],
    );
    write(path, &[question(1000, 2)], &two);
    fails(
        path,
        "vqav2",
        &[ANNOTATIONS, "question 1000", "image_id is 1, but 2"],
    );
    write(
        path,
        &[question(1000, 1)],
        &[two[0].clone(), two[0].clone()],
    );
    fails(
        path,
        "vqav2",
        &[ANNOTATIONS, "annotation of question 1000", "twice"],
    );
    write(path, &[], &two);
    fails(path, "vqav2", &[QUESTIONS, "there are 0"]);
    let mut few = two[0].clone();
    few["answers"].as_array_mut().unwrap().truncate(9);
    write(path, &[question(1000, 1)], &[few]);
    fails(path, "vqav2", &[ANNOTATIONS, "question 1000", "9 answers"]);
    let mut same = two[0].clone();
    same["answers"][3]["answer_id"] = json!(3);
    write(path, &[question(1000, 1)], &[same]);
    fails(path, "vqav2", &[ANNOTATIONS, "answer_id is there twice"]);
}

#[test]
fn wrong_json_is_told_by_place() {
    let folder = small();
    let path = folder.path();
    let mut bad = question(2000, 2);
    bad["question_id"] = json!("2000");
    write(path, &[question(1000, 1), bad], &[]);
    fails(
        path,
        "vqav2",
        &[QUESTIONS, "questions[1].question_id", "line 1"],
    );
    let mut bad = annotation(1000, 1);
    bad.as_object_mut().unwrap().remove("answers");
    write(path, &[question(1000, 1)], &[bad]);
    fails(
        path,
        "vqav2",
        &[ANNOTATIONS, "annotations[0]", "missing field `answers`"],
    );
    write(path, &[question(1000, 1)], &[annotation(1000, 1)]);
    let whole = fs::read_to_string(path.join(ANNOTATIONS)).unwrap();
    for (text, why) in [
        (&whole[..whole.len() / 2], "ends too early"),
        ("", "ends too early"),
        ("<html>", "not JSON"),
        ("{}", "missing field `annotations`"),
        (&format!("{whole}x"), "after the end"),
    ] {
        fs::write(path.join(ANNOTATIONS), text).unwrap();
        fails(path, "vqav2", &[ANNOTATIONS, why]);
    }
}

#[test]
fn a_demo_sets_own_keys_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |question: Value, answer: &str| {
        let mut annotation = annotation(1, 1);
        annotation["multiple_choice_answer"] = json!(answer);
        let questions =
            json!({"data_type": "demo", "data_subtype": "demo", "questions": [question]});
        let annotations = json!({"annotations": [annotation]});
        fs::write(
            folder
                .path()
                .join("v2_OpenEnded_mscoco_demo_questions.json"),
            questions.to_string(),
        )
        .unwrap();
        fs::write(
            folder.path().join("v2_mscoco_demo_annotations.json"),
            annotations.to_string(),
        )
        .unwrap();
    };
    let with = |key: &str, value: Value| {
        let mut it = question(1, 1);
        it[key] = value;
        it
    };
    write(with("video", json!("../secret.mp4")), "no");
    fails(
        folder.path(),
        "vqav2",
        &["question 1", "../secret.mp4", "in the set's folder"],
    );
    write(with("audio", json!("/etc/passwd")), "no");
    fails(
        folder.path(),
        "vqav2",
        &["question 1", "in the set's folder"],
    );
    write(with("video", json!("clips/a.mp4")), "no");
    fails(
        folder.path(),
        "vqav2",
        &["question 1", "clips/a.mp4 is missing"],
    );
    write(with("mix", json!("image")), "no");
    fails(
        folder.path(),
        "vqav2",
        &["question 1", "mix is image, but the media are text"],
    );
    write(with("needs", json!(["smell"])), "no");
    fails(folder.path(), "vqav2", &["questions[0].needs[0]", "smell"]);
    write(with("answer_length", json!("long")), "A nice day.");
    fails(
        folder.path(),
        "vqav2",
        &[
            "annotation of question 1",
            "multiple_choice_answer",
            "a nice day",
        ],
    );
    write(with("answer_length", json!("long")), "There is no card.");
    assert_eq!(load(folder.path(), "vqav2:demo").unwrap().items.len(), 1);
}

#[test]
fn figures_are_by_question_type_and_answer_type() {
    let folder = small();
    let mut other = annotation(3000, 1);
    other["question_type"] = json!("what");
    other["answer_type"] = json!("other");
    let annotations = [annotation(1000, 1), annotation(2000, 2), other];
    let questions = [question(1000, 1), question(2000, 2), question(3000, 1)];
    write(folder.path(), &questions, &annotations);
    let set = load(folder.path(), "vqav2").unwrap();
    let mut tally = Tally::default();
    // "yes" is 0.6 right, "no" is right, and of nothing nothing is.
    for (item, answer) in set.items.iter().zip(["yes", "no", ""]) {
        tally.add(item, &score(item, answer));
    }
    let all = tally.figures();
    let (key, figures) = all.iter().next().unwrap();
    assert_eq!(
        (&*key.set, key.long, key.seen_mix),
        ("vqav2-val2014", false, true)
    );
    assert_eq!(figures.accuracy.percent(), Some(53.33));
    assert_eq!(figures.by_kind["is it"].percent(), Some(80.0));
    assert_eq!(figures.by_answer_type["yes/no"].count, 2);
    assert_eq!(figures.by_answer_type["other"].percent(), Some(0.0));
    assert_eq!(
        (figures.unparsed, figures.choice, figures.facts),
        (1, None, None)
    );
    assert_eq!(Mean::default().percent(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_cut_off_or_changed_somewhere_give_a_set_or_an_error(
        which in prop::sample::select(vec![QUESTIONS, ANNOTATIONS]), at in 0.0..1.0_f64, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let folder = small();
        let path = folder.path().join(which);
        let mut bytes = fs::read(&path).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        match load(folder.path(), "vqav2") {
            Ok(set) => prop_assert!(set.items.iter().all(|it| (0.0..=1.0).contains(&score(it, "no").value))),
            Err(message) => prop_assert!(message.contains(&*folder.path().to_string_lossy())),
        }
    }
}
