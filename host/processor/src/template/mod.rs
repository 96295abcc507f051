//! Rendering a model's chat template, which is an untrusted Jinja program.
//!
//! The environment is Hugging Face's (`utils/chat_template_utils.py`, transformers 5.17): blocks trimmed, loop
//! controls, Python's string methods, `raise_exception`, `tojson` as `json.dumps` writes it, `{% generation %}`
//! transparent. `strftime_now` is refused: a prompt must not depend on the clock.
//!
//! A template may execute [`FUEL`] instructions and write [`MAX_OUTPUT_BYTES`]. A template that doubles a string in a
//! variable can still take memory faster than its fuel ends; models are installed by the operator, not by clients.

use std::io::Write;
use std::path::{Path, PathBuf};

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use msao_core::chat::{Content, Message, Part};

use crate::error::ProcessorError;

mod python;
pub(crate) mod source;

use self::python::{format_as_python, to_json};

/// Instructions that one rendering may execute.
pub const FUEL: u64 = 5_000_000;
/// Bytes that one rendering may write.
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;

const NAME: &str = "chat";

/// A parsed chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    path: PathBuf,
    globals: Vec<(String, String)>,
    /// The template has a case for `content` being a string.
    takes_text: bool,
    /// The template has a case for `content` being a list of typed parts.
    takes_parts: bool,
}

impl ChatTemplate {
    /// Parses `source`, found in the file `path`. `special_tokens` (`eos_token` and so on) become variables.
    pub(crate) fn new(
        source: &str,
        path: &Path,
        special_tokens: Vec<(String, String)>,
    ) -> Result<Self, ProcessorError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_keep_trailing_newline(false);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(format_as_python);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("it refuses this chat: {message}"),
                ))
            },
        );
        environment.add_function("strftime_now", |_: String| -> Result<String, Error> {
            Err(Error::new(
                ErrorKind::InvalidOperation,
                "it asks for the current date (strftime_now), which is not given: a prompt must not depend on the clock",
            ))
        });
        let fail = |error: Error| template_error(path, &error);
        environment
            .add_template_owned(NAME, transparent_generation(source))
            .map_err(fail)?;
        let takes_parts = ["type", "image", "text"].iter().any(|word| {
            [
                format!("'{word}'"),
                format!("\"{word}\""),
                format!(".{word}"),
            ]
            .iter()
            .any(|form| source.contains(form))
        });
        Ok(Self {
            environment,
            path: path.to_owned(),
            globals: special_tokens,
            takes_text: source.contains("is string") || !takes_parts,
            takes_parts,
        })
    }

    /// The prompt as text, media still placeholders.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ProcessorError> {
        let fail = |error: Error| template_error(&self.path, &error);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| self.message(message))
            .collect();
        let mut context: Vec<(String, Value)> = self
            .globals
            .iter()
            .map(|(name, token)| (name.clone(), Value::from(token.as_str())))
            .collect();
        context.push(("messages".to_owned(), Value::from(messages)));
        context.push(("tools".to_owned(), Value::from(())));
        context.push(("documents".to_owned(), Value::from(())));
        context.push((
            "add_generation_prompt".to_owned(),
            Value::from(add_generation_prompt),
        ));
        let context = Value::from_iter(context);
        let mut out = Bounded(Vec::new());
        let template = self.environment.get_template(NAME).map_err(fail)?;
        template
            .render_captured_to(context, &mut out)
            .map_err(fail)?;
        String::from_utf8(out.0).map_err(|error| ProcessorError::Template {
            path: self.path.clone(),
            message: error.to_string(),
        })
    }

    /// A message as the template sees it: the keys of Hugging Face's messages, in their usual order.
    ///
    /// A bare string becomes one text part, or text parts become one string, where the template knows only that form.
    fn message(&self, message: &Message) -> Value {
        let content = match &message.content {
            Content::Text(text) if self.takes_text => Value::from(text.as_str()),
            Content::Text(text) => {
                Value::from(vec![part_value(&Part::Text { text: text.clone() })])
            }
            Content::Parts(parts) => {
                let texts: Option<Vec<&str>> = parts
                    .iter()
                    .map(|part| match part {
                        Part::Text { text } => Some(text.as_str()),
                        _ => None,
                    })
                    .collect();
                match texts {
                    Some(texts) if !self.takes_parts => Value::from(texts.concat()),
                    _ => Value::from(parts.iter().map(part_value).collect::<Vec<_>>()),
                }
            }
        };
        Value::from_iter([
            ("role", Value::from(message.role.as_str())),
            ("content", content),
        ])
    }
}

fn part_value(part: &Part) -> Value {
    let pair = |kind: &str, value: &str| {
        Value::from_iter([("type", Value::from(kind)), (kind, Value::from(value))])
    };
    match part {
        Part::Text { text } => pair("text", text),
        Part::Image { image } => pair("image", image),
        Part::Video { video } => pair("video", video),
        Part::Audio { audio } => pair("audio", audio),
    }
}

fn template_error(path: &Path, error: &Error) -> ProcessorError {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("executed more than {FUEL} instructions"),
        ErrorKind::WriteFailure => format!("wrote more than {MAX_OUTPUT_BYTES} bytes"),
        kind if detail == kind.to_string() => detail,
        kind => format!("{kind}: {detail}"),
    };
    let line = error
        .line()
        .map_or_else(String::new, |line| format!(" (line {line})"));
    ProcessorError::Template {
        path: path.to_owned(),
        message: message + &line,
    }
}

/// Collects at most [`MAX_OUTPUT_BYTES`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` marks what an assistant said and prints its body; `{% if true %}` does the latter.
fn transparent_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = tag
            .trim_start_matches("{%")
            .trim_end_matches("%}")
            .trim_matches(['-', '+'])
            .trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        let tokens = vec![("eos_token".to_owned(), "<|im_end|>".to_owned())];
        ChatTemplate::new(source, Path::new("m/chat_template.jinja"), tokens)
            .and_then(|template| template.render(messages, true))
            .map_err(|error| error.to_string())
    }

    fn user(text: &str) -> Message {
        Message {
            role: "user".to_owned(),
            content: Content::Text(text.to_owned()),
        }
    }

    #[test]
    fn blocks_are_trimmed_and_python_is_spoken() {
        let source = "  {% for m in messages %}\n{{ m.content.strip().upper() }}|{{ m['role'].startswith('us') }}\n  {% endfor %}\n\
                      {{ none }}{{ tools }}{{ eos_token }}{{ bos_token }}\n";
        assert_eq!(
            render(source, &[user(" a ")]).unwrap(),
            "A|True\nNoneNone<|im_end|>"
        );
    }

    fn picture_and_clip() -> Message {
        let parts = vec![
            Part::Image { image: "a".into() },
            Part::Text {
                text: "hi\n".into(),
            },
            Part::Video { video: "b".into() },
        ];
        Message {
            role: "user".to_owned(),
            content: Content::Parts(parts),
        }
    }

    /// The template of the published Qwen2-VL and Qwen2.5-VL checkpoints; the expected text is Jinja's.
    #[test]
    fn the_published_template_gives_the_same_prompt() {
        let source = "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let answer = Message {
            role: "assistant".to_owned(),
            content: Content::Text("ok ".to_owned()),
        };
        let wanted = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>\
                      <|vision_end|>hi\n<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\nok <|im_end|>\n\
                      <|im_start|>assistant\n";
        assert_eq!(
            render(source, &[picture_and_clip(), answer]).unwrap(),
            wanted
        );
    }

    /// What templates use of Jinja and Python; the expected text is what Hugging Face's environment renders.
    #[test]
    fn jinja_is_rendered_as_hugging_face_does() {
        let source = r#"{# c #}
{%- macro show(x, sep=', ') -%}
  {%- for i in x %}{{ i }}{{ sep if not loop.last }}{% endfor -%}
{%- endmacro %}
{% set ns = namespace(found=false, text='') %}
{%- for m in messages[::-1] %}
    {%- if m.role == 'user' and not ns.found %}
        {%- set ns.found = true %}
        {%- set ns.text = m.content if m.content is string else m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') %}
    {%- endif %}
{%- endfor %}
{{ ns.text | trim }}|{{ show([1, 'b', none, true, 2.0]) }}
{{ messages | length }} {{ messages[0]['role'] | upper }} {{ 'a,b'.split(',') }} {{ {'a': 1, 'b': [true, none]} }}
{% if tools is defined and tools %}T{% else %}no tools{% endif %} {{ messages[-1]['content'][:2] }} {{ 'x' in 'xyz' }} {{ messages[0].get('nope', 'dflt') }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 'ab' ~ 1 }} {{ 'abc' | replace('b', 'Z') }} {{ loop is defined }} {{ 'a b'.title() }} {{ ' x '.lstrip() }}|
{%- for k, v in {'q': 1}.items() %}{{ k }}={{ v }}{% endfor %}
{% filter upper %}x{% endfilter %}
   {% if true %}   
   kept
   {% endif %}
"#;
        let answer = Message {
            role: "assistant".to_owned(),
            content: Content::Text("ok ".to_owned()),
        };
        let wanted = "hi|1, b, None, True, 2.0\n2 USER ['a', 'b'] {'a': 1, 'b': [True, None]}\nno tools ok True dflt 3 3.5 8 ab1 \
                      aZc False A B x |q=1X   \n   kept\n";
        assert_eq!(
            render(source, &[picture_and_clip(), answer]).unwrap(),
            wanted
        );
        assert_eq!(
            render("{{ ['it\\'s', 'a\\n'] }}", &[]).unwrap(),
            r#"["it's", 'a\n']"#
        );
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source =
            r#"{{ {"b": [1, "ü<"], "a": none} | tojson }}{{ {"a": 1} | tojson(indent=2) }}"#;
        assert_eq!(
            render(source, &[]).unwrap(),
            "{\"b\": [1, \"ü<\"], \"a\": null}{\n  \"a\": 1\n}"
        );
        let source = "{{ messages | tojson }}";
        assert_eq!(
            render(source, &[user("x")]).unwrap(),
            r#"[{"role": "user", "content": "x"}]"#
        );
    }

    #[test]
    fn generation_blocks_and_loop_controls_work() {
        let source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{%- generation -%} {{ i }} {%- endgeneration %}{% endfor %}";
        assert_eq!(render(source, &[]).unwrap(), "01");
    }

    #[test]
    fn content_takes_the_form_that_the_template_knows() {
        let parts = Message {
            role: "user".to_owned(),
            content: Content::Parts(vec![
                Part::Text { text: "a".into() },
                Part::Text { text: "b".into() },
            ]),
        };
        assert_eq!(
            render("{{ messages[0].content }}", std::slice::from_ref(&parts)).unwrap(),
            "ab"
        );
        let typed = "{% for p in messages[0].content %}[{{ p.type }} {{ p['text'] }}]{% endfor %}";
        assert_eq!(render(typed, &[user("x")]).unwrap(), "[text x]");
        assert_eq!(render(typed, &[parts]).unwrap(), "[text a][text b]");
    }

    #[test]
    fn refusals_and_limits_name_the_file() {
        let cases = [
            (
                "{{ raise_exception('roles must alternate') }}",
                "refuses this chat: roles must alternate (line 1)",
            ),
            ("{{ strftime_now('%Y') }}", "must not depend on the clock"),
            (
                "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                "more than 5000000 instructions",
            ),
            ("{{ 'x' * 20000000 }}", "wrote more than 16777216 bytes"),
            ("{% if %}", "syntax error"),
            ("{{ messages.nope.deeper }}", "undefined"),
        ];
        for (source, wanted) in cases {
            let error = render(source, &[]).unwrap_err();
            assert!(
                error.starts_with("m/chat_template.jinja: chat template:")
                    && error.contains(wanted),
                "{error}"
            );
        }
    }
}
