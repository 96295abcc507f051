use std::collections::BTreeMap;

use msao_core::chat::Modality;
use msao_datasets::{
    Item, Key, Mix, Reference, Score, Set, Source, Tally, Workload, proportional, score,
};

use crate::{heldout, load};

/// An answer that is as right as can be.
fn right(item: &Item) -> String {
    match &item.reference {
        Reference::Vqa(answers) => answers.all().next().unwrap().to_owned(),
        Reference::Choice(choice) => choice.letter.to_string(),
        Reference::Facts(_) => panic!("ask the file"),
    }
}

fn tally<'a>(items: impl IntoIterator<Item = &'a Item>, answer: impl Fn(&Item) -> String) -> Tally {
    let mut tally = Tally::default();
    for item in items {
        tally.add(item, &score(item, &answer(item)));
    }
    tally
}

#[test]
fn sets_with_one_answer_a_question_are_for_those_who_ask_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let calibration = folder.path().to_path_buf();
    // As the recipe's `--seen` writes them, unpacked.
    let question = |id: u32, text: &str, kind: &str| {
        format!(
            r#"{{"image_id": 60001, "question": "{text}", "question_id": {id}, "needs": [], "kind": "{kind}",
                "answer_length": "short", "mix": "text", "split": "heldout"}}"#
        )
    };
    let annotation = |id: u32, answer: &str| {
        format!(
            r#"{{"question_id": {id}, "image_id": 60001, "question_type": "sum", "answer_type": "number",
                "multiple_choice_answer": "{answer}",
                "answers": [{{"answer": "{answer}", "answer_confidence": "yes", "answer_id": 1}}]}}"#
        )
    };
    let file = |list: &str, entries: [String; 2]| {
        let head = r#""info": {}, "license": {}, "data_type": "demo", "data_subtype": "demo""#;
        format!(
            r#"{{{head}, "task_type": "Open-Ended", "{list}": [{}]}}"#,
            entries.join(",")
        )
    };
    let write = |name: &str, text: String| std::fs::write(calibration.join(name), text).unwrap();
    write(
        "v2_OpenEnded_mscoco_demo_questions.json",
        file(
            "questions",
            [
                question(1, "What is 1 plus 2?", "sum"),
                question(2, "2 + 2 = ?", "sum"),
            ],
        ),
    );
    write(
        "v2_mscoco_demo_annotations.json",
        file("annotations", [annotation(1, "3"), annotation(2, "4")]),
    );
    let told = load(&calibration, "vqav2").unwrap_err();
    assert!(told.contains("has 1 answers"), "{told}");
    let set = Set::load_demo(&calibration).unwrap();
    assert_eq!(set.items.len(), 2);
    let first = &set.items[0];
    assert_eq!((&*first.answer, first.long), ("3", false));
    assert_eq!(score(first, "3").value, 1.0);
    assert_eq!(score(first, "4").value, 0.0);
    // One with ten is the same either way.
    let ten = load(&heldout(), "vqav2").unwrap();
    assert_eq!(Set::load_demo(&heldout()).unwrap(), ten);
    // The file's own words: letters are as they are written.
    assert!(ten.items.iter().any(|item| &*item.answer == "K"));
}

#[test]
fn the_demo_set_is_what_its_readme_says() {
    let set = load(&heldout(), "vqav2").unwrap();
    assert_eq!(&*set.name, "demo");
    assert_eq!(set.items.len(), 2_415);
    let mut mixes: BTreeMap<(String, bool, bool), usize> = BTreeMap::new();
    for item in &set.items {
        *mixes
            .entry((item.mix.to_string(), item.long, item.seen_mix))
            .or_default() += 1;
        let media: Vec<Modality> = item.media.iter().map(|(modality, _)| *modality).collect();
        let mut sorted = media.clone();
        sorted.sort_unstable();
        assert_eq!(
            media, sorted,
            "the order of the prompt is image, video, audio"
        );
        assert!(
            item.media
                .iter()
                .all(|(_, source)| source.mime() != "application/octet-stream")
        );
        assert_eq!(item.long, matches!(item.reference, Reference::Facts(_)));
    }
    assert_eq!(mixes[&("image".into(), false, true)], 947);
    assert_eq!(mixes[&("image+video+audio".into(), false, false)], 51);
    assert_eq!(mixes[&("audio".into(), true, true)], 24);
    assert_eq!(mixes.get(&("text".into(), true, true)), None);
    let (_, source) = &set.items[0].media[0];
    assert_eq!(source.mime(), "image/jpeg");
    assert!(source.bytes().unwrap().starts_with(&[0xff, 0xd8]));
}

#[test]
fn every_short_reference_is_right_about_itself() {
    let set = load(&heldout(), "vqav2:demo").unwrap();
    let all = tally(set.items.iter().filter(|it| !it.long), right).figures();
    assert_eq!(all.len(), 2, "unseen mixes are apart");
    for figures in all.values() {
        assert_eq!(figures.accuracy.value(), Some(1.0));
        assert_eq!(figures.unparsed, 0);
    }
    let none = tally(&set.items, |_| String::new()).figures();
    for figures in none.values() {
        assert_eq!(figures.accuracy.value(), Some(0.0));
        assert_eq!(figures.unparsed_rate(), Some(1.0));
    }
}

#[test]
fn every_description_is_right_about_itself_and_no_other_about_all_of_it() {
    #[derive(serde::Deserialize)]
    struct Annotation {
        question_id: u64,
        multiple_choice_answer: String,
    }
    #[derive(serde::Deserialize)]
    struct File {
        annotations: Vec<Annotation>,
    }
    let packed =
        std::fs::File::open(heldout().join("v2_mscoco_demo_annotations.json.zst")).unwrap();
    let file: File = serde_json::from_reader(zstd::Decoder::new(packed).unwrap()).unwrap();
    let texts: BTreeMap<u64, String> = file
        .annotations
        .into_iter()
        .map(|it| (it.question_id, it.multiple_choice_answer))
        .collect();

    let set = load(&heldout(), "vqav2").unwrap();
    let long: Vec<&Item> = set.items.iter().filter(|it| it.long).collect();
    assert_eq!(long.len(), 151);
    for item in &long {
        let whole = score(item, &texts[&item.id]);
        let facts = whole.facts.unwrap();
        assert_eq!(
            (whole.value, whole.parsed, facts.wrong, facts.unread),
            (1.0, true, 0, 0)
        );
        let words: Vec<&str> = texts[&item.id].split(' ').collect();
        let half = score(item, &words[..words.len() / 2].join(" "));
        assert!(half.value < 0.8, "{}", half.value);
        let others = long.iter().filter(|it| texts[&it.id] != texts[&item.id]);
        for other in others {
            let score = score(item, &texts[&other.id]);
            // One of more media can hold all the facts of this one, and then has others.
            assert!(score.parsed);
            assert!(score.value < 1.0 || score.facts.unwrap().wrong > 0);
        }
    }
    let figures = tally(long.iter().copied(), |it| texts[&it.id].clone()).figures();
    let facts = figures.values().next().unwrap().facts.unwrap();
    assert_eq!((facts.right, facts.wrong), (facts.total, 0));
    assert!(facts.total > 500, "{facts:?}");
}

#[test]
fn the_multiple_choice_table_is_what_its_readme_says() {
    let set = load(&heldout(), "mmbench").unwrap();
    assert_eq!(&*set.name, "mmbench_demo");
    assert_eq!(set.items.len(), 312);
    let first = &set.items[0];
    assert_eq!(
        first.text,
        "Question: How many circles are there?\nOptions:\nA. 1\nB. 4\nC. 3\nD. 0\nPlease select the correct answer from the options above."
    );
    let Source::Bytes { bytes, mime } = &first.media[0].1 else {
        panic!("the picture is in the table")
    };
    assert_eq!(
        (*mime, bytes.starts_with(&[0xff, 0xd8])),
        ("image/jpeg", true)
    );
    // A rotation refers to the same picture, which is held once.
    assert_eq!(first.media, set.items[1].media);
    assert_eq!(first.mix, Mix::IMAGE);

    let only = |set: &Set, answer: &dyn Fn(&Item) -> String| {
        let all = tally(&set.items, answer).figures();
        assert_eq!(all.len(), 1);
        all.into_values().next().unwrap()
    };
    let figures = only(&set, &right);
    let choice = figures.choice.unwrap();
    assert_eq!(
        (choice.vanilla.value(), choice.circular.value()),
        (Some(1.0), Some(1.0))
    );
    assert_eq!(
        (
            choice.vanilla.count,
            choice.circular.count,
            choice.incomplete
        ),
        (312, 78, 0)
    );
    // Who always says A is right once in four rotations, and never about a question.
    let choice = only(&set, &|_| "A".into()).choice.unwrap();
    assert_eq!(
        (choice.vanilla.value(), choice.circular.value()),
        (Some(0.25), Some(0.0))
    );
    // The right option's text does as well as its letter.
    let text = |it: &Item| {
        let Reference::Choice(choice) = &it.reference else {
            panic!("a choice")
        };
        let option = choice
            .options
            .iter()
            .find(|(letter, _)| *letter == choice.letter);
        format!("It is {}.", option.unwrap().1.to_lowercase())
    };
    let figures = only(&set, &text);
    assert!(
        figures.accuracy.value() > Some(0.95),
        "{:?} {}",
        figures.accuracy,
        figures.unparsed
    );
}

#[test]
fn a_question_whose_rotations_were_not_all_asked_does_not_count() {
    let set = load(&heldout(), "mmbench").unwrap();
    let figures = tally(set.items.iter().skip(1), right).figures();
    let choice = figures.values().next().unwrap().choice.unwrap();
    assert_eq!((choice.circular.count, choice.incomplete), (77, 1));
    // Asked twice, and once wrong.
    let mut twice = tally(&set.items, right);
    twice.add(&set.items[0], &score(&set.items[0], "none of these"));
    let figures = twice.figures();
    let choice = figures.values().next().unwrap().choice.unwrap();
    assert_eq!(choice.circular.sum, 77.0);
    assert_eq!(choice.vanilla.count, 313);
}

#[test]
fn workloads_are_drawn_from_it() {
    let set = load(&heldout(), "vqav2").unwrap();
    let sample = Workload::default().draw(&set.items, 150, 3).unwrap();
    let drawn: Vec<&Item> = sample
        .places
        .iter()
        .map(|place| &set.items[*place])
        .collect();
    assert_eq!(drawn.iter().filter(|it| it.long).count(), 60);
    assert_eq!(sample.repeats, 0);
    let keys: Vec<Key> = tally(drawn.iter().copied().filter(|it| !it.long), right)
        .figures()
        .into_keys()
        .collect();
    assert!(keys.iter().all(|key| key.seen_mix && !key.long));
    let choice = load(&heldout(), "mmbench").unwrap();
    let sample = proportional(&choice.items, 100, 3);
    assert!((100..130).contains(&sample.places.len()));
    let figures = tally(
        sample.places.iter().map(|place| &choice.items[*place]),
        right,
    )
    .figures();
    assert_eq!(
        figures.values().next().unwrap().choice.unwrap().incomplete,
        0
    );
}

#[test]
fn figures_can_be_written_as_json() {
    let set = load(&heldout(), "vqav2").unwrap();
    let figures = tally(set.items.iter().filter(|it| !it.long).take(50), right).figures();
    let json = serde_json::to_value(figures.values().next().unwrap()).unwrap();
    assert_eq!(json["accuracy"]["count"], 50);
    assert!(json["by_mix"]["image"].is_object(), "{json}");
    let one = Score {
        value: 0.3,
        parsed: true,
        facts: None,
    };
    let mut tally = Tally::default();
    (0..3).for_each(|_| tally.add(&set.items[0], &one));
    assert_eq!(
        tally.figures().values().next().unwrap().accuracy.percent(),
        Some(30.0)
    );
}
