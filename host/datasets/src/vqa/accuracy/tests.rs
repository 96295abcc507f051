use proptest::prelude::*;

use super::*;

fn answers(all: &[(&str, usize)], rules: Rules) -> Answers {
    let raw = all
        .iter()
        .flat_map(|(text, times)| vec![Box::from(*text); *times]);
    let raw: Vec<Box<str>> = raw.collect();
    assert_eq!(raw.len(), 10);
    Answers::new(raw, rules)
}

fn accuracy(all: &[(&str, usize)], prediction: &str) -> f64 {
    answers(all, Rules::Official).score(prediction).0
}

/// By hand: with k of ten matching, k people leave k - 1 others that match and 10 - k leave k, of which 3 are enough.
#[test]
fn none_to_ten_matches() {
    for (matching, expected) in [0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        .into_iter()
        .enumerate()
    {
        let got = accuracy(&[("red", matching), ("blue", 10 - matching)], "red");
        assert!((got - expected).abs() < 1e-12, "{matching}: {got}");
    }
    assert_eq!(accuracy(&[("red", 10)], "red"), 1.0);
    assert_eq!(accuracy(&[("red", 10)], "blue"), 0.0);
}

#[test]
fn answers_are_cleaned_of_punctuation_only_where_they_differ() {
    // Ten alike stay as they are, and then a prediction, which is always cleaned, cannot match.
    assert_eq!(accuracy(&[("t-shirt", 10)], "t-shirt"), 0.0);
    assert_eq!(accuracy(&[("t shirt", 10)], "t-shirt"), 1.0);
    assert_eq!(accuracy(&[("t-shirt", 9), ("top", 1)], "t-shirt"), 1.0);
    // Case, number words and articles of an answer are never touched.
    assert_eq!(accuracy(&[("two", 9), ("2", 1)], "two"), 0.3);
    assert_eq!(accuracy(&[("Red", 9), ("red", 1)], "Red"), 0.3);
    assert_eq!(accuracy(&[("the dog", 10)], "the dog"), 0.0);
    // "no." and "no" are one answer once they differ.
    assert_eq!(accuracy(&[("no.", 2), ("no", 1), ("yes", 7)], "no"), 0.9);
}

#[test]
fn predictions_are_cleaned_by_the_official_rules() {
    for (raw, normal) in [
        ("", ""),
        (" Red\n", "red"),
        ("the red\tcar", "red car"),
        ("A man", "man"),
        ("Two", "2"),
        ("none", "0"),
        ("twenty one", "twenty 1"),
        ("ten.", "10"),
        // A mark with no space beside it anywhere becomes a space ...
        ("t-shirt", "t shirt"),
        ("yes/no", "yes no"),
        // ... and with one is deleted, wherever it stands.
        ("well -done x-ray", "well done xray"),
        ("yes, no", "yes no"),
        ("red,blue, green", "redblue green"),
        // A comma in a number deletes every mark.
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("1,000/2", "10002"),
        // Periods go unless a digit follows; one in front of the digit does not matter.
        ("2.5", "2.5"),
        (".5", ".5"),
        ("5.", "5"),
        ("u.s.a.", "usa"),
        ("..5", ".5"),
        ("v.2", "v.2"),
        // What is not in the list stays.
        ("it's 5:30", "it's 5:30"),
        ("100%", "100%"),
        ("salt & pepper", "salt & pepper"),
        // Contractions, with what is odd about the table.
        ("dont", "don't"),
        ("Im", "im"),
        ("somebody'd", "somebodyd"),
        ("hed've", "he'd've"),
        ("couldnt've", "couldn't've"),
        // Articles go after number words, and only as whole words.
        ("a an the", ""),
        ("a-frame", "frame"),
        ("another", "another"),
        // Python's white space.
        ("red\u{a0}car", "red car"),
        ("\u{1f}red\u{1c}car", "red car"),
        ("red\rcar", "red car"),
    ] {
        assert_eq!(normalise(raw), normal, "{raw:?}");
    }
}

#[test]
fn only_the_first_32_periods_go() {
    let left = |count: usize| punctuation(&"x.".repeat(count)).matches('.').count();
    assert_eq!(left(32), 0);
    assert_eq!(left(40), 8);
    // Those before a digit do not count.
    assert_eq!(
        punctuation(&format!("{}{}", ".5".repeat(40), ".".repeat(33)))
            .matches('.')
            .count(),
        41
    );
}

#[test]
fn letters_and_lists_of_the_demo_world_can_be_right() {
    let demo =
        |answer: &str, prediction: &str| answers(&[(answer, 10)], Rules::Demo).score(prediction);
    for (answer, prediction) in [
        ("K", "K"),
        ("K", "k."),
        ("low, high", "low, high"),
        ("low, high", "Low, high."),
        ("A", "A"),
        ("A", "a."),
        ("red ring", "a red ring"),
        ("2", "two"),
    ] {
        assert_eq!(
            demo(answer, prediction),
            (1.0, true),
            "{answer:?} {prediction:?}"
        );
    }
    assert_eq!(demo("A", ""), (0.0, false));
    assert_eq!(demo("A", "the"), (0.0, true));
    assert_eq!(demo("low, high", "high, low"), (0.0, true));
    // As published they could not.
    assert_eq!(accuracy(&[("K", 10)], "K"), 0.0);
    assert_eq!(accuracy(&[("low, high", 10)], "low, high"), 0.0);
}

#[test]
fn the_official_code_gives_the_same() {
    #[derive(serde::Deserialize)]
    struct Case {
        prediction: String,
        answers: Vec<Box<str>>,
        normal: String,
        accuracy: f64,
    }
    let golden =
        zstd::decode_all(&include_bytes!("../../../tests/golden/vqa.json.zst")[..]).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&golden).unwrap();
    assert_eq!(cases.len(), 300);
    for case in cases {
        assert_eq!(
            normalise(&case.prediction),
            case.normal,
            "{:?}",
            case.prediction
        );
        let (value, _) =
            Answers::new(case.answers.clone(), Rules::Official).score(&case.prediction);
        assert!(
            (value - case.accuracy).abs() < 1e-12,
            "{:?} {:?}: {value}",
            case.prediction,
            case.answers
        );
    }
}

/// Texts of what the rules look for.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "((a|The|two|dont|Im|red|[0-9.,;/!?_-]|'| |\t|\n|é|İ|Σ) ?){0,12}",
        "[^.]{0,30}",
    ]
}

proptest! {
    #[test]
    fn an_accuracy_is_a_share(all in prop::collection::vec(text(), 10), prediction in text()) {
        let raw = all.iter().map(|it| it.as_str().into()).collect::<Vec<_>>();
        for rules in [Rules::Official, Rules::Demo] {
            for prediction in all.iter().chain([&prediction]) {
                let (value, parsed) = Answers::new(raw.clone(), rules).score(prediction);
                prop_assert!((0.0..=1.0).contains(&value));
                prop_assert!(parsed || normalise(prediction).is_empty());
            }
        }
    }

    /// Not so with more than 32 periods, which these texts do not have.
    #[test]
    fn normalising_twice_changes_nothing_more(text in text()) {
        let once = normalise(&text);
        prop_assert_eq!(normalise(&once), once.clone());
        prop_assert_eq!(punctuation(&punctuation(&text)), punctuation(&text));
    }

    #[test]
    fn the_demo_worlds_answers_are_always_right_about_themselves(text in "[A-Za-z0-9]{1,8}([ ,]+[a-z]{1,6}){0,3}") {
        let raw = vec![Box::from(text.as_str()); 10];
        prop_assert_eq!(Answers::new(raw, Rules::Demo).score(&text), (1.0, true));
    }
}
