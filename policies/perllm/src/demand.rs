//! What a request demands, and the class that it is learned in.

use msao_plugin::PlanInput;

use crate::{Settings, within};

/// Classes of demands: four questions with yes or no.
pub(crate) const CLASSES: u32 = 16;

/// What a request demands.
pub(crate) struct Demand {
    pub(crate) prompt_tokens: f64,
    /// Tokens that the answer may have at most: how many it will have is not known.
    pub(crate) answer_tokens: f64,
    /// Bytes of media, whoever has them already.
    pub(crate) media_bytes: f64,
    /// Time for the whole answer: the deadline, or what the operator holds for good.
    pub(crate) goal_ms: f64,
    /// Below [`CLASSES`].
    pub(crate) class: u32,
}

impl Demand {
    pub(crate) fn of(input: &PlanInput, settings: &Settings) -> Demand {
        let request = input.request;
        let goal_ms = match request.deadline_ms {
            deadline_ms if deadline_ms > 0.0 => deadline_ms,
            _ => settings.goal_ms,
        };
        // A goal of no time at all, or one that is no number, would make every share of it meaningless.
        let goal_ms = within(goal_ms, 1.0, 1e12);
        let bytes = input.media().map(|part| part.bytes);
        let media_bytes = bytes
            .filter(|bytes| *bytes > 0.0 && bytes.is_finite())
            .fold(0.0, |sum, bytes| sum + bytes);
        let class = [
            request.prompt_tokens >= settings.long_prompt,
            request.max_tokens >= settings.long_answer,
            media_bytes >= settings.large_upload,
            goal_ms <= settings.short_deadline,
        ];
        Demand {
            prompt_tokens: f64::from(request.prompt_tokens),
            answer_tokens: f64::from(request.max_tokens),
            media_bytes,
            goal_ms,
            class: (0u32..)
                .zip(class)
                .map(|(bit, yes)| u32::from(yes) << bit)
                .sum(),
        }
    }

    /// Tokens that a node's cache has to hold.
    pub(crate) fn tokens(&self) -> f64 {
        self.prompt_tokens + self.answer_tokens
    }
}

/// By how much `used` oversteps `allowed`: 0 where it does not, 1 at twice as much and more.
pub(crate) fn overstep(used: f64, allowed: f64) -> f64 {
    if used <= allowed {
        return 0.0;
    }
    let over = used / allowed - 1.0;
    // Nothing is allowed, or one of them is not a number.
    if over.is_nan() || over < 0.0 {
        return 1.0;
    }
    if over < 1.0 { over } else { 1.0 }
}
