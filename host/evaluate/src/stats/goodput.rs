//! Goodput: the highest rate of arrivals at which requests are served in time.

use serde::Serialize;

/// One rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// Requests a second that came.
    pub rate_per_s: f64,
    /// Requests.
    pub asked: usize,
    /// Of those, answered in time. One without a whole answer never is.
    pub in_time: usize,
}

impl Rung {
    /// Of the requests; 0 of none.
    pub fn share(&self) -> f64 {
        if self.asked == 0 {
            return 0.0;
        }
        self.in_time as f64 / self.asked as f64
    }
}

/// What rates are carried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goodput {
    /// The highest rate that is carried, and all below it that were tried. None: not even the lowest.
    pub carried_per_s: Option<f64>,
    /// The lowest rate that is not. None: the true goodput may be higher.
    pub missed_per_s: Option<f64>,
    /// Everything that was tried, from the lowest rate.
    pub rungs: Vec<Rung>,
}

/// Of rates that were tried: those up to the first at which less than `share` of the requests were served in time are carried. So
/// a lucky turn above a rate that was missed does not count. None where nothing was tried.
///
/// ```
/// use msao_evaluate::stats::{Rung, goodput};
///
/// let rung = |rate_per_s, in_time| Rung { rate_per_s, asked: 100, in_time };
/// let found = goodput(vec![rung(4.0, 94), rung(2.0, 97), rung(1.0, 100)], 0.95);
/// assert!(found.is_some_and(|it| it.carried_per_s == Some(2.0) && it.missed_per_s == Some(4.0)));
/// ```
pub fn goodput(mut rungs: Vec<Rung>, share: f64) -> Option<Goodput> {
    rungs.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    let missed = rungs.iter().position(|rung| rung.share() < share);
    let carried = missed.unwrap_or(rungs.len()).checked_sub(1);
    let rate = |place: usize| rungs.get(place).map(|rung| rung.rate_per_s);
    let (carried_per_s, missed_per_s) = (carried.and_then(rate), missed.and_then(rate));
    (!rungs.is_empty()).then_some(Goodput {
        carried_per_s,
        missed_per_s,
        rungs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(rate_per_s: f64, in_time: usize) -> Rung {
        Rung {
            rate_per_s,
            asked: 20,
            in_time,
        }
    }

    #[test]
    fn luck_above_a_miss_does_not_count() {
        let found = goodput(vec![rung(1.0, 20), rung(2.0, 18), rung(4.0, 20)], 0.95).unwrap();
        assert_eq!(
            (found.carried_per_s, found.missed_per_s),
            (Some(1.0), Some(2.0))
        );
        // 19 of 20 are just enough.
        let found = goodput(vec![rung(1.0, 20), rung(2.0, 19)], 0.95).unwrap();
        assert_eq!((found.carried_per_s, found.missed_per_s), (Some(2.0), None));
        let found = goodput(vec![rung(1.0, 0)], 0.95).unwrap();
        assert_eq!((found.carried_per_s, found.missed_per_s), (None, Some(1.0)));
        assert_eq!(goodput(Vec::new(), 0.95), None);
        assert_eq!(rung(1.0, 5).share(), 0.25);
    }
}
