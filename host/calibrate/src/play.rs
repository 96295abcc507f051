//! Plays all requests once, at one point.

use std::sync::atomic::AtomicBool;

use msao_core::offload::{Calibration, Status, flag};
use msao_simulate::traffic::Traffic;
use msao_simulate::{Components, Options, Progress, Results, World, run};

use crate::judge::Measured;
use crate::scene::Scene;
use crate::search::Played;

/// Whoever plays, again and again: one for each thread.
pub struct Player {
    world: World,
    traffic: Traffic,
    components: Components,
    calibration: Calibration,
    seed: u64,
}

impl Player {
    /// Of a scene. `seed`: of what links draw; the requests have seeds of their own.
    pub fn new(scene: Scene, seed: u64) -> Player {
        Player {
            world: scene.world,
            traffic: scene.traffic,
            components: scene.components,
            calibration: scene.calibration,
            seed,
        }
    }

    /// Has all requests asked with these parameters, in the manifest's order, and tells `watch` now and then which share has
    /// ended. Ends early once `stop` is set. The same parameters come to the same.
    ///
    /// # Errors
    /// A parameter is out of its range, or the world cannot be played.
    pub fn play(
        &mut self,
        params: Vec<f64>,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(f64),
    ) -> anyhow::Result<Played> {
        self.components.set_params(params)?;
        let mut progress = |progress: Progress| {
            let all = f64::from(progress.questions.max(1));
            watch(f64::from(progress.ended) / all);
        };
        let options = Options {
            seed: self.seed,
            keep: true,
            calibration: self.calibration.clone(),
            progress: Some(&mut progress),
            stop: Some(stop),
        };
        let results = run(&self.world, &self.traffic, &mut self.components, options)?;
        Ok(match results.stopped {
            true => Played::Stopped,
            false => Played::Over(measured(&results, &self.traffic)),
        })
    }
}

/// What a simulation came to; none where nothing was answered.
fn measured(results: &Results, traffic: &Traffic) -> Option<Measured> {
    let mut measured = Measured {
        wrong: results.summary.wrong,
        routes: results.summary.routes,
        failures: results.failures,
        ..Measured::default()
    };
    let mut answered = 0_u32;
    for ended in &results.ended {
        let outcome = &ended.outcome;
        measured.requests += 1;
        measured.cost += outcome.cost;
        measured.lost += ended.lost;
        if outcome.status <= Status::Degraded as u8 {
            answered += 1;
            measured.latency_ms += outcome.total_ms.max(0.0);
        } else {
            measured.unanswered += 1;
        }
        // What is given while the target is out of reach, or of media that may not leave, stands outside the budget.
        let question = traffic.questions.get(ended.question as usize);
        let stays =
            question.is_some_and(|it| it.flags & flag::MEDIA_AT_EDGE != 0 && !it.media.is_empty());
        let counts = outcome.status != Status::Degraded as u8 && !stays;
        if counts && outcome.unverified > 0 {
            measured.exposed += 1;
            measured.disagreed += u32::from(ended.wrong > 0);
        }
    }
    if answered == 0 {
        return None;
    }
    measured.latency_ms /= f64::from(answered);
    measured.cost /= f64::from(measured.requests);
    measured.lost /= f64::from(measured.requests);
    Some(measured)
}

#[cfg(test)]
mod tests {
    use msao_core::offload::Outcome;
    use msao_simulate::Ended;
    use msao_simulate::traffic::{Medium, Question};

    use super::*;

    fn ended(question: u32, status: Status, unverified: u32, wrong: u32) -> Ended {
        Ended {
            question,
            edge: 0,
            arrived_ms: 0.0,
            ended_ms: 0.0,
            deadline_ms: 0.0,
            wrong,
            lost: 0.0,
            outcome: Outcome {
                status: status as u8,
                total_ms: 100.0 * f64::from(question + 1),
                cost: 0.5,
                unverified,
                ..Outcome::default()
            },
        }
    }

    #[test]
    fn what_counts_against_the_budget_is_what_the_target_might_have_been_asked() {
        let medium = Medium {
            modality: 1,
            tokens: 10,
            frames: 1,
            width_px: 28,
            height_px: 28,
            duration_ms: 0.0,
            bytes: 1e3,
            cached: false,
            necessity: 1.0,
            mas: 0.0,
            unusual: 0.0,
        };
        let stays = Question {
            flags: flag::MEDIA_AT_EDGE,
            media: vec![medium],
            ..Question::plain(0, 10, 5)
        };
        let plain = || Question::plain(0, 10, 5);
        let traffic = Traffic {
            questions: vec![plain(), plain(), plain(), stays, plain()],
            ..Traffic::default()
        };
        let results = Results {
            ended: vec![
                Ended {
                    lost: 0.5,
                    ..ended(0, Status::Answered, 5, 2)
                },
                ended(1, Status::Answered, 5, 0),
                ended(2, Status::Degraded, 5, 5),
                ended(3, Status::Answered, 5, 5),
                ended(4, Status::Refused, 0, 0),
            ],
            ..Results::default()
        };
        let told = measured(&results, &traffic).unwrap();
        assert_eq!((told.requests, told.unanswered), (5, 1));
        assert_eq!((told.exposed, told.disagreed), (2, 1));
        assert_eq!((told.latency_ms, told.cost, told.lost), (250.0, 0.5, 0.1));
        let none = Results {
            ended: vec![ended(4, Status::Refused, 0, 0)],
            ..Results::default()
        };
        assert_eq!(measured(&none, &traffic), None);
    }
}
