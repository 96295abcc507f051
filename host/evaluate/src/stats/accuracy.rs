//! Is one policy as accurate as another?
//!
//! The same items were asked of both; `d_i` is the difference of the scores of item i, policy less baseline. Items of one group
//! (questions about one picture, rotations of one question) depend on each other, so that the groups are the sample.
//!
//! The one-sided 95% bound is, with n items, `S` the sum over groups of the squared sum of deviations (K.-Y. Liang, S. L. Zeger,
//! 1986; times G / (G - 1)), `u` the size of the group that an item is in, on average over items, and `z` Student's quantile for G - 1:
//!
//! `lower = mean - (u z^2 / 2 + z sqrt(S + u^2)) / n`
//!
//! Without `u` that is the usual bound, which claims certainty where no item differs. With it, where every difference is a whole
//! loss, it agrees within 2% with the exact bound for rare events (for 0, 1, 2, 5, 10 losses `n * bound` is 3.0, 4.7, 6.3, 10.5,
//! 17.0; F. Garwood, 1936), and is a little wider than needed where there are gains too.
//!
//! **Looking several times.** Who looks at 95% bounds again and again while items come in, and stops at the first that is above the
//! margin, is wrong more often than once in twenty. So the number of looks is fixed beforehand, and each of K looks has bounds of
//! `1 - 0.05 / K` (C. E. Bonferroni, 1936): whatever the looks have in common, the chance that any of the lower bounds is too high
//! is at most the sum of theirs, and so is that of the upper ones being too low. Whoever stops early, or goes on, or is left out
//! of a look, changes nothing of that. Groups of one item without a difference need 750 items with one look, 970 with two, 1,100 with
//! three, 1,260 with five, where the margin is 0.4 points.

use std::collections::BTreeMap;

use serde::Serialize;

use super::student;

/// Items that are asked for at most: beyond them one had better ask something else.
const MOST_ITEMS: u64 = 10_000_000;
/// How sure one bound is, all looks together.
const LEVEL: f64 = 0.95;

/// Scores of the same items.
#[derive(Clone, Debug, Default)]
pub struct Scores<'a> {
    /// The item's group (empty: it is alone), the policy's score, the baseline's.
    pub pairs: Vec<(&'a str, f64, f64)>,
}

/// What is known of a difference of accuracies. All in points of 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Items.
    pub items: usize,
    /// Groups of them.
    pub groups: usize,
    /// Policy less baseline.
    pub difference: f64,
    /// One-sided bounds, each by itself.
    pub lower: f64,
    /// The other.
    pub upper: f64,
    /// How sure each of them is: 0.95, or more where it is one of several looks.
    pub level: f64,
    /// What follows.
    pub decided: Decided,
}

/// Whether it counts as equally accurate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// The lower bound is above `-margin`.
    Qualified,
    /// The upper bound is below `-margin`: more items would not help.
    Worse,
    /// Neither.
    Undecided {
        /// Items that are wanted besides, if the difference stays as it is. None: then it would not be enough with any number.
        more: Option<u64>,
    },
}

impl Verdict {
    /// It may be ranked.
    pub fn is_qualified(&self) -> bool {
        self.decided == Decided::Qualified
    }

    /// More items are not wanted.
    pub fn is_decided(&self) -> bool {
        !matches!(self.decided, Decided::Undecided { .. })
    }
}

/// Judges differences against a margin in points. None with fewer than two groups.
///
/// ```
/// use msao_evaluate::stats::{Scores, qualify};
///
/// // No difference in 1,000 items: the loss is below 0.3 points, but after 500 nobody can know.
/// let equal = |count| Scores { pairs: vec![("", 1.0, 1.0); count] };
/// assert!(qualify(&equal(1_000), 0.4).is_some_and(|it| it.is_qualified()));
/// assert!(qualify(&equal(500), 0.4).is_some_and(|it| !it.is_qualified()));
/// ```
pub fn qualify(scores: &Scores, margin_points: f64) -> Option<Verdict> {
    qualify_at(scores, margin_points, LEVEL)
}

/// Judges the same items at several looks: `looks` has all scores up to each one that was reached, in their order, and `planned` says
/// how many were fixed beforehand. The first that decides counts, or else the last. None: there was none, or it has too few groups.
///
/// ```
/// use msao_evaluate::stats::{Scores, qualify_in_rounds};
///
/// let equal = |count| Scores { pairs: vec![("", 1.0, 1.0); count] };
/// // The first of two looks decides: what comes behind it is not asked any more.
/// let found = qualify_in_rounds([equal(1_000), equal(4_000)], 2, 0.4);
/// assert!(found.is_some_and(|it| it.is_qualified() && it.items == 1_000 && it.level == 0.975));
/// // With one look 800 are enough; the first of two looks has to be surer.
/// assert!(qualify_in_rounds([equal(800)], 1, 0.4).is_some_and(|it| it.is_qualified()));
/// assert!(qualify_in_rounds([equal(800)], 2, 0.4).is_some_and(|it| !it.is_qualified()));
/// ```
pub fn qualify_in_rounds<'a>(
    looks: impl IntoIterator<Item = Scores<'a>>,
    planned: usize,
    margin_points: f64,
) -> Option<Verdict> {
    let level = level_of(planned);
    let mut found = None;
    for scores in looks {
        let verdict = qualify_at(&scores, margin_points, level)?;
        found = Some(verdict);
        if verdict.is_decided() {
            break;
        }
    }
    found
}

/// How sure a bound is at each of so many looks.
pub fn level_of(looks: usize) -> f64 {
    1.0 - (1.0 - LEVEL) / looks.max(1) as f64
}

/// With bounds that are so sure.
fn qualify_at(scores: &Scores, margin_points: f64, level: f64) -> Option<Verdict> {
    let items = scores.pairs.len();
    let n = items as f64;
    let mean = scores
        .pairs
        .iter()
        .map(|(_, one, other)| one - other)
        .sum::<f64>()
        / n;
    let mut named: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
    let (mut squares, mut groups, mut sizes) = (0.0, 0_usize, 0.0);
    for (group, one, other) in &scores.pairs {
        let deviation = one - other - mean;
        if group.is_empty() {
            squares += deviation * deviation;
            groups += 1;
            sizes += 1.0;
        } else {
            let sum = named.entry(group).or_default();
            sum.0 += deviation;
            sum.1 += 1;
        }
    }
    for (sum, count) in named.values() {
        squares += sum * sum;
        sizes += f64::from(*count).powi(2);
    }
    groups += named.len();
    if groups < 2 {
        return None;
    }
    let known = Known {
        mean,
        squares: squares * groups as f64 / (groups - 1) as f64,
        unit: sizes / n,
        z: student::quantile(level, u32::try_from(groups - 1).unwrap_or(u32::MAX)),
        items: n,
    };
    let margin = margin_points / 100.0;
    let half = known.half(n);
    let (lower, upper) = (mean - half, mean + half);
    let decided = if lower > -margin {
        Decided::Qualified
    } else if upper < -margin {
        Decided::Worse
    } else {
        let more = known
            .wanted(margin)
            .map(|all| all.saturating_sub(items as u64));
        Decided::Undecided { more }
    };
    Some(Verdict {
        items,
        groups,
        difference: 100.0 * mean,
        lower: 100.0 * lower,
        upper: 100.0 * upper,
        level,
        decided,
    })
}

struct Known {
    mean: f64,
    squares: f64,
    unit: f64,
    z: f64,
    items: f64,
}

impl Known {
    /// Between the mean and a bound, if n items were as these are.
    fn half(&self, n: f64) -> f64 {
        let squares = self.squares * n / self.items;
        let spread = self.z * (squares + self.unit * self.unit).sqrt();
        (self.unit * self.z * self.z / 2.0 + spread) / n
    }

    /// The fewest items with which it would be qualified.
    fn wanted(&self, margin: f64) -> Option<u64> {
        let enough = |n: u64| self.mean - self.half(n as f64) > -margin;
        let (mut low, mut high) = (0, MOST_ITEMS);
        if !enough(high) {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::random::Random;
    use super::*;

    fn scores(losses: usize, gains: usize, all: usize) -> Scores<'static> {
        let mut pairs = vec![("", 0.0, 1.0); losses];
        pairs.extend(vec![("", 1.0, 0.0); gains]);
        pairs.resize(all, ("", 1.0, 1.0));
        Scores { pairs }
    }

    #[test]
    fn whole_losses_are_bounded_as_exactly_as_can_be() {
        // Garwood's upper bounds of 95% for so many events.
        for (losses, exact) in [
            (0, 2.9957),
            (1, 4.7439),
            (2, 6.2958),
            (5, 10.5130),
            (10, 16.9622),
            (30, 40.6907),
        ] {
            let all = 100_000;
            let verdict = qualify(&scores(losses, 0, all), 0.4).unwrap();
            let found = -verdict.lower / 100.0 * all as f64;
            assert!(
                (found / exact - 1.0).abs() < 0.02,
                "{losses}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn an_example_by_hand() {
        // 30 losses and 20 gains of 2,000: mean -0.005; squares 50 - 2000 * 0.005^2 = 49.95, by 2000 / 1999. z(1999) = 1.6456.
        let verdict = qualify(&scores(30, 20, 2_000), 0.4).unwrap();
        let z = student::quantile(0.95, 1_999);
        let half = (z * z / 2.0 + z * (49.95_f64 * 2_000.0 / 1_999.0 + 1.0).sqrt()) / 2_000.0;
        assert!((verdict.difference + 0.5).abs() < 1e-12);
        assert!((verdict.lower + 0.5 + 100.0 * half).abs() < 1e-9);
        // At a mean below the margin no number helps, but it is not shown to be worse yet.
        assert_eq!(verdict.decided, Decided::Undecided { more: None });
        assert!(matches!(
            qualify(&scores(150, 20, 2_000), 0.4).unwrap().decided,
            Decided::Worse
        ));
    }

    #[test]
    fn as_many_more_as_are_told_are_enough() {
        let verdict = qualify(&scores(10, 8, 1_000), 0.4).unwrap();
        let Decided::Undecided { more: Some(more) } = verdict.decided else {
            panic!("{verdict:?}");
        };
        let times = (1_000 + more) as f64 / 1_000.0;
        let larger = |times: f64| {
            let of = |count: f64| (count * times).round() as usize;
            qualify(&scores(of(10.0), of(8.0), of(1_000.0)), 0.4).unwrap()
        };
        assert!(larger(times * 1.1).is_qualified());
        assert!(!larger(times * 0.85).is_qualified());
    }

    #[test]
    fn items_of_a_group_are_not_many() {
        let names: Vec<String> = (0..500).map(|number| format!("g{number}")).collect();
        let mut grouped = scores(0, 0, 0);
        for (number, name) in names.iter().enumerate() {
            // Four questions about one picture that go wrong together.
            let one = if number % 50 == 0 { 0.0 } else { 1.0 };
            grouped.pairs.extend([(name.as_str(), one, 1.0); 4]);
        }
        let alone = Scores {
            pairs: grouped
                .pairs
                .iter()
                .map(|(_, one, other)| ("", *one, *other))
                .collect(),
        };
        let (grouped, alone) = (
            qualify(&grouped, 0.4).unwrap(),
            qualify(&alone, 0.4).unwrap(),
        );
        assert_eq!(
            (grouped.items, grouped.groups, alone.groups),
            (2_000, 500, 2_000)
        );
        assert_eq!(grouped.difference, alone.difference);
        assert!(grouped.lower < alone.lower - 0.5);
        assert_eq!(qualify(&scores(0, 0, 1), 0.4), None);
        assert_eq!(qualify(&Scores::default(), 0.4), None);
    }

    #[test]
    fn who_is_worse_is_seldom_qualified() {
        // True loss just at the margin: 3% of items differ, 1.7% to the worse and 1.3% to the better.
        let mut random = Random::new(3);
        let wrong = (0..1_000).filter(|_| {
            let pairs = (0..3_000).map(|_| {
                let x = random.uniform();
                if x < 0.017 {
                    ("", 0.0, 1.0)
                } else if x < 0.030 {
                    ("", 1.0, 0.0)
                } else {
                    ("", 1.0, 1.0)
                }
            });
            qualify(
                &Scores {
                    pairs: pairs.collect(),
                },
                0.4,
            )
            .unwrap()
            .is_qualified()
        });
        // 50 are allowed, give or take 7.
        let wrong = wrong.count();
        assert!(wrong <= 65, "{wrong}");
    }

    /// Whether each of these policies, whose true loss is just the margin, is ever taken for as accurate: by bounds of 95% at
    /// every look, and by those that are made for so many looks. 3% of items differ, 1.7% to the worse and 1.3% to the better.
    fn taken_for_equal(policies: usize, looks: &[usize]) -> (usize, usize) {
        let mut random = Random::new(7);
        let (mut careless, mut honest) = (0, 0);
        for _ in 0..policies {
            let last = looks.last().copied().unwrap_or(0);
            let pairs: Vec<_> = (0..last)
                .map(|_| match random.uniform() {
                    x if x < 0.017 => ("", 0.0, 1.0),
                    x if x < 0.030 => ("", 1.0, 0.0),
                    _ => ("", 1.0, 1.0),
                })
                .collect();
            let at = looks.iter().map(|items| Scores {
                pairs: pairs[..*items].to_vec(),
            });
            let at: Vec<Scores> = at.collect();
            let qualified = |it: &Scores| qualify(it, 0.4).unwrap().is_qualified();
            careless += usize::from(at.iter().any(qualified));
            let found = qualify_in_rounds(at, looks.len(), 0.4).unwrap();
            honest += usize::from(found.is_qualified());
        }
        (careless, honest)
    }

    #[test]
    fn looking_several_times_is_paid_for() {
        let (careless, honest) = taken_for_equal(600, &[500, 1_000, 2_000, 4_000]);
        // 30 are allowed, give or take 5; whoever looks four times at 95% takes more.
        assert!(honest <= 40, "{honest}");
        assert!(careless > 45, "{careless}");
    }

    #[test]
    fn the_first_look_that_decides_counts() {
        let looks = |losses: usize| [1_000, 4_000].map(|all| scores(losses * all / 1_000, 0, all));
        let found = |losses| qualify_in_rounds(looks(losses), 2, 0.4).unwrap();
        // No loss, one in a thousand, twenty in a thousand.
        assert_eq!(
            (found(0).items, found(0).decided),
            (1_000, Decided::Qualified)
        );
        assert_eq!(
            (found(1).items, found(1).decided),
            (4_000, Decided::Qualified)
        );
        assert_eq!(
            (found(20).items, found(20).decided),
            (1_000, Decided::Worse)
        );
        // Until the second is reached nobody knows of the one in a thousand.
        let [first, _] = looks(1);
        let early = qualify_in_rounds([first], 2, 0.4).unwrap();
        assert!(!early.is_decided() && early.level == 0.975);
        assert_eq!(qualify_in_rounds([], 2, 0.4), None);
    }

    #[test]
    fn as_many_are_enough_as_is_written() {
        for (looks, enough) in [(1, 750), (2, 970), (3, 1_100), (5, 1_260)] {
            let level = level_of(looks);
            let judged = |all| qualify_at(&scores(0, 0, all), 0.4, level).unwrap();
            let qualified = |all| judged(all).is_qualified();
            assert!(qualified(enough + 5) && !qualified(enough - 5), "{looks}");
        }
    }

    proptest! {
        #[test]
        fn bounds_are_around_the_difference(pairs in prop::collection::vec((0..9_u8, 0.0..=1.0_f64, 0.0..=1.0_f64), 2..60)) {
            let names: Vec<String> = (0..9).map(|number| if number == 0 { String::new() } else { number.to_string() }).collect();
            let scores = Scores { pairs: pairs.iter().map(|(group, a, b)| (names[usize::from(*group)].as_str(), *a, *b)).collect() };
            if let Some(verdict) = qualify(&scores, 0.4) {
                prop_assert!(verdict.lower < verdict.difference && verdict.difference < verdict.upper);
                prop_assert_eq!(verdict.is_qualified(), verdict.lower > -0.4);
            }
        }
    }
}
