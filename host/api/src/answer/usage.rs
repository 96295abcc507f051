//! What a request took, in tokens.

use serde::{Deserialize, Serialize};

/// A prompt's tokens before anything of it is pruned, so that a policy does not change a bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptTokens {
    /// Of text, the template's included.
    pub text: u64,
    /// Of images.
    pub image: u64,
    /// Of clips.
    pub video: u64,
    /// Of sounds.
    pub audio: u64,
    /// Of them all, read before and kept.
    pub cached: u64,
}

/// What a request took, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The prompt's.
    pub prompt_tokens: u64,
    /// All answers' together.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// What the prompt's consist of.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What a prompt's tokens consist of: text, images and sounds sum to `prompt_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Of text.
    pub text_tokens: u64,
    /// Of images and of the frames of clips: OpenAI has no word for clips.
    pub image_tokens: u64,
    /// Of sounds.
    pub audio_tokens: u64,
    /// Of them all, read before and kept.
    pub cached_tokens: u64,
}

impl Usage {
    /// Adds up. `completion`: tokens of all answers together.
    pub fn new(prompt: PromptTokens, completion: u64) -> Self {
        let image_tokens = prompt.image.saturating_add(prompt.video);
        let prompt_tokens = prompt
            .text
            .saturating_add(image_tokens)
            .saturating_add(prompt.audio);
        Usage {
            prompt_tokens,
            completion_tokens: completion,
            total_tokens: prompt_tokens.saturating_add(completion),
            prompt_tokens_details: PromptTokensDetails {
                text_tokens: prompt.text,
                image_tokens,
                audio_tokens: prompt.audio,
                cached_tokens: prompt.cached,
            },
        }
    }
}
