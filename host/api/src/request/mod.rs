//! `POST /v1/chat/completions`: the body's bytes into a request in `msao-core`'s words.

mod fields;
mod media;
mod messages;
mod parameters;
mod sampling;

use msao_core::chat::Message;
use msao_core::offload::flag;

use self::fields::{Field, Fields};
pub use self::media::{Detail, Medium, Source};
pub use self::sampling::{Sampling, drawn_seed};
use crate::error::ApiError;
use crate::json::{self, Json};
use crate::limits::Limits;

/// What a client asks for. All ranges and limits have been checked; what only a model can know has not: whether it exists,
/// whether the tokens fit its context, whether `logit_bias` names its ids, what the media really are.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model's name.
    pub model: String,
    /// The conversation; at least one message. Roles are `system` (to which `developer` has become), `user` and `assistant`.
    /// A medium's reference is the [`field`](Medium::field) of its [`Medium`].
    pub messages: Vec<Message>,
    /// Images, clips and sounds, in the order in which the messages name them.
    pub media: Vec<Medium>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of each answer, at least 1; `None` leaves it to the node.
    pub max_tokens: Option<u32>,
    /// Texts before which an answer ends; none of them empty.
    pub stop: Vec<String>,
    /// How many answers; at least 1.
    pub n: u32,
    /// Tell each token's log-probability, and so many of the most likely tokens in its place; `None` tells nothing.
    pub logprobs: Option<u32>,
    /// The answer comes as events; `None`: as a whole.
    pub stream: Option<Streaming>,
    /// The client's own name for its user.
    pub user: Option<String>,
    /// Requests with one key are likely to begin alike: a hint for who keeps prefixes.
    pub prompt_cache_key: Option<String>,
    /// Only what the target confirmed may be committed: `msao.require` is `exact`.
    pub exact: bool,
    /// Nothing but text may leave the edge: `msao.media` is `edge-only`.
    pub media_at_edge: bool,
    /// The answer must be complete so many ms after the request came: `msao.deadline_ms`.
    pub deadline_ms: Option<u32>,
}

/// How an answer is streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streaming {
    /// A last chunk tells the usage.
    pub include_usage: bool,
}

impl ChatRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 or 413 with the field and what it may be. Where several are wrong one of them is told.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
        let mut fields = Fields::body(json::parse(body, limits)?)?;
        parameters::set_aside(&mut fields)?;
        let name = |field: Field| field.bounded_string("max_name_bytes", limits.max_name_bytes);
        let model = name(fields.require("model")?)?;
        let messages = fields.require("messages")?;
        let sampling = Sampling::read(&mut fields, limits)?;
        let max_tokens = max_tokens(&mut fields)?;
        let stop = fields.take("stop").map(|field| stops(field, limits));
        let stop = stop.transpose()?.unwrap_or_default();
        let n = fields.take("n");
        let n = n.map(|field| field.integer_within(1, limits.max_n));
        let n = n.transpose()?.unwrap_or(1);
        let logprobs = logprobs(&mut fields, limits)?;
        let stream = streaming(&mut fields)?;
        let user = fields.take("user").map(name).transpose()?;
        let prompt_cache_key = fields.take("prompt_cache_key").map(name).transpose()?;
        let (exact, media_at_edge, deadline_ms) = own(&mut fields)?;
        fields.finish()?;
        // Last, since it is the most work.
        let (messages, media) = messages::read(messages, limits)?;
        Ok(ChatRequest {
            model,
            messages,
            media,
            sampling,
            max_tokens,
            stop,
            n,
            logprobs,
            stream,
            user,
            prompt_cache_key,
            exact,
            media_at_edge,
            deadline_ms,
        })
    }

    /// What a policy is told of it: bits of [`flag`].
    pub fn flags(&self) -> u32 {
        let bits = [
            (self.exact, flag::EXACT),
            (self.media_at_edge, flag::MEDIA_AT_EDGE),
            (self.logprobs.is_some(), flag::LOGPROBS),
            (self.stream.is_some(), flag::STREAMED),
        ];
        let set = bits.into_iter().filter(|(is_set, _)| *is_set);
        set.fold(0, |flags, (_, bit)| flags | bit)
    }
}

/// `max_completion_tokens`, or `max_tokens`, its older name.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let new = fields.take("max_completion_tokens");
    let old = fields.take("max_tokens");
    if let (Some(_), Some(old)) = (&new, &old) {
        let message =
            "'max_tokens' and 'max_completion_tokens' mean the same; leave 'max_tokens' out.";
        let code = "invalid_parameter_combination";
        return Err(ApiError::invalid(code, Some(old.path.clone()), message));
    }
    new.or(old)
        .map(|field| field.integer_within(1, u32::MAX))
        .transpose()
}

/// A string, or a list of them.
fn stops(field: Field, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let one = |field: Field| field.bounded_string("max_stop_bytes", limits.max_stop_bytes);
    match &field.value {
        Json::String(_) => Ok(vec![one(field)?]),
        Json::Array(_) => field
            .array("max_stops", limits.max_stops)?
            .into_iter()
            .map(one)
            .collect(),
        _ => Err(field.wrong("a string or an array of strings")),
    }
}

fn logprobs(fields: &mut Fields, limits: &Limits) -> Result<Option<u32>, ApiError> {
    let asked = fields.take("logprobs").map(Field::boolean).transpose()?;
    let asked = asked.unwrap_or(false);
    let Some(field) = fields.take("top_logprobs") else {
        return Ok(asked.then_some(0));
    };
    let path = field.path.clone();
    let top = field.integer_within(0, limits.max_top_logprobs)?;
    if !asked {
        return Err(ApiError::invalid_value(
            &path,
            "it needs 'logprobs' to be true.",
        ));
    }
    Ok(Some(top))
}

fn streaming(fields: &mut Fields) -> Result<Option<Streaming>, ApiError> {
    let asked = fields.take("stream").map(Field::boolean).transpose()?;
    let options = fields.take("stream_options");
    if asked != Some(true) {
        return match options {
            None => Ok(None),
            Some(field) => Err(ApiError::invalid_value(
                &field.path,
                "it is only allowed where 'stream' is true.",
            )),
        };
    }
    let mut streaming = Streaming::default();
    if let Some(field) = options {
        let mut options = field.object()?;
        // Padding against who counts bytes on the wire.
        options.ignore(&["include_obfuscation"]);
        if let Some(field) = options.take("include_usage") {
            streaming.include_usage = field.boolean()?;
        }
        options.finish()?;
    }
    Ok(Some(streaming))
}

/// An hour: nobody waits longer for an answer.
const MAX_DEADLINE_MS: u32 = 3_600_000;

/// The object `msao`: what is asked for beyond OpenAI's API.
fn own(fields: &mut Fields) -> Result<(bool, bool, Option<u32>), ApiError> {
    let Some(field) = fields.take("msao") else {
        return Ok((false, false, None));
    };
    let mut own = field.object()?;
    let exact = own.take("require").map(|field| only(field, "exact"));
    let exact = exact.transpose()?.is_some();
    let edge = own.take("media").map(|field| only(field, "edge-only"));
    let edge = edge.transpose()?.is_some();
    let deadline = own.take("deadline_ms");
    let deadline = deadline.map(|field| field.integer_within(1, MAX_DEADLINE_MS));
    let deadline = deadline.transpose()?;
    own.finish()?;
    Ok((exact, edge, deadline))
}

/// A string that has one value.
fn only(field: Field, allowed: &str) -> Result<(), ApiError> {
    let path = field.path.clone();
    let given = field.string()?;
    if given == allowed {
        Ok(())
    } else {
        Err(ApiError::not_one_of(&path, &given, &[allowed]))
    }
}
