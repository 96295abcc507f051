use proptest::prelude::*;

use super::*;

/// Any row that may be.
pub(crate) fn any_row() -> impl Strategy<Value = Row> {
    let some = || prop::option::of(0.0..1e18_f64);
    let share = || prop::option::of(0.0..=1.0_f64);
    let count = || prop::option::of(any::<u64>());
    let text = || "\\PC{0,12}";
    let key = (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        text(),
        any::<bool>(),
    );
    let words = (
        text(),
        any::<String>(),
        text(),
        any::<String>(),
        any::<bool>(),
    );
    let numbers = (some(), some(), some(), share(), count(), count(), share());
    let route = prop::option::of(prop_oneof![
        Just(Route::Edge),
        Just(Route::Cloud),
        Just(Route::CloudDraft),
        Just(Route::Speculate)
    ]);
    let class = prop::option::of(prop_oneof![
        Just(Class::Exact),
        Just(Class::Confident),
        Just(Class::Edge)
    ]);
    let status = prop_oneof![
        Just(Status::Answered),
        Just(Status::Shed),
        Just(Status::Late),
        Just(Status::Failed)
    ];
    (key, words, numbers, route, class, status).prop_map(
        |(key, words, numbers, route, class, status)| {
            let (repeat, seed, index, name, timed) = key;
            let (item, error, kind, group, long) = words;
            let (total_ms, ttft_ms, flops_edge, score, bytes_up, activation, unverified_share) =
                numbers;
            Row {
                key: Key {
                    run: "r1".to_owned(),
                    turn: "0123456789abcdef".to_owned(),
                    repeat,
                    purpose: if timed {
                        Purpose::Timed
                    } else {
                        Purpose::Accuracy
                    },
                    data: name.clone(),
                    link: name.clone(),
                    arrival: "closed-1".to_owned(),
                    policy: name,
                    index,
                    seed,
                },
                measured: Measured {
                    item,
                    group,
                    kind,
                    long,
                    seen_mix: Some(long),
                    status,
                    error,
                    score,
                    route,
                    class,
                    total_ms,
                    ttft_ms,
                    flops_edge,
                    bytes_up,
                    activation_bytes_cloud: activation,
                    unverified_share,
                    ..Measured::default()
                },
            }
        },
    )
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(rows in prop::collection::vec(any_row(), 1..5)) {
        let mut text = Row::header();
        for row in &rows {
            prop_assert_eq!(row.measured.wrong(), None);
            text.push_str(&row.line());
        }
        let records: Vec<_> = csv::Records::new(&text).collect::<Result<_, _>>().unwrap();
        let again: Vec<Row> = records[1..].iter().map(|(_, fields)| Row::of(fields).unwrap()).collect();
        prop_assert_eq!(again, rows);
    }

    #[test]
    fn nothing_makes_reading_panic(fields in prop::collection::vec(any::<String>(), 0..60)) {
        let _either = Row::of(&fields);
    }
}

#[test]
fn what_was_not_measured_is_empty_and_nonsense_is_named() {
    let mut fields = Vec::new();
    Measured::default().put(&mut fields);
    // What is not optional is text, `false`, or the status.
    let told: Vec<&str> = fields
        .iter()
        .filter(|it| !it.is_empty())
        .map(String::as_str)
        .collect();
    assert_eq!(told, ["false", "answered"]);
    let with = |change: fn(&mut Measured)| {
        let mut measured = Measured::default();
        change(&mut measured);
        measured.wrong()
    };
    assert!(
        with(|it| it.total_ms = Some(f64::NAN))
            .unwrap()
            .contains("total_ms")
    );
    assert!(
        with(|it| it.ttft_ms = Some(-1.0))
            .unwrap()
            .contains("ttft_ms")
    );
    assert!(
        with(|it| it.score = Some(1.5))
            .unwrap()
            .contains("score is above 1")
    );
    assert_eq!(with(|it| it.score = Some(1.0)), None);
    let columns = Key::COLUMNS.len() + Measured::COLUMNS.len();
    let mut fields = vec![String::new(); columns];
    assert!(
        Row::of(&fields)
            .unwrap_err()
            .contains("repeat \"\"; allowed: a whole number")
    );
    fields.pop();
    assert!(
        Row::of(&fields)
            .unwrap_err()
            .contains(&format!("allowed: {columns}"))
    );
}
