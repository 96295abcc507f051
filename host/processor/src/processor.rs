//! A model directory, loaded: everything that is needed to prepare its prompts and to read its answers.

use std::path::{Path, PathBuf};

use msao_core::chat::Message;
use msao_media::VideoInfo;

use crate::config::{MediaConfig, PixelBounds};
use crate::error::ProcessorError;
use crate::family::{self, Family, model_lookup};
use crate::files::read_json;
use crate::generation::{self, GenerationDefaults};
use crate::mel::MelExtractor;
use crate::patches::ColourTable;
use crate::placeholders::{self, LoadedPlaceholder};
use crate::template::{self, ChatTemplate};
use crate::tokenizer::Tokenizer;
use crate::video::{self, VideoSampling};

/// The context that a model without `max_position_embeddings` is taken to have, in tokens.
const DEFAULT_CONTEXT: usize = 32_768;

/// `n_window` of a sound's encoder where `config.json` has none: half of its chunks, in mel frames.
const DEFAULT_HALF_CHUNK: usize = 100;

/// What a caller may choose beyond what the model's files say.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which frames of a clip are kept.
    pub sampling: VideoSampling,
    /// Bounds for pictures instead of the model's.
    pub image_bounds: Option<PixelBounds>,
    /// Bounds for frames instead of the model's.
    pub frame_bounds: Option<PixelBounds>,
    /// Most tokens of a prompt, where that is less than the model's context.
    pub max_tokens: Option<usize>,
    /// Most bytes that the patches and features of one prompt may take.
    pub max_media_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sampling: VideoSampling::Model,
            image_bounds: None,
            frame_bounds: None,
            max_tokens: None,
            max_media_bytes: 1 << 30,
        }
    }
}

/// The processor of one model. Shared between threads as it is: every method takes `&self`.
#[derive(Debug)]
pub struct Processor {
    pub(crate) family: Family,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) placeholders: Vec<LoadedPlaceholder>,
    pub(crate) media: MediaConfig,
    pub(crate) image_colours: ColourTable,
    pub(crate) frame_colours: ColourTable,
    pub(crate) mel: Option<MelExtractor>,
    /// Mel frames that the encoder of sounds looks at by themselves, a multiple of four; nothing where tokens would reach
    /// over the borders of such chunks.
    pub(crate) sound_chunk: Option<usize>,
    pub(crate) options: Options,
    generation: GenerationDefaults,
    /// A directory without a template can still be used for what needs none.
    template: Option<ChatTemplate>,
    context: usize,
    dir: PathBuf,
}

impl Processor {
    /// Loads a model directory; its `config.json` names the family.
    ///
    /// # Errors
    /// If a file is missing, too large or malformed (the error names it and the key), or the family is not known.
    pub fn load(dir: &Path) -> Result<Self, ProcessorError> {
        let config_path = dir.join("config.json");
        let config = read_json(&config_path)?.ok_or_else(|| ProcessorError::MissingFile {
            path: config_path.clone(),
            wanted: "a model directory has one, which names its family".to_owned(),
        })?;
        let family = family::from_config(&config, &config_path)?;
        let tokenizer_config = read_json(&dir.join("tokenizer_config.json"))?;
        let tokenizer = Tokenizer::load(dir, tokenizer_config.as_ref())?;
        let placeholders = placeholders::load(family, &tokenizer, &config, &config_path)?;
        let template = match template::source::find(dir, tokenizer_config.as_ref()) {
            Ok((source, path)) => Some(ChatTemplate::new(
                &source,
                &path,
                tokenizer.special_tokens().to_vec(),
            )?),
            Err(ProcessorError::MissingFile { .. }) => None,
            Err(error) => return Err(error),
        };
        let media = crate::config::load(dir)?;
        let context = [
            "text_config.max_position_embeddings",
            "max_position_embeddings",
        ]
        .iter()
        .find_map(|key| model_lookup(family, &config, key))
        .and_then(serde_json::Value::as_u64)
        .map_or(DEFAULT_CONTEXT, |context| {
            usize::try_from(context).unwrap_or(usize::MAX)
        });
        let half_chunk = model_lookup(family, &config, "audio_config.n_window")
            .and_then(serde_json::Value::as_u64)
            .map_or(DEFAULT_HALF_CHUNK, |half| {
                usize::try_from(half).unwrap_or(0)
            });
        let sound_chunk = half_chunk.is_multiple_of(2) && half_chunk > 0;
        Ok(Self {
            sound_chunk: sound_chunk.then(|| half_chunk.saturating_mul(2)),
            generation: generation::load(dir, &config, family, &tokenizer)?,
            image_colours: ColourTable::new(&media.image),
            frame_colours: ColourTable::new(&media.video.picture),
            mel: media.audio.as_ref().map(MelExtractor::new),
            options: crate::serving::options(dir)?,
            dir: dir.to_owned(),
            family,
            tokenizer,
            placeholders,
            media,
            template,
            context,
        })
    }

    /// Replaces the options, those of the directory's `msao.json` too: start from [`Processor::options`] to keep them.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The family that the directory's `config.json` names.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The model's vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How the model's files want it to be sampled, and the ids that end its texts.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// How media are preprocessed.
    pub fn media_config(&self) -> &MediaConfig {
        &self.media
    }

    /// Mel frames that the encoder of sounds looks at by themselves, where whole tokens come of them: see
    /// [`Processor::steps`].
    pub fn sound_chunk(&self) -> Option<usize> {
        self.sound_chunk
    }

    /// The positions that the model was made for, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Writes a chat out by the model's chat template; each medium is one placeholder.
    ///
    /// # Errors
    /// If the directory has no template, or the template fails, refuses this chat or exceeds its limits.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ProcessorError> {
        let template = self.template.as_ref().ok_or_else(|| ProcessorError::MissingFile {
            path: self.dir.join("chat_template.jinja"),
            wanted: "chats need a template there, in chat_template.json, or in tokenizer_config.json".to_owned(),
        })?;
        template.render(messages, add_generation_prompt)
    }

    /// The frames of a clip that are to be decoded, by index, rising.
    ///
    /// # Errors
    /// If the clip is too short for what is to be sampled, or its rate is not known where it is needed.
    pub fn frames_to_sample(&self, info: &VideoInfo) -> Result<Vec<usize>, ProcessorError> {
        video::frames_to_sample(
            info.frames,
            info.fps,
            &self.media.video,
            self.options.sampling,
        )
        .map_err(|message| ProcessorError::media(0, msao_core::chat::Modality::Video, message))
    }

    /// The largest prompt in tokens.
    pub(crate) fn token_limit(&self) -> usize {
        let most = self.options.max_tokens.unwrap_or(self.context);
        most.min(self.context)
    }

    /// Where that limit is from, for people.
    pub(crate) fn source_of_token_limit(&self) -> String {
        match self.options.max_tokens {
            Some(limit) if limit < self.context => "the option max_tokens".to_owned(),
            _ => format!(
                "max_position_embeddings in {}",
                self.dir.join("config.json").display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_and_its_streams_go_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Processor>();
        check::<crate::DetokenStream>();
        check::<crate::StopStrings>();
    }
}
