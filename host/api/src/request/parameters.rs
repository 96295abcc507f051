//! Parameters of OpenAI's API that are not honoured: which may be ignored, and which are refused by name.
//!
//! A parameter may be ignored where an answer that knows nothing of it is still of the form that the client waits for. It is
//! refused where the client would wait for something else: a call of a tool, JSON, speech.

use super::fields::{Field, Fields};
use crate::error::ApiError;
use crate::json::Json;

/// Hints, labels, and what is between a client and its provider.
const IGNORED: [&str; 10] = [
    "metadata",
    // Means something beside tools only.
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
];

/// A parameter that is refused, unless its value asks for what happens anyway.
struct Unsupported {
    name: &'static str,
    idle: fn(&Json) -> bool,
    advice: &'static str,
}

const NO_TOOLS: &str =
    "Tools are not supported yet; leave it out and describe in a message what you need.";

const UNSUPPORTED: [Unsupported; 9] = [
    Unsupported {
        name: "tools",
        idle: is_empty,
        advice: NO_TOOLS,
    },
    Unsupported {
        name: "tool_choice",
        idle: is_none,
        advice: NO_TOOLS,
    },
    Unsupported {
        name: "functions",
        idle: is_empty,
        advice: NO_TOOLS,
    },
    Unsupported {
        name: "function_call",
        idle: is_none,
        advice: NO_TOOLS,
    },
    Unsupported {
        name: "response_format",
        idle: is_text_format,
        advice: "Only {\"type\": \"text\"} is supported yet; leave it out and ask for the form in a message.",
    },
    Unsupported {
        name: "modalities",
        idle: is_text_only,
        advice: "Answers are text; only [\"text\"] is supported.",
    },
    Unsupported {
        name: "audio",
        idle: never,
        advice: "Answers are text; leave it out. Sounds to be heard go into messages, as input_audio.",
    },
    Unsupported {
        name: "moderation",
        idle: never,
        advice: "Nothing is moderated here; leave it out.",
    },
    Unsupported {
        name: "web_search_options",
        idle: never,
        advice: "There is no search; leave it out.",
    },
];

fn never(_: &Json) -> bool {
    false
}

fn is_empty(value: &Json) -> bool {
    matches!(value, Json::Array(items) if items.is_empty())
}

fn is_word(value: &Json, word: &str) -> bool {
    matches!(value, Json::String(text) if text == word)
}

fn is_none(value: &Json) -> bool {
    is_word(value, "none")
}

fn is_text_format(value: &Json) -> bool {
    match value {
        Json::Object(entries) => {
            entries.len() == 1 && entries.get("type").is_some_and(|it| is_word(it, "text"))
        }
        _ => false,
    }
}

fn is_text_only(value: &Json) -> bool {
    matches!(value, Json::Array(items) if matches!(items.as_slice(), [one] if is_word(one, "text")))
}

/// Takes out what is not honoured.
pub(super) fn set_aside(fields: &mut Fields) -> Result<(), ApiError> {
    fields.ignore(&IGNORED);
    for parameter in &UNSUPPORTED {
        if let Some(field) = fields.take(parameter.name) {
            refuse_unless(&field, parameter.idle, parameter.advice)?;
        }
    }
    Ok(())
}

/// Takes out what an assistant's message holds in the answers of OpenAI's API, and which comes back with the next request.
pub(super) fn set_aside_in_message(fields: &mut Fields) -> Result<(), ApiError> {
    fields.ignore(&["annotations", "name"]);
    for (name, idle) in [
        ("tool_calls", is_empty as fn(&Json) -> bool),
        ("function_call", never),
        ("audio", never),
    ] {
        if let Some(field) = fields.take(name) {
            refuse_unless(
                &field,
                idle,
                "Put what the assistant said into its content, as text.",
            )?;
        }
    }
    Ok(())
}

fn refuse_unless(field: &Field, idle: fn(&Json) -> bool, advice: &str) -> Result<(), ApiError> {
    if idle(&field.value) {
        Ok(())
    } else {
        Err(ApiError::unsupported_parameter(&field.path, advice))
    }
}
