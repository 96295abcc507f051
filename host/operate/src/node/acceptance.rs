//! What a node has learned itself, in words: how probably targets accept its drafts, and what audits have shown.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::output::{plain, share, table};

/// Digits of a digest by which a model is named at least.
const FEWEST: usize = 4;

/// What `GET /v1/calibration/acceptance` says.
pub fn words(value: &Value) -> String {
    let number = |at: &str| value.pointer(at).and_then(Value::as_f64);
    let mut text = match number("/budget") {
        Some(budget) => format!(
            "budget: {} of requests; {} of them audited, at a chance of {} to be over\n",
            percent(budget),
            percent(number("/audit-rate").unwrap_or(0.0)),
            percent(number("/delta").unwrap_or(0.0))
        ),
        None => "no budget: nothing is committed unverified in a session\n".to_owned(),
    };
    let pairs = list(value, "pairs");
    if pairs.is_empty() {
        text.push_str("no draft has been judged yet\n");
    }
    for pair in pairs {
        text.push('\n');
        text.push_str(&of_pair(pair));
    }
    for (at, what) in [
        (
            "/counted/unreadable",
            "kept values could not be read at the start, and are learned anew",
        ),
        ("/counted/failed-checkpoints", "checkpoints have failed"),
        (
            "/counted/lost",
            "judged drafts were not learned from, because there were too many",
        ),
    ] {
        if let Some(count) = number(at).filter(|count| *count > 0.0) {
            text.push_str(&format!("{count:.0} {what}\n"));
        }
    }
    text
}

/// The pair of models that is meant, as the node names it: `DRAFT/TARGET`, of each digest as many first digits as tell it from
/// others, and behind them how the draft model is held, in parentheses, where these are not enough.
pub fn pair(known: &Value, wanted: &str) -> anyhow::Result<Value> {
    let (digests, held) = match wanted.split_once(" (") {
        Some((digests, held)) => (digests, held.strip_suffix(')')),
        None => (wanted, None),
    };
    let named = digests
        .split_once('/')
        .filter(|(draft, target)| draft.len() >= FEWEST && target.len() >= FEWEST);
    let (draft, target) = named.with_context(|| {
        format!(
            "\"{wanted}\" names no pair of models: give DRAFT/TARGET, at least {FEWEST} digits of each, as `msao node \
             calibration --acceptance` tells them"
        )
    })?;
    let pairs = list(known, "pairs").iter().filter_map(|it| it.get("pair"));
    let all: Vec<&Value> = pairs.collect();
    let word = |pair: &Value, at: &str| -> String {
        let word = pair.get(at).and_then(Value::as_str);
        word.unwrap_or_default().to_owned()
    };
    let fits = |pair: &&Value| {
        word(pair, "draft").starts_with(draft)
            && word(pair, "target").starts_with(target)
            && held.is_none_or(|held| word(pair, "held") == held)
    };
    let found: Vec<&Value> = all.iter().copied().filter(fits).collect();
    let names = |pairs: &[&Value]| {
        let name = |pair: &&Value| {
            let short = |at: &str| plain(&word(pair, at)).chars().take(12).collect::<String>();
            format!(
                "{}/{} ({})",
                short("draft"),
                short("target"),
                plain(&word(pair, "held"))
            )
        };
        pairs.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match (found.as_slice(), all.is_empty()) {
        ([pair], _) => Ok((*pair).clone()),
        ([], true) => bail!("nothing is known of \"{wanted}\": no draft has been judged yet"),
        ([], false) => bail!(
            "nothing is known of \"{wanted}\"; known are {}",
            names(&all)
        ),
        (several, _) => bail!(
            "\"{wanted}\" may mean {}: give more digits, or name how the draft model is held, as it stands here",
            names(several)
        ),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn percent(share: f64) -> String {
    format!("{:.4}", share * 100.0)
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
        + "%"
}

fn of_pair(pair: &Value) -> String {
    let word = |at: &str| {
        pair.pointer(at)
            .and_then(Value::as_str)
            .map(plain)
            .unwrap_or_default()
    };
    let number = |at: &str| pair.pointer(at).and_then(Value::as_f64).unwrap_or(0.0);
    let short = |at: &str| word(at).chars().take(12).collect::<String>();
    let mut text = format!(
        "{}/{} ({}): {:.0} drafts judged, {:.0} drift alarms\n",
        short("/pair/draft"),
        short("/pair/target"),
        word("/pair/held"),
        number("/drafts"),
        number("/alarms")
    );
    let rows: Vec<Vec<String>> = list(pair, "mixes").iter().map(of_mix).collect();
    if !rows.is_empty() {
        text.push_str(&table(
            &[
                "requests of",
                "judged",
                "accepted",
                "share",
                "p < 0.5",
                "< 0.75",
                "< 0.94",
                "above",
            ],
            &rows,
        ));
    }
    let rows: Vec<Vec<String>> = list(pair, "classes").iter().map(of_class).collect();
    if !rows.is_empty() {
        let head = [
            "class",
            "floor",
            "requests",
            "audits",
            "disagreed",
            "under way",
            "to the next",
            "drift",
        ];
        text.push_str(&table(&head, &rows));
    } else if pair.get("settled").and_then(Value::as_bool) == Some(true) {
        text.push_str("  the map is held still for audits, and there were none yet\n");
    }
    text
}

fn of_mix(mix: &Value) -> Vec<String> {
    let number = |name: &str| mix.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let name = mix.get("mix").and_then(Value::as_str).map(plain);
    let (drafted, accepted) = (number("drafted"), number("accepted"));
    let part = |accepted: f64, drafted: f64| share(accepted.round() as u64, drafted.round() as u64);
    let mut row = vec![
        name.unwrap_or_default(),
        format!("{drafted:.0}"),
        format!("{accepted:.0}"),
        part(accepted, drafted),
    ];
    // Sixteenths of acceptance probability, joined: where they agree with what was accepted, the map is right for the mix.
    let bins = list(mix, "bins");
    let of = |bin: &Value, place: usize| bin.get(place).and_then(Value::as_f64).unwrap_or(0.0);
    for (first, end) in [(0, 8), (8, 12), (12, 15), (15, 16)] {
        let joined = |place: usize| -> f64 {
            let bins = bins.iter().take(end).skip(first);
            bins.map(|bin| of(bin, place)).sum()
        };
        row.push(part(joined(1), joined(0)));
    }
    row
}

fn of_class(class: &Value) -> Vec<String> {
    let number = |name: &str| class.get(name).and_then(Value::as_f64);
    let count = |name: &str| format!("{:.0}", number(name).unwrap_or(0.0));
    let name = class.get("name").and_then(Value::as_str).map(plain);
    // Far below 0 where disagreement is frequent.
    let part = |name: &str| percent(number(name).unwrap_or(0.0).clamp(-9.99, 1.0));
    vec![
        name.unwrap_or_default(),
        number("floor").map_or_else(|| "-".to_owned(), |floor| format!("{floor:.6}")),
        count("requests"),
        count("audits"),
        count("disagreements"),
        count("pending"),
        part("progress"),
        part("drift"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_is_told_in_words() {
        // Judged and accepted by acceptance probability: of the least sure ones few, of the surest nearly all.
        let mut bins = vec![[0.0, 0.0]; 16];
        bins[3] = [40.0, 10.0];
        bins[14] = [60.0, 45.0];
        bins[15] = [100.0, 95.0];
        let value = json!({
            "budget": 0.01, "audit-rate": 0.1, "delta": 0.05,
            "pairs": [{
                "pair": {"draft": "0123456789abcdef", "target": "fedcba9876543210", "held": "f32/none on cpu"},
                "drafts": 25_000, "alarms": 1, "settled": true,
                "mixes": [{"mix": "text+image", "drafted": 200.0, "accepted": 150.0, "bins": bins}],
                "classes": [
                    {"name": "draft whole, target whole, greedy", "floor": 0.999, "requests": 4000, "audits": 400,
                     "disagreements": 1, "pending": 2, "progress": 0.25, "drift": 0.001},
                    {"name": "draft half, target whole, greedy", "floor": null, "requests": 10, "audits": 1,
                     "disagreements": 1, "pending": 0, "progress": -1.0e300, "drift": 0.0},
                ],
            }],
            "counted": {"checkpoints": 9, "failed-checkpoints": 0, "unreadable": 1, "lost": 0},
        });
        let text = words(&value);
        for said in [
            "budget: 1% of requests; 10% of them audited, at a chance of 5% to be over",
            "0123456789ab/fedcba987654 (f32/none on cpu): 25000 drafts judged, 1 drift alarms",
            "text+image      200       150  75.0%    25.0%       -   75.0%  95.0%",
            "0.999000",
            "25%",
            "-999%",
            "1 kept values could not be read",
        ] {
            assert!(text.contains(said), "{said} is not in:\n{text}");
        }
        assert!(!text.contains("checkpoints have failed"), "{text}");
    }

    #[test]
    fn a_pair_is_named_by_the_first_digits_of_both_models() {
        let one = |target: &str, held: &str| json!({ "pair": { "draft": "0123456789abcdef", "target": target, "held": held } });
        let known = json!({ "pairs": [
            one("fedcba9876543210", "f32/none on cpu"),
            one("fedcba9876543210", "bf16/none on cpu"),
            one("feed000000000000", "f32/none on cpu"),
        ]});
        let held = |wanted: &str| pair(&known, wanted).map(|it| it["held"].clone());
        assert_eq!(held("0123/feed").unwrap(), "f32/none on cpu");
        let named = "0123456789ab/fedcba987654 (bf16/none on cpu)";
        assert_eq!(held(named).unwrap(), "bf16/none on cpu");
        for (wanted, why) in [
            (
                "0123/fedc",
                "may mean 0123456789ab/fedcba987654 (f32/none on cpu), ",
            ),
            ("0123/0000", "known are 0123456789ab/"),
            ("0123/fe", "at least 4 digits"),
            ("0123", "give DRAFT/TARGET"),
        ] {
            let error = pair(&known, wanted).unwrap_err().to_string();
            assert!(error.contains(why), "{wanted}: {error}");
        }
        let error = pair(&json!({}), "0123/fedc").unwrap_err().to_string();
        assert!(error.contains("no draft has been judged"), "{error}");
    }

    #[test]
    fn a_node_that_knows_nothing_says_so() {
        let text = words(&json!({}));
        assert!(
            text.contains("no budget") && text.contains("no draft has been judged"),
            "{text}"
        );
    }
}
