//! {{name}}: uses the target where it is near enough, and the draft model elsewhere.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

// In the order of policy.toml.
parameters! {
    struct Settings {
        rtt_limit: f64,
    }
}

struct ThisPolicy;

impl Policy for ThisPolicy {
    fn plan(input: &PlanInput) -> Decision {
        let settings = Settings::read(input.params);
        let near = input.peers().find(|(_, node)| {
            node.up
                && node.is(capability::TARGET)
                && node.rtt_ms >= 0.0
                && node.rtt_ms <= settings.rtt_limit
        });
        Decision::Run(match near {
            Some((row, node)) if !input.bound_here() => Plan {
                reason: 1,
                terms: vec![node.rtt_ms],
                ..Plan::plain(Route::Cloud, row)
            },
            _ => Plan {
                reason: 0,
                terms: vec![-1.0],
                ..Plan::plain(Route::Edge, 0)
            },
        })
    }

    // Called on routes `edge` and `speculate` whenever something happened.
    fn step(_input: &StepInput, _memo: &[u8]) -> Action {
        Action::Finish
    }

    // Called once at the end; what it returns changes the calibration.
    fn observe(_outcome: &Outcome, _params: &[f64], _calibration: &Calibration) -> Vec<Update> {
        vec![]
    }
}

export_policy!(ThisPolicy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_target_is_used_and_a_far_one_is_not() {
        let at = |rtt_ms| {
            Scene::new()
                .params(&[60.0])
                .edge(|_| {})
                .peer(|peer| peer.rtt_ms = rtt_ms)
                .plan::<ThisPolicy>()
                .route
        };
        assert_eq!(at(10.0), Route::Cloud);
        assert_eq!(at(100.0), Route::Edge);
    }
}
