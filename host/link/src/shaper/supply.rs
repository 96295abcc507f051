//! When a number of bytes has passed a bottleneck, given when it became free.

use std::sync::Arc;

use super::bandwidth::Bandwidth;
use super::trace::{Kind, OPPORTUNITY, Rate, Trace};
use super::{NANOS_PER_MS, NANOS_PER_S, Nanos};

/// What a direction has to give.
#[derive(Clone, Debug)]
pub(super) enum Supply {
    /// As much as anybody wants.
    Unlimited,
    /// Always the same.
    Constant(Bandwidth),
    /// What was recorded, in a loop that begins then.
    Trace(Arc<Trace>, Nanos),
}

/// How far a supply is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// When the last byte so far has passed.
    pub(super) free_at: Nanos,
    /// The opportunity in use, counted over all rounds of the trace.
    opportunity: u64,
    /// Bytes of it that are used.
    used: u64,
}

impl Cursor {
    /// The same moment in another supply, of which nothing is used.
    pub(super) fn anew(self) -> Cursor {
        Cursor {
            free_at: self.free_at,
            ..Cursor::default()
        }
    }
}

impl Supply {
    /// The cursor once `bytes` have passed that could begin at `start`, which is not before `cursor.free_at`.
    pub(super) fn serve(&self, cursor: Cursor, start: Nanos, bytes: u64) -> Cursor {
        let passed_at = |free_at| Cursor { free_at, ..cursor };
        match self {
            Supply::Unlimited => passed_at(start),
            Supply::Constant(bandwidth) => {
                let lasts = nanobits(bytes).div_ceil(u128::from(bandwidth.bps()));
                passed_at(start.saturating_add(clamp(lasts)))
            }
            Supply::Trace(trace, begun) => {
                let start = start.saturating_sub(*begun);
                let passed = match &trace.0 {
                    Kind::Opportunities(moments) => opportunities(moments, cursor, start, bytes),
                    Kind::Rates(rates) => passed_at(piecewise(rates, start, bytes)),
                };
                Cursor {
                    free_at: passed.free_at.saturating_add(*begun),
                    ..passed
                }
            }
        }
    }
}

/// Bits by 10^9, so that a rate by a time in ns needs no division.
fn nanobits(bytes: u64) -> u128 {
    u128::from(bytes) * 8 * u128::from(NANOS_PER_S)
}

fn clamp(nanos: u128) -> Nanos {
    Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
}

fn opportunities(moments: &[u64], cursor: Cursor, start: Nanos, bytes: u64) -> Cursor {
    let mut at = first_opportunity(moments, start.div_ceil(NANOS_PER_MS)).max(cursor.opportunity);
    let mut used = if at == cursor.opportunity {
        cursor.used
    } else {
        0
    };
    let mut rest = bytes;
    while rest > OPPORTUNITY - used {
        rest -= OPPORTUNITY - used;
        used = 0;
        at += 1;
    }
    let (count, period) = (moments.len() as u64, moments.last().copied().unwrap_or(0));
    let within = moments.get((at % count) as usize).copied().unwrap_or(0);
    let ms = (at / count).saturating_mul(period).saturating_add(within);
    Cursor {
        free_at: ms.saturating_mul(NANOS_PER_MS).max(start),
        opportunity: at,
        used: used + rest,
    }
}

/// The first opportunity at `ms` or later, counted over all rounds.
fn first_opportunity(moments: &[u64], ms: u64) -> u64 {
    let (count, period) = (moments.len() as u64, moments.last().copied().unwrap_or(1));
    let (mut round, mut within) = (ms / period, ms % period);
    // The end of a round is the beginning of the next; its last opportunities are the earlier ones.
    if within == 0 && round > 0 {
        (round, within) = (round - 1, period);
    }
    round * count + moments.partition_point(|&moment| moment < within) as u64
}

fn piecewise(rates: &[Rate], start: Nanos, bytes: u64) -> Nanos {
    let period = rates.last().map_or(1, |rate| rate.end);
    let within = start % period;
    let now = rates.partition_point(|rate| rate.end <= within);
    // Most of what is sent passes at the rate that holds: long traces need not be summed up for it.
    if let Some(rate) = rates.get(now).filter(|rate| rate.bps > 0) {
        let need = nanobits(bytes);
        if u128::from(rate.bps) * u128::from(rate.end - within) >= need {
            return start.saturating_add(clamp(need.div_ceil(u128::from(rate.bps))));
        }
    }
    let mut begin = 0;
    let mut per_round = 0;
    for rate in rates {
        per_round += u128::from(rate.bps) * u128::from(rate.end - begin);
        begin = rate.end;
    }
    let mut need = nanobits(bytes);
    // Whole rounds are skipped, but never the one in which the last bit goes.
    let rounds = need.saturating_sub(1) / per_round.max(1);
    need -= rounds * per_round;
    let mut at = start % period;
    let mut round = (start - at).saturating_add(clamp(rounds * u128::from(period)));
    let mut next = rates.partition_point(|rate| rate.end <= at);
    // What is left is at most what one round gives, from any moment on.
    for _ in 0..=rates.len() {
        let Some(rate) = rates.get(next) else { break };
        let gives = u128::from(rate.bps) * u128::from(rate.end - at);
        if gives >= need && rate.bps > 0 {
            let lasts = clamp(need.div_ceil(u128::from(rate.bps)));
            return round.saturating_add(at).saturating_add(lasts);
        }
        need -= gives;
        at = rate.end;
        next += 1;
        if next == rates.len() {
            (next, at) = (0, 0);
            round = round.saturating_add(period);
        }
    }
    round.saturating_add(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::trace::TraceFormat;
    use super::*;

    const MS: Nanos = NANOS_PER_MS;

    fn trace(text: &str, format: TraceFormat) -> Supply {
        Supply::Trace(Arc::new(Trace::parse(text, format).unwrap()), 0)
    }

    /// Sends `sizes` one after the other and tells when each has passed.
    fn passed(supply: &Supply, sizes: &[u64]) -> Vec<f64> {
        let mut cursor = Cursor::default();
        (sizes.iter())
            .map(|&bytes| {
                cursor = supply.serve(cursor, cursor.free_at, bytes);
                cursor.free_at as f64 / MS as f64
            })
            .collect()
    }

    #[test]
    fn a_constant_bandwidth_takes_bits_by_rate() {
        let supply = Supply::Constant("12 Mbit/s".parse().unwrap());
        assert_eq!(passed(&supply, &[1500, 750]), [1.0, 1.5]);
        assert_eq!(passed(&Supply::Unlimited, &[1 << 40]), [0.0]);
    }

    #[test]
    fn opportunities_take_a_packet_each_and_loop() {
        let supply = trace("2\n2\n10", TraceFormat::Mahimahi);
        assert_eq!(
            passed(&supply, &[1500, 1500, 1500, 1500, 1500, 1500, 1500]),
            [2.0, 2.0, 10.0, 12.0, 12.0, 20.0, 22.0]
        );
        // Small packets share an opportunity, large ones go on in the next.
        assert_eq!(
            passed(&supply, &[700, 800, 1, 1499, 2000]),
            [2.0, 2.0, 2.0, 2.0, 12.0]
        );
        // What nobody used is lost.
        let late = supply.serve(Cursor::default(), 3 * MS, 1500);
        assert_eq!(late.free_at, 10 * MS);
        assert_eq!(supply.serve(late, 25 * MS, 3000).free_at, 32 * MS);
        // An opportunity at the end of a round can still be used at that moment.
        assert_eq!(
            supply.serve(Cursor::default(), 20 * MS, 1500).free_at,
            20 * MS
        );
    }

    #[test]
    fn rates_are_integrated_across_pauses_and_rounds() {
        // 12 Mbit/s for 1 ms, nothing for 1 ms, 6 Mbit/s for 2 ms: 1500 bytes, 0, 1500.
        let supply = trace("time_ms,bps\n0,12e6\n1,0\n2,6e6\n4,0\n", TraceFormat::Csv);
        let ms = passed(&supply, &[750, 1500, 750, 1500, 3000]);
        assert_eq!(ms, [0.5, 3.0, 4.0, 7.0, 13.0]);
    }

    proptest! {
        /// Sending all at once or in pieces ends at the same moment, up to a rounding for each piece.
        #[test]
        fn pieces_take_as_long_as_the_whole(
            sizes in prop::collection::vec(1_u64..5_000, 1..20),
            rates in prop::collection::vec((1_u64..50, 0_u64..20_000_000), 1..8),
            start in 0_u64..1_000_000_000,
        ) {
            let mut text = "time_ms,bps\n0,1000000\n".to_owned();
            let mut at = 0;
            for (lasts, bps) in rates {
                at += lasts;
                text.push_str(&format!("{at},{bps}\n"));
            }
            let supply = trace(&text, TraceFormat::Csv);
            let begin = Cursor { free_at: start, ..Cursor::default() };
            let whole = supply.serve(begin, start, sizes.iter().sum()).free_at;
            let mut cursor = begin;
            for &bytes in &sizes {
                let next = supply.serve(cursor, cursor.free_at, bytes);
                prop_assert!(next.free_at >= cursor.free_at);
                cursor = next;
            }
            prop_assert!(cursor.free_at >= whole);
            // A rounding up to a ns loses at most that ns's bits, which a slow rate may take a while to make up for.
            prop_assert!(cursor.free_at - whole <= 200 * MS, "{} {whole}", cursor.free_at);
        }
    }
}
