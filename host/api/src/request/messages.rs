//! The conversation: OpenAI's messages and parts into core's, media set aside in reading order.

use msao_core::chat::{Content, Message, Modality, Part};

use super::fields::{Field, Fields};
use super::media::{Detail, Medium, Source, of_base64, of_url};
use super::parameters::set_aside_in_message;
use crate::error::ApiError;
use crate::json::Json;
use crate::limits::Limits;

/// Reads all messages. The media are in the order in which the messages name them.
pub(super) fn read(field: Field, limits: &Limits) -> Result<(Vec<Message>, Vec<Medium>), ApiError> {
    let path = field.path.clone();
    let items = field.array("max_messages", limits.max_messages)?;
    if items.is_empty() {
        return Err(ApiError::empty_array(&path));
    }
    let mut reader = Reader {
        limits,
        parts: 0,
        text_bytes: 0,
        media: Vec::new(),
    };
    let messages: Result<Vec<Message>, ApiError> =
        items.into_iter().map(|item| reader.message(item)).collect();
    Ok((messages?, reader.media))
}

/// Who speaks, in the words of the models' chat templates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    System,
    User,
    Assistant,
}

impl Speaker {
    fn parse(field: Field) -> Result<Speaker, ApiError> {
        let path = field.path.clone();
        match field.string()?.as_ref() {
            // OpenAI's newer name for it, which the templates do not know.
            "system" | "developer" => Ok(Speaker::System),
            "user" => Ok(Speaker::User),
            "assistant" => Ok(Speaker::Assistant),
            given @ ("tool" | "function") => Err(ApiError::unsupported_value(
                &path,
                given,
                "Tools are not supported yet.",
            )),
            other => Err(ApiError::not_one_of(
                &path,
                other,
                &["system", "developer", "user", "assistant"],
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Speaker::System => "system",
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
        }
    }
}

/// What has been counted so far of all messages together.
struct Reader<'l> {
    limits: &'l Limits,
    parts: usize,
    text_bytes: usize,
    media: Vec<Medium>,
}

impl Reader<'_> {
    fn message(&mut self, field: Field) -> Result<Message, ApiError> {
        let mut fields = field.object()?;
        let speaker = Speaker::parse(fields.require("role")?)?;
        let content = fields.take("content");
        let refusal = match speaker {
            Speaker::Assistant => fields.take("refusal"),
            _ => None,
        };
        set_aside_in_message(&mut fields)?;
        // An assistant that refused has said so in place of its content.
        let content = content
            .or(refusal)
            .ok_or_else(|| ApiError::missing(&fields.path_of("content")))?;
        fields.finish()?;
        Ok(Message {
            role: speaker.name().to_owned(),
            content: self.content(content, speaker)?,
        })
    }

    fn content(&mut self, field: Field, speaker: Speaker) -> Result<Content, ApiError> {
        match field.value {
            Json::String(_) => {
                self.count_part(&field.path)?;
                Ok(Content::Text(self.text(field)?))
            }
            Json::Array(_) => {
                let path = field.path.clone();
                let items = field.array("max_parts", self.limits.max_parts)?;
                if items.is_empty() {
                    return Err(ApiError::empty_array(&path));
                }
                let parts: Result<Vec<Part>, ApiError> = items
                    .into_iter()
                    .map(|item| self.part(item, speaker))
                    .collect();
                parts.map(Content::Parts)
            }
            _ => Err(field.wrong("a string or an array of content parts")),
        }
    }

    fn part(&mut self, field: Field, speaker: Speaker) -> Result<Part, ApiError> {
        let path = field.path.clone();
        self.count_part(&path)?;
        let mut fields = field.object()?;
        let kind_field = fields.require("type")?;
        let kind_path = kind_field.path.clone();
        let kind = kind_field.string()?;
        let part = match kind.as_ref() {
            "text" => Part::Text {
                text: self.text(fields.require("text")?)?,
            },
            // What an assistant says when it declines is text that it said.
            "refusal" if speaker == Speaker::Assistant => Part::Text {
                text: self.text(fields.require("refusal")?)?,
            },
            "image_url" | "video_url" | "audio_url" | "input_audio" => {
                if speaker != Speaker::User {
                    return Err(ApiError::unsupported_value(
                        &kind_path,
                        &kind,
                        "Images, clips and sounds go into messages with the role 'user'.",
                    ));
                }
                self.medium(&kind, &path, &mut fields)?
            }
            "file" => {
                let advice = "Send images, clips and sounds as image_url, video_url, input_audio or audio_url.";
                return Err(ApiError::unsupported_value(&kind_path, &kind, advice));
            }
            other => {
                let allowed = ["text", "image_url", "video_url", "input_audio", "audio_url"];
                return Err(ApiError::not_one_of(&kind_path, other, &allowed));
            }
        };
        // Where a prefix that is worth keeping ends: ours are kept wherever they end.
        fields.ignore(&["prompt_cache_breakpoint"]);
        fields.finish()?;
        Ok(part)
    }

    /// `kind` names both the type of the part and the field that holds it.
    fn medium(&mut self, kind: &str, path: &str, fields: &mut Fields) -> Result<Part, ApiError> {
        let limit = self.limits.max_media;
        if self.media.len() >= limit {
            let message = format!(
                "Invalid '{path}': the messages hold too many images, clips and sounds; at most {limit} are allowed (max_media)."
            );
            return Err(ApiError::invalid(
                "array_above_max_length",
                Some(path.to_owned()),
                message,
            ));
        }
        let held = fields.require(kind)?;
        let (source, detail) = match kind {
            "input_audio" => (self.input_audio(held)?, Detail::Auto),
            _ => self.url(held)?,
        };
        let reference = path.to_owned();
        let (modality, part) = match kind {
            "image_url" => (Modality::Image, Part::Image { image: reference }),
            "video_url" => (Modality::Video, Part::Video { video: reference }),
            _ => (Modality::Audio, Part::Audio { audio: reference }),
        };
        self.media.push(Medium {
            modality,
            source,
            field: path.to_owned(),
            detail,
        });
        Ok(part)
    }

    /// `{"url": ..., "detail": ...}`, or the URL alone.
    fn url(&self, field: Field) -> Result<(Source, Detail), ApiError> {
        if matches!(field.value, Json::String(_)) {
            return Ok((of_url(field, self.limits)?, Detail::Auto));
        }
        if !matches!(field.value, Json::Object(_)) {
            return Err(field.wrong("an object with a url, or a string"));
        }
        let mut fields = field.object()?;
        let source = of_url(fields.require("url")?, self.limits)?;
        let detail = fields.take("detail").map(Detail::parse).transpose()?;
        fields.finish()?;
        Ok((source, detail.unwrap_or_default()))
    }

    /// `{"data": base64, "format": "wav"}`.
    fn input_audio(&self, field: Field) -> Result<Source, ApiError> {
        let mut fields = field.object()?;
        let format = fields.require("format")?;
        let path = format.path.clone();
        let format = format.string()?;
        // Not needed, since the content decides; held to what OpenAI's API takes, so that nobody relies on more.
        if !matches!(format.as_ref(), "wav" | "mp3") {
            return Err(ApiError::not_one_of(&path, &format, &["wav", "mp3"]));
        }
        let source = of_base64(fields.require("data")?, self.limits)?;
        fields.finish()?;
        Ok(source)
    }

    fn count_part(&mut self, path: &str) -> Result<(), ApiError> {
        self.parts += 1;
        let limit = self.limits.max_parts;
        if self.parts <= limit {
            return Ok(());
        }
        let message = format!(
            "Invalid '{path}': the messages hold too many parts; at most {limit} are allowed (max_parts)."
        );
        Err(ApiError::invalid(
            "array_above_max_length",
            Some(path.to_owned()),
            message,
        ))
    }

    fn text(&mut self, field: Field) -> Result<String, ApiError> {
        let path = field.path.clone();
        let text = field.string()?;
        self.text_bytes = self.text_bytes.saturating_add(text.len());
        let limit = self.limits.max_text_bytes;
        if self.text_bytes > limit {
            let message = format!(
                "Invalid '{path}': the texts of all messages have {} bytes up to here; at most {limit} are allowed (max_text_bytes).",
                self.text_bytes
            );
            return Err(ApiError::too_large(Some(path), message));
        }
        Ok(text.into_owned())
    }
}
