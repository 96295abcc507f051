//! Bayesian optimisation beside random search and a dense grid: on problems whose answer is known, and on a policy in the simulator.

mod simulated;

use anyhow::Result;
use msao_adapt::tune::trial::{Comparison, Problem, compare};

use super::progress::Progress;
use super::setting::Setting;
use super::work::share;
use crate::report::Row;

/// Evaluations that the aims are for, and more that are told: how soon it gets there.
const EVALUATIONS: u32 = 30;
const TOLD: [u32; 2] = [20, 40];
/// Seeds.
const SEEDS: u64 = 20;
/// By how much more than the grid's best the mean that is reached may be, in percent.
const NEAR: f64 = 5.0;

/// The part's rows.
///
/// # Errors
/// There is no component of the policy, it cannot be played, or it is interrupted.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    // First, since it ends at once where the component is missing.
    let simulated = simulated::rows(setting)?;
    let mut rows = analytic(setting)?;
    rows.extend(simulated);
    Ok(rows)
}

/// What comes of the problems whose answer is known.
fn analytic(setting: &Setting) -> Result<Vec<Row>> {
    let counts = || [EVALUATIONS].into_iter().chain(TOLD);
    let jobs: Vec<(Problem, u32)> = Problem::ALL
        .into_iter()
        .flat_map(|problem| counts().map(move |count| (problem, count)))
        .collect();
    let mut compared: Vec<Option<Comparison>> = jobs.iter().map(|_| None).collect();
    let name = format!("comparisons over {SEEDS} seeds");
    let mut progress = Progress::new(name, jobs.len(), 0);
    share(
        &jobs,
        setting.workers,
        &setting.interrupt,
        || Ok(()),
        |(), &(problem, count)| Ok(compare(problem, count, SEEDS)),
        |number, comparison| {
            if let Some(slot) = compared.get_mut(number) {
                *slot = Some(comparison);
            }
            progress.step();
            Ok(())
        },
    )?;
    progress.end();
    (setting.interrupt).check("nothing is kept of a comparison that was not finished")?;
    let rows = jobs
        .iter()
        .zip(compared)
        .flat_map(|((problem, count), it)| {
            let name = format!("{problem:?}, {count} evaluations");
            match it {
                Some(comparison) => figures(&name, &comparison, *count == EVALUATIONS),
                None => vec![Row::failed(name, "compared", "it was not")],
            }
        });
    Ok(rows.collect())
}

/// What came of a comparison.
fn figures(name: &str, comparison: &Comparison, judged: bool) -> Vec<Row> {
    let percent = |value: f64| 100.0 * value / comparison.grid.abs();
    let gain = percent(comparison.random_mean() - comparison.tuned_mean());
    let above = percent(comparison.tuned_mean() - comparison.grid);
    let pairs = || comparison.tuned.iter().zip(&comparison.random);
    let better = pairs().filter(|(tuned, random)| tuned < random).count();
    let beaten = format!("{name}: random search less tuning, in % of the grid's best");
    let near = format!("{name}: mean above a dense grid's best");
    let details = vec![format!(
        "better with {better} of {} seeds; tuned {:.4}, random {:.4}, grid {:.4}",
        comparison.tuned.len(),
        comparison.tuned_mean(),
        comparison.random_mean(),
        comparison.grid
    )];
    if judged {
        vec![
            Row::above(beaten, gain, 0.0, " %").with_details(details),
            Row::at_most(near, above, NEAR, " %"),
        ]
    } else {
        vec![
            Row::told(beaten, gain, " %").with_details(details),
            Row::told(near, above, " %"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(tuned: &[f64], random: &[f64]) -> Comparison {
        Comparison {
            grid: -2.0,
            tuned: tuned.to_vec(),
            random: random.to_vec(),
        }
    }

    #[test]
    fn tuning_must_beat_random_search_and_come_near_the_grid() {
        // Means -1.95 and -1.5 where the best is -2: 22.5% better, 2.5% above.
        let rows = figures("it", &reached(&[-1.9, -2.0], &[-1.0, -2.0]), true);
        let value = |row: &Row| row.value.map(|it| (1e6 * it).round() / 1e6);
        assert_eq!((value(&rows[0]), value(&rows[1])), (Some(22.5), Some(2.5)));
        assert!(rows[0].met && rows[1].met);
        assert!(rows[0].details[0].starts_with("better with 1 of 2 seeds"));
    }

    #[test]
    fn being_as_good_as_random_search_is_a_miss() {
        let rows = figures("it", &reached(&[-1.0], &[-1.0]), true);
        assert!(!rows[0].met && !rows[1].met);
        let rows = figures("it", &reached(&[-1.0], &[-1.0]), false);
        assert!(rows[0].met && rows[1].met);
    }
}
