use proptest::prelude::*;

use super::*;

const ALL: &str = "The picture has a light background and shows two shapes: a purple star at the top left and a green ring in the \
                   center. A card at the top right shows the digit 2. The clip shows three shapes. A red square moves to the \
                   right. An orange star stays at the bottom and an orange ring stays at the bottom right. The sound has two \
                   beeps: the first is middle and the second is high.";

fn compare(reference: &str, answer: &str) -> (u32, u32, u32, u32) {
    let all = Description::read(reference).unwrap().compare(answer);
    (all.total, all.right, all.wrong, all.unread)
}

#[test]
fn a_description_has_these_facts() {
    use Subject::*;
    let facts = Description::read(ALL).unwrap();
    let expected = [
        (Background, Value::Word("light")),
        (Shapes, Value::Number(2)),
        (PictureAt(0), Value::Thing("purple", "star")),
        (PictureAt(4), Value::Thing("green", "ring")),
        (Card, Value::Card(2, true, '2')),
        (ClipShapes, Value::Number(3)),
        (Mover, Value::Moving("red", "square", "right")),
        (ClipAt(7), Value::Thing("orange", "star")),
        (ClipAt(8), Value::Thing("orange", "ring")),
        (Beeps, Value::Number(2)),
        (Beep(0), Value::Word("middle")),
        (Beep(1), Value::Word("high")),
    ];
    assert_eq!(*facts.facts(), BTreeMap::from(expected));
    let none =
        Description::read("The clip shows one shape. A red cross moves up. Nothing else is there.")
            .unwrap();
    let expected = [
        (ClipShapes, Value::Number(1)),
        (Mover, Value::Moving("red", "cross", "up")),
        (ClipRest, Value::Nothing),
    ];
    assert_eq!(*none.facts(), BTreeMap::from(expected));
}

#[test]
fn what_is_right_wrong_missing_and_unread_is_counted() {
    assert_eq!(compare(ALL, ALL), (12, 12, 0, 0));
    assert_eq!(compare(ALL, ""), (12, 0, 0, 0));
    assert_eq!(compare(ALL, "I see nothing of note."), (12, 0, 0, 1));
    let picture = "The picture has a dark background and shows one shape: a red ring at the top left. There is no card.";
    for (answer, right, wrong, unread) in [
        // Order, case, articles and digits for numbers do not matter.
        (
            "there is no card. RED RING at top left; shows 1 shape; dark background",
            4,
            0,
            0,
        ),
        // Said twice is said once.
        (
            "A red ring at the top left, a red ring at the top left",
            1,
            0,
            0,
        ),
        // The right thing at the wrong place: one wrong, and it is missing.
        ("a red ring at the top", 0, 1, 0),
        ("a blue ring at the top left", 0, 1, 0),
        // Invented things are wrong and do not lower the share.
        (
            "a red ring at the top left, a blue ring at the left",
            1,
            1,
            0,
        ),
        // Who says everything is right about nothing.
        ("a dark background, a light background", 0, 2, 0),
        (
            "There is no card. A card at the top shows the letter K.",
            0,
            2,
            0,
        ),
        // Cut off in the middle.
        (
            "The picture has a dark background and shows one shape: a red ring at the",
            2,
            0,
            1,
        ),
        ("a red ring at the top lef", 0, 1, 0),
        ("The picture has a dark", 0, 0, 1),
    ] {
        assert_eq!(
            compare(picture, answer),
            (4, right, wrong, unread),
            "{answer}"
        );
    }
}

#[test]
fn a_clause_is_about_the_medium_named_last() {
    let clip = "The clip shows two shapes. A red square moves left. A blue ring stays at the top.";
    assert_eq!(compare(clip, "The picture shows two shapes"), (3, 0, 1, 0));
    assert_eq!(
        compare(clip, "Two shapes in the clip, a blue ring at the top"),
        (3, 2, 0, 0)
    );
    assert_eq!(
        compare(clip, "A red square moves to the left"),
        (3, 1, 0, 0)
    );
    assert_eq!(
        compare(clip, "A red square moves to the left right"),
        (3, 0, 0, 1)
    );
}

#[test]
fn a_reference_must_be_facts_and_nothing_else() {
    for (text, why) in [
        ("", "no fact"),
        ("A man rides a horse.", "\"a man rides a horse\" is no fact"),
        (
            "There is no card. A card at the top shows the digit 1.",
            "two things about Card",
        ),
        ("A card at the top shows the digit 12.", "is no fact"),
    ] {
        let problem = Description::read(text).unwrap_err();
        assert!(problem.contains(why), "{problem}");
    }
}

proptest! {
    #[test]
    fn a_share_is_a_share_whatever_is_said(
        answer in "((a|the|red|blue|ring|star|at|in|top|left|center|moves|stays|and|card|digit|2|first|is|low|two|beeps|shapes|[.,:]|é) ?){0,40}",
    ) {
        let all = Description::read(ALL).unwrap().compare(&answer);
        prop_assert!((0.0..=1.0).contains(&all.share()));
        prop_assert!(all.right <= all.total);
    }

    #[test]
    fn the_order_of_clauses_within_a_medium_does_not_matter(order in Just(vec![
        "the picture has a dark background", "shows two shapes", "a red ring at the top left", "a blue star in the center", "there is no card",
    ]).prop_shuffle()) {
        let reference = "The picture has a dark background and shows two shapes: a red ring at the top left and a blue star in the center. There is no card.";
        prop_assert_eq!(compare(reference, &order.join(", ")), (5, 5, 0, 0));
    }
}
