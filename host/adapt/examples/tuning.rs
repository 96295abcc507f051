//! Tunes problems with a known answer over 20 seeds, and prints what it reaches beside random search and a dense grid.
//!
//!     cargo run --release -p msao-adapt --example tuning
#![allow(clippy::print_stdout)] // What it is for.

use msao_adapt::tune::trial::{Problem, compare};

fn main() {
    println!("problem  trials    tuned   worst   random     grid  above grid");
    for problem in Problem::ALL {
        for trials in [20, 30, 40] {
            let reached = compare(problem, trials, 20);
            println!(
                "{:8} {trials:6} {:8.4} {:7.4} {:8.4} {:8.4} {:10.1}%",
                format!("{problem:?}"),
                reached.tuned_mean(),
                reached
                    .tuned
                    .iter()
                    .copied()
                    .fold(f64::NEG_INFINITY, f64::max),
                reached.random_mean(),
                reached.grid,
                100.0 * reached.above_grid(),
            );
        }
    }
}
