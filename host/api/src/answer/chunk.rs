//! A streamed answer, chunk by chunk.

use serde::{Deserialize, Deserializer, Serialize};

use super::{FinishReason, Head, Logprobs, Report, Role, Usage};

/// A part of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename = "chat.completion.chunk")]
pub struct Chunk {
    /// The answer's name, the same in every chunk.
    pub id: String,
    /// When the request came, in seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// Names what computes it.
    pub system_fingerprint: String,
    /// One; none in the chunk that tells the usage.
    pub choices: Vec<ChunkChoice>,
    /// Absent where the client has not asked for it; else null in every chunk but the last.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub usage: Option<Option<Usage>>,
    /// How the answer came about: in the chunk that ends the last of its choices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msao: Option<Report>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Usage>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What a chunk adds to one choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkChoice {
    /// Which of the request's `n` answers, from 0 on.
    pub index: u32,
    /// What is added.
    pub delta: Delta,
    /// Those of the tokens that are added, where the request asked for them.
    pub logprobs: Option<Logprobs>,
    /// Why the choice ends, in its last chunk.
    pub finish_reason: Option<FinishReason>,
}

/// What is added to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// In a choice's first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Text that follows what was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// What happens to one choice.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// It begins: who reads sees that the request runs.
    Begin,
    /// Text, and the log-probabilities of the tokens that came with it. The text may be empty where these are not: a token
    /// may be part of a character.
    Text(String, Option<Logprobs>),
    /// It ends.
    Finish(FinishReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Open,
    Finished,
}

impl State {
    /// The state after a piece; `None` where the piece may not come.
    fn advance(self, piece: &Piece) -> Option<State> {
        match (self, piece) {
            (State::Finished, _) | (State::Open, Piece::Begin) => None,
            (_, Piece::Finish(_)) => Some(State::Finished),
            (State::Waiting | State::Open, _) => Some(State::Open),
        }
    }
}

/// Makes the chunks of one streamed answer, and sees to their order: in each choice the role once, then text, then why it
/// ends; then, where the client asked for it, the usage.
///
/// ```
/// use msao_api::{ChunkStream, FinishReason, Head, Piece, sse};
///
/// let head = Head { id: "chatcmpl-1".into(), created: 1, model: "target".into(), system_fingerprint: "fp_1".into() };
/// let mut stream = ChunkStream::new(head, 1, false);
/// let mut out = String::new();
/// for piece in [Piece::Begin, Piece::Text("Hi".into(), None), Piece::Finish(FinishReason::Stop)] {
///     if let Some(chunk) = stream.advance(0, piece) {
///         out += &sse::event(&chunk);
///     }
/// }
/// assert!(stream.is_finished());
/// out += sse::DONE;
/// assert!(out.starts_with(r#"data: {"object":"chat.completion.chunk","id":"chatcmpl-1","#));
/// ```
#[derive(Clone, Debug)]
pub struct ChunkStream {
    head: Head,
    include_usage: bool,
    choices: Vec<State>,
}

impl ChunkStream {
    /// The stream of an answer with `n` choices.
    pub fn new(head: Head, n: u32, include_usage: bool) -> Self {
        ChunkStream {
            head,
            include_usage,
            choices: (0..n).map(|_| State::Waiting).collect(),
        }
    }

    /// The chunk that tells of a piece of choice `index`. `None`, and nothing has happened, where it may not come: the
    /// choice has ended or has begun already, or there is no such choice.
    ///
    /// When this makes the stream [finished](Self::is_finished), the caller adds the [`Report`] to the chunk.
    pub fn advance(&mut self, index: u32, piece: Piece) -> Option<Chunk> {
        let state = self.choices.get_mut(usize::try_from(index).ok()?)?;
        let next = state.advance(&piece)?;
        let first = *state == State::Waiting;
        *state = next;
        let (content, logprobs, finish_reason) = match piece {
            Piece::Begin => (Some(String::new()), None, None),
            Piece::Text(text, logprobs) => (Some(text), logprobs, None),
            Piece::Finish(reason) => (None, None, Some(reason)),
        };
        let choice = ChunkChoice {
            index,
            delta: Delta {
                role: first.then_some(Role::Assistant),
                content,
            },
            logprobs,
            finish_reason,
        };
        Some(self.chunk(vec![choice], None))
    }

    /// From here on something else computes the answer, of this [name](Head::system_fingerprint).
    pub fn computed_by(&mut self, system_fingerprint: String) {
        self.head.system_fingerprint = system_fingerprint;
    }

    /// Whether every choice has ended.
    pub fn is_finished(&self) -> bool {
        self.choices.iter().all(|state| *state == State::Finished)
    }

    /// The chunk that tells the usage; `None` where the client has not asked for it.
    pub fn usage(&self, usage: Usage) -> Option<Chunk> {
        self.include_usage
            .then(|| self.chunk(Vec::new(), Some(usage)))
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        Chunk {
            id: self.head.id.clone(),
            created: self.head.created,
            model: self.head.model.clone(),
            system_fingerprint: self.head.system_fingerprint.clone(),
            choices,
            usage: self.include_usage.then_some(usage),
            msao: None,
        }
    }
}
