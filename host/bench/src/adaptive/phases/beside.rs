//! What came of the phases: the adaptive policy beside the fixed ones that are as often right.

use super::{
    ADAPTIVE, BEST, COMPARED, Change, FIXED, FULL_MS, PHASES, POINTS, Seen, USED_TO, mean,
};
use crate::report::Row;

/// Whether there is a link in a phase. Without one the edge answers, whoever plans.
fn has_link(phase: usize) -> bool {
    !matches!(PHASES.get(phase), Some((_, Change::Lost)))
}

/// Requests of all phases but those without a link.
fn with_link(seen: &[Seen]) -> impl Iterator<Item = &Seen> {
    let phases = seen.chunks(USED_TO + COMPARED).enumerate();
    phases
        .filter(|(phase, _)| has_link(*phase))
        .flat_map(|(_, seen)| seen)
}

/// How much less often one's short answers are right than another's, to the same questions.
#[derive(Clone, Copy, Debug)]
struct Loss {
    points: f64,
    /// Standard error of the difference.
    error: f64,
    /// Right answers of either, in percent.
    own: f64,
    other: f64,
    count: usize,
}

impl Loss {
    fn of(own: &[Seen], other: &[Seen]) -> Loss {
        let points = |right: bool| if right { 100.0 } else { 0.0 };
        let both = with_link(own).zip(with_link(other));
        let both: Vec<(f64, f64)> = both
            .filter_map(|(own, other)| Some((points(own.right?), points(other.right?))))
            .collect();
        let lost = mean(both.iter().map(|(own, other)| other - own));
        let square = mean(both.iter().map(|(own, other)| (other - own - lost).powi(2)));
        Loss {
            points: lost,
            error: (square / (both.len() as f64).max(1.0)).sqrt(),
            own: mean(both.iter().map(|(own, _)| *own)),
            other: mean(both.iter().map(|(_, other)| *other)),
            count: both.len(),
        }
    }

    /// Whether it is as often right, as far as is asked. Where nothing was compared it is not.
    fn is_equal(&self) -> bool {
        self.count > 0 && self.points <= POINTS
    }
}

/// A phase's requests that are compared.
fn counted(seen: &[Seen], phase: usize) -> impl Iterator<Item = &Seen> {
    let size = USED_TO + COMPARED;
    let own = seen.iter().skip(phase * size).take(size);
    own.skip(USED_TO)
}

/// Their mean latency.
fn of_phase(seen: &[Seen], phase: usize) -> f64 {
    mean(counted(seen, phase).map(|seen| seen.ms))
}

/// Whether the cloud's queue was full when it should have been: the edge saw it grow. None: there was no such phase.
fn queue(phases: usize, own: &[Seen]) -> Option<Row> {
    let is_full = |(_, change): &(&str, Change)| matches!(change, Change::Busy);
    let full = PHASES.iter().position(is_full);
    let full = full.filter(|full| (1..phases).contains(full))?;
    let wait_ms = |phase: usize| mean(counted(own, phase).map(|seen| seen.queue_ms.max(0.0)));
    let (before_ms, full_ms) = (wait_ms(full - 1), wait_ms(full));
    let of = format!(
        "the wait at the cloud that {ADAPTIVE}'s edge estimates while the queue is full, beyond that before"
    );
    let more = format!("{full_ms:.0} ms, and {before_ms:.0} ms before");
    Some(Row::at_least(of, full_ms - before_ms, FULL_MS, " ms").with_more(Some(more)))
}

/// How often an answer came by which route in a phase, of those that are compared, and how long that took.
fn routes(seen: &[Seen], phase: usize) -> String {
    let mut routes: Vec<(&str, usize, f64)> = Vec::new();
    for it in counted(seen, phase) {
        match routes.iter_mut().find(|(route, ..)| *route == it.route) {
            Some((_, count, ms)) => (*count, *ms) = (*count + 1, *ms + it.ms),
            None => routes.push((&it.route, 1, it.ms)),
        }
    }
    let routes = routes.iter().map(|(it, count, ms)| {
        let mean_ms = ms / *count as f64;
        format!("{it} {count} ({mean_ms:.0} ms)")
    });
    let routes: Vec<String> = routes.collect();
    routes.join(", ")
}

/// Standard error of the difference between one's mean latency in a phase and another's, over the same questions; in ms.
fn error_ms(own: &[Seen], other: &[Seen], phase: usize) -> f64 {
    let both = || counted(own, phase).zip(counted(other, phase));
    let apart = mean(both().map(|(own, other)| own.ms - other.ms));
    let square = mean(both().map(|(own, other)| (own.ms - other.ms - apart).powi(2)));
    (square / COMPARED as f64).sqrt()
}

/// The rows of a run. `seen`: of the adaptive policy, and of the fixed ones.
pub(super) fn compared(phases: &[&str], seen: &[Vec<Seen>]) -> Vec<Row> {
    let Some((own, fixed)) = seen.split_first() else {
        return Vec::new();
    };
    let cloud = fixed.first().map(Vec::as_slice).unwrap_or_default();
    // Whoever is less often right is no measure: it could do something else.
    let equal: Vec<bool> = fixed
        .iter()
        .map(|it| Loss::of(it, cloud).is_equal())
        .collect();
    let best_of = |each: &dyn Fn(&[Seen]) -> f64| {
        let equals = fixed.iter().zip(&equal).filter(|(_, equal)| **equal);
        equals.map(|(it, _)| each(it)).fold(f64::INFINITY, f64::min)
    };
    let mut rows = Vec::new();
    for (phase, name) in phases.iter().enumerate() {
        let ours = of_phase(own, phase);
        let best = best_of(&|seen: &[Seen]| of_phase(seen, phase));
        let each = [ADAPTIVE].into_iter().chain(FIXED).zip(seen);
        let each: Vec<String> = each
            .map(|(name, seen)| format!("{name} {:.0} ms", of_phase(seen, phase)))
            .collect();
        let of = format!("{name}: {ADAPTIVE} beside the best fixed policy of equal accuracy");
        let row = match best.is_finite() {
            true => Row::at_most(of, ours / best, BEST, ""),
            false => Row::failed(of, "<= 1.1", "no fixed policy was compared"),
        };
        let error_ms = error_ms(own, cloud, phase);
        let told = [
            each.join(", "),
            format!("standard error beside cloud-only, over the same questions: {error_ms:.1} ms"),
            format!("its routes: {}", routes(own, phase)),
        ];
        rows.push(
            told.into_iter()
                .fold(row, |row, it| row.with_more(Some(it))),
        );
    }
    rows.extend(queue(phases.len(), own));
    let whole = |seen: &[Seen]| mean(seen.iter().map(|seen| seen.ms));
    for ((name, fixed), equal) in FIXED.iter().zip(fixed).zip(&equal) {
        let ratio = whole(own) / whole(fixed);
        let of = format!("over the whole run: {ADAPTIVE} beside {name}");
        let loss = Loss::of(fixed, cloud);
        let right = format!("{:.1}% of {} short answers right", loss.own, loss.count);
        rows.push(match equal {
            true => Row::at_most(of, ratio, 1.0, "").with_more(Some(right)),
            false => Row::told(format!("{of}, which is less often right"), ratio, "")
                .with_more(Some(right)),
        });
    }
    let of = format!("of {ADAPTIVE}'s, wrong where cloud-only's are right");
    let where_lost = format!("{of}: {}", where_lost(phases, own, cloud));
    rows.push(accuracy(&Loss::of(own, cloud)).with_more(Some(where_lost)));
    rows
}

/// In which phases with a link, and by which routes, answers are wrong where another's are right.
fn where_lost(phases: &[&str], own: &[Seen], other: &[Seen]) -> String {
    let is_lost = |own: &Seen, other: &Seen| (own.right, other.right) == (Some(false), Some(true));
    let size = USED_TO + COMPARED;
    let each = own.chunks(size).zip(other.chunks(size)).zip(phases);
    let each = (each.enumerate()).filter(|(phase, _)| has_link(*phase));
    let each = each.filter_map(|(_, ((own, other), phase))| {
        let both = own.iter().zip(other);
        let lost = both.filter(|(own, other)| is_lost(own, other));
        let routes: Vec<&str> = lost.map(|(own, _)| own.route.as_str()).collect();
        (!routes.is_empty()).then(|| format!("{phase} ({})", routes.join(", ")))
    });
    let each: Vec<String> = each.collect();
    match each.is_empty() {
        true => "none".to_owned(),
        false => each.join("; "),
    }
}

fn accuracy(loss: &Loss) -> Row {
    let name =
        format!("points of accuracy that {ADAPTIVE} loses to cloud-only, while there is a link");
    if loss.count == 0 {
        return Row::failed(name, "<= 0.4", "no short answer was compared");
    }
    Row::at_most(name, loss.points, POINTS, "").with_more(Some(format!(
        "{:.1}% of {} short answers are right, beside {:.1}%; standard error of the difference {:.2} points",
        loss.own, loss.count, loss.other, loss.error
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ms: f64, right: bool) -> Vec<Seen> {
        let one = Seen {
            ms,
            right: Some(right),
            route: "cloud".into(),
            queue_ms: 10.0,
        };
        // What comes before one is used to a phase does not count there.
        let mut phase = vec![
            Seen {
                ms: 9000.0,
                ..one.clone()
            };
            USED_TO
        ];
        phase.extend(vec![one; COMPARED]);
        phase
    }

    #[test]
    fn the_best_of_equal_accuracy_counts() {
        let mut all: Vec<Vec<Seen>> = [105.0, 120.0, 100.0, 300.0]
            .map(|ms| seen(ms, true))
            .to_vec();
        all.push(seen(10.0, false));
        let rows = compared(&["a phase"], &all);
        assert_eq!(rows[0].value, Some(1.05));
        assert!(rows[0].met, "{rows:?}");
        // The whole run counts what comes before one is used to it, for all alike.
        assert!(rows[1].met && !rows[2].met && rows[3].met, "{rows:?}");
        // Who is less often right is told.
        assert!(rows[4].met && rows[4].aim.is_empty(), "{rows:?}");
        assert_eq!((rows[5].value, rows[5].met), (Some(0.0), true));
        // Were it as often right, it would count.
        all[4] = seen(10.0, true);
        let rows = compared(&["a phase"], &all);
        assert_eq!(rows[0].value, Some(10.5));
        assert!(!rows[0].met && !rows[4].met);
    }

    #[test]
    fn what_is_not_right_any_more_or_was_not_compared_misses() {
        let mut all = vec![seen(1.0, true); 1 + FIXED.len()];
        all[0][0].right = Some(false);
        let rows = compared(&["a phase"], &all);
        let last = rows.last().unwrap();
        let one_of_all = 100.0 / (USED_TO + COMPARED) as f64;
        assert_eq!((last.value, last.met), (Some(one_of_all), false));
        let told = last.details.last().unwrap();
        assert!(told.ends_with(": a phase (cloud)"), "{told}");
        for it in all.iter_mut().flatten() {
            it.right = None;
        }
        let rows = compared(&["a phase"], &all);
        assert!(!rows.last().unwrap().met && !rows[0].met, "{rows:?}");
    }

    #[test]
    fn a_queue_that_nobody_sees_grow_misses() {
        let full = PHASES
            .iter()
            .position(|(_, change)| matches!(change, Change::Busy))
            .unwrap();
        let of = |queue_ms: f64| {
            let phases = (0..PHASES.len()).map(|phase| {
                let mut phase_seen = seen(1.0, true);
                if phase == full {
                    phase_seen.iter_mut().for_each(|it| it.queue_ms = queue_ms);
                }
                phase_seen
            });
            let own: Vec<Seen> = phases.flatten().collect();
            queue(PHASES.len(), &own).unwrap()
        };
        assert_eq!((of(150.0).value, of(150.0).met), (Some(140.0), true));
        assert!(!of(10.0).met && !of(25.0).met);
        assert!(queue(full, &seen(1.0, true)).is_none());
    }

    #[test]
    fn without_a_link_nobody_is_compared_by_what_is_right() {
        let lost = PHASES
            .iter()
            .position(|(_, change)| matches!(change, Change::Lost))
            .unwrap();
        let all: Vec<Seen> = (0..PHASES.len())
            .flat_map(|phase| seen(1.0, phase != lost))
            .collect();
        assert!(with_link(&all).all(|seen| seen.right == Some(true)));
        let left = (PHASES.len() - 1) * (USED_TO + COMPARED);
        assert_eq!(with_link(&all).count(), left);
    }
}
