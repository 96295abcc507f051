//! The figures of one cell.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::rows::{Measured, Row};
use crate::spec::{Prices, Rate};
use crate::stats::{Interval, mean_of_repeats, quantile};

/// Rows of one cell by repeat.
pub(super) type Repeats<'a> = BTreeMap<u32, Vec<&'a Row>>;

/// A distribution in three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// What one answered request comes to, on average. None: not measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that counted.
    pub asked: usize,
    /// Of those, with a whole answer.
    pub answered: usize,
    /// End to end, in ms.
    pub total: Option<Interval>,
    /// End to end, in ms, all repeats together.
    pub total_ms: Option<Spread>,
    /// To the first token, in ms.
    pub ttft_ms: Option<Spread>,
    /// Between tokens, in ms: the median over answers of each answer's own percentile.
    pub itl_ms: Option<Spread>,
    /// Means of the columns that a report shows, by column.
    pub means: BTreeMap<&'static str, f64>,
    /// Of 1,000 answered requests.
    pub cost: Option<Cost>,
}

/// In the currency of the price table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The edge's work.
    pub edge: f64,
    /// The cloud's work.
    pub cloud: f64,
    /// What leaves the cloud.
    pub egress: f64,
}

impl Cost {
    /// Everything.
    pub fn all(&self) -> f64 {
        self.edge + self.cloud + self.egress
    }
}

pub(crate) type Column = fn(&Measured) -> Option<f64>;

/// What is added up over all requests, and told for each answered one: unanswered ones cost too.
pub(super) const SUMS: [(&str, Column); 15] = [
    ("bytes_up", |it| it.bytes_up.map(|it| it as f64)),
    ("bytes_down", |it| it.bytes_down.map(|it| it as f64)),
    ("flops_edge", |it| it.flops_edge),
    ("flops_cloud", |it| it.flops_cloud),
    ("flops", Measured::flops),
    ("flops_wasted", |it| it.flops_wasted),
    ("cache_byte_seconds_edge", |it| it.cache_byte_seconds_edge),
    ("cache_byte_seconds_cloud", |it| it.cache_byte_seconds_cloud),
    ("activation_bytes_edge", |it| {
        it.activation_bytes_edge.map(|it| it as f64)
    }),
    ("activation_bytes_cloud", |it| {
        it.activation_bytes_cloud.map(|it| it as f64)
    }),
    ("busy_edge_ms", |it| it.busy_edge_ms),
    ("busy_cloud_ms", |it| it.busy_cloud_ms),
    ("probe_ms", |it| it.probe_ms),
    ("plugin_ms", |it| it.plugin_ms),
    ("energy_j", |it| it.energy_j),
];

/// What is averaged over answered requests alone.
const MEANS: [(&str, Column); 4] = [
    ("total_ms", |it| it.total_ms),
    ("ttft_ms", |it| it.ttft_ms),
    ("tokens", |it| it.tokens.map(f64::from)),
    ("unverified_share", |it| it.unverified_share),
];

/// A column by its name; of one that is not there, nothing.
pub(crate) fn column(name: &str) -> Column {
    let known = SUMS.iter().chain(&MEANS).find(|(it, _)| *it == name);
    known.map_or(|_| None, |(_, column)| *column)
}

impl Figures {
    /// `energy_j`: of a turn.
    pub(super) fn of(
        repeats: &Repeats,
        prices: Option<&Prices>,
        energy_j: &dyn Fn(&str) -> Option<f64>,
    ) -> Figures {
        let rows = || repeats.values().flatten();
        let answered = || rows().filter(|row| row.measured.is_answered());
        let values = |column: Column| -> Vec<f64> {
            answered().filter_map(|row| column(&row.measured)).collect()
        };
        let spread = |columns: [Column; 3], shares: [f64; 3]| -> Option<Spread> {
            let [p50, p95, p99] = columns.map(values);
            Some(Spread {
                p50: quantile(&p50, shares[0])?,
                p95: quantile(&p95, shares[1])?,
                p99: quantile(&p99, shares[2])?,
            })
        };
        let percentiles = |column: Column| spread([column; 3], [0.5, 0.95, 0.99]);
        let by_repeat: Vec<Vec<f64>> = repeats
            .values()
            .map(|rows| {
                let answered = rows.iter().filter(|row| row.measured.is_answered());
                answered.filter_map(|row| row.measured.total_ms).collect()
            })
            .collect();
        let mut means = BTreeMap::new();
        for (name, column) in SUMS {
            let (mut sum, mut count) = (0.0, 0_u32);
            for row in rows() {
                if let Some(value) = column(&row.measured) {
                    sum += value;
                    count += u32::from(row.measured.is_answered());
                }
            }
            if count > 0 {
                means.insert(name, sum / f64::from(count));
            }
        }
        if let Some(joules) = joules(repeats, energy_j) {
            means.entry("energy_j").or_insert(joules);
        }
        for (name, column) in MEANS {
            if let Some(mean) = crate::stats::mean(&values(column)) {
                means.insert(name, mean);
            }
        }
        let (drafted, accepted) = answered().fold((0.0, 0.0), |(drafted, accepted), row| {
            match (row.measured.drafted, row.measured.accepted) {
                (Some(more), Some(of)) => (drafted + f64::from(more), accepted + f64::from(of)),
                _ => (drafted, accepted),
            }
        });
        if drafted > 0.0 {
            means.insert("acceptance", accepted / drafted);
        }
        Figures {
            asked: rows().count(),
            answered: answered().count(),
            total: mean_of_repeats(&by_repeat),
            total_ms: percentiles(|it| it.total_ms),
            ttft_ms: percentiles(|it| it.ttft_ms),
            itl_ms: spread(
                [|it| it.itl_p50_ms, |it| it.itl_p95_ms, |it| it.itl_p99_ms],
                [0.5; 3],
            ),
            cost: prices.and_then(|prices| cost(prices, &means)),
            means,
        }
    }

    /// Requests without a whole answer.
    pub fn unanswered(&self) -> usize {
        self.asked - self.answered
    }

    /// The mean of a column; None: not measured.
    pub fn mean(&self, column: &str) -> Option<f64> {
        self.means.get(column).copied()
    }
}

/// None where something that has a price was not measured.
fn cost(prices: &Prices, means: &BTreeMap<&'static str, f64>) -> Option<Cost> {
    let mean = |column: &str| means.get(column).copied();
    let work = |rate: Rate, busy: &str, flops: &str| match rate {
        Rate::NodeSeconds(price) | Rate::Pflop(price) if price == 0.0 => Some(0.0),
        // 1,000 requests, and the price is of 1,000 seconds.
        Rate::NodeSeconds(price) => Some(mean(busy)? / 1e3 * price),
        Rate::Pflop(price) => Some(1e3 * mean(flops)? / 1e15 * price),
    };
    let egress = match prices.egress_per_gb {
        0.0 => 0.0,
        price => 1e3 * mean("bytes_down")? / 1e9 * price,
    };
    Some(Cost {
        edge: work(prices.edge, "busy_edge_ms", "flops_edge")?,
        cloud: work(prices.cloud, "busy_cloud_ms", "flops_cloud")?,
        egress,
    })
}

/// What the machine used for each answered request, over the turns of which that is known.
fn joules(repeats: &Repeats, energy_j: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
    let mut turns: BTreeMap<&str, u32> = BTreeMap::new();
    for row in repeats.values().flatten() {
        *turns.entry(row.key.turn.as_str()).or_default() += u32::from(row.measured.is_answered());
    }
    let (mut joules, mut answered) = (0.0, 0_u32);
    for (turn, of_it) in turns {
        if let Some(it) = energy_j(turn) {
            joules += it;
            answered += of_it;
        }
    }
    (answered > 0).then(|| joules / f64::from(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let prices = Prices {
            currency: "USD".to_owned(),
            edge: Rate::NodeSeconds(0.5),
            cloud: Rate::Pflop(2.0),
            egress_per_gb: 0.1,
        };
        // 1,000 requests of 200 ms are 200 s; of 5 Tflop they are 5 Pflop; of 20 kB they are 0.02 GB.
        let means = BTreeMap::from([
            ("busy_edge_ms", 200.0),
            ("flops_cloud", 5e12),
            ("bytes_down", 2e4),
        ]);
        let found = cost(&prices, &means).unwrap();
        assert!((found.edge - 0.1).abs() < 1e-12 && (found.cloud - 10.0).abs() < 1e-12);
        assert!((found.egress - 0.002).abs() < 1e-12 && (found.all() - 10.102).abs() < 1e-12);
        assert_eq!(cost(&prices, &BTreeMap::new()), None);
        let free = Prices {
            edge: Rate::NodeSeconds(0.0),
            cloud: Rate::Pflop(0.0),
            egress_per_gb: 0.0,
            ..prices
        };
        assert_eq!(cost(&free, &BTreeMap::new()).unwrap().all(), 0.0);
    }
}
