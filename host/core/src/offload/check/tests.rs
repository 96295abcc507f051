use proptest::prelude::*;

use super::*;
use crate::offload::report::Item;

fn report(tokens: &[u32]) -> Report {
    let item = |&tokens| Item {
        tokens,
        frames: 1,
        relevance: 1.0,
        ..Item::default()
    };
    Report {
        items: tokens.iter().map(item).collect(),
        ..Report::default()
    }
}

/// Scores of items that keep these tokens first.
fn scored(orders: &[&[u32]]) -> Scores {
    let score = |order: &&[u32]| Score {
        necessity: 1.0,
        keep_order: order.to_vec(),
        ..Score::default()
    };
    Scores {
        items: orders.iter().map(score).collect(),
        updates: Vec::new(),
    }
}

fn told(answer: &Scores, tokens: &[u32]) -> String {
    let violation = scores(answer, &report(tokens)).unwrap_err();
    violation.to_string()
}

#[test]
fn what_is_no_share_is_named() {
    type Field = fn(&mut Score) -> &mut f64;
    let fields: [(&str, Field); 5] = [
        ("necessity", |score| &mut score.necessity),
        ("mas", |score| &mut score.mas),
        ("spatial", |score| &mut score.spatial),
        ("temporal", |score| &mut score.temporal),
        ("unusual", |score| &mut score.unusual),
    ];
    for (name, field) in fields {
        for wrong in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1e-9,
            1.0 + 1e-9,
        ] {
            let mut answer = scored(&[&[], &[]]);
            *field(&mut answer.items[1]) = wrong;
            let expected = format!("items[1].{name} is {wrong}; allowed: 0 to 1");
            assert_eq!(told(&answer, &[3, 3]), expected);
        }
    }
}

#[test]
fn each_item_has_a_score_and_no_other() {
    assert_eq!(scores(&scored(&[]), &report(&[])), Ok(()));
    let one_for_two = told(&scored(&[&[]]), &[2, 2]);
    assert_eq!(
        one_for_two,
        "items has 1 entries; allowed: 2, one for each item"
    );
    assert!(told(&scored(&[&[]]), &[]).contains("allowed: 0"));
}

#[test]
fn items_of_no_token_of_one_and_of_a_million_are_held_to_their_own_tokens() {
    for order in [&[][..], &[0]] {
        assert_eq!(scores(&scored(&[order]), &report(&[1])), Ok(()));
    }
    assert_eq!(scores(&scored(&[&[]]), &report(&[0])), Ok(()));
    assert!(told(&scored(&[&[0]]), &[0]).contains("at most 0 are allowed"));
    assert!(told(&scored(&[&[1]]), &[1]).contains("items[0].keep-order[0] is 1"));
    let mut all: Vec<u32> = (0..1_000_000).rev().collect();
    assert_eq!(scores(&scored(&[&all]), &report(&[1_000_000])), Ok(()));
    all[999_999] = 7;
    let twice = told(&scored(&[&all]), &[1_000_000]);
    assert_eq!(
        twice,
        "items[0].keep-order[999999] names token 7 a second time"
    );
    // What was seen of one item is forgotten with the next.
    assert_eq!(
        scores(&scored(&[&[0, 1], &[1, 0]]), &report(&[2, 2])),
        Ok(())
    );
}

#[test]
fn what_is_learned_is_bounded_and_finite() {
    let mut answer = scored(&[]);
    let sample = |value, weight| Update {
        operation: Operation::Sample,
        key: 1,
        value,
        weight,
    };
    answer.updates = vec![sample(0.5, 0.1); MAX_UPDATES];
    assert_eq!(scores(&answer, &report(&[])), Ok(()));
    answer.updates.push(sample(0.5, 0.1));
    assert!(told(&answer, &[]).contains("updates has 257 entries; at most 256"));
    for (value, weight, field) in [
        (f64::NAN, 0.1, "updates[0].value"),
        (f64::INFINITY, 0.1, "updates[0].value"),
        (0.5, f64::NAN, "updates[0].weight"),
        (0.5, 0.0, "updates[0].weight"),
        (0.5, 1.1, "updates[0].weight"),
    ] {
        answer.updates = vec![sample(value, weight)];
        assert!(told(&answer, &[]).starts_with(field), "{field}");
    }
}

proptest! {
    #[test]
    fn an_order_is_taken_where_it_names_each_token_once(
        tokens in 0u32..12, order in prop::collection::vec(0u32..14, 0..14),
    ) {
        let mut named = order.clone();
        named.sort_unstable();
        named.dedup();
        let keeps = named.len() == order.len() && named.last().is_none_or(|&last| last < tokens);
        let answer = scores(&scored(&[&order]), &report(&[tokens]));
        prop_assert_eq!(answer.is_ok(), keeps, "{:?}", answer);
    }
}
