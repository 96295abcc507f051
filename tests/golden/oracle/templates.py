"""Chat templates: the families' prompt shapes in our own wording, plain enough for minijinja.

Hugging Face renders with trim_blocks and lstrip_blocks on. These templates never rely on either: every newline of the
prompt is written as an expression or inside a literal, and every block that ends a line strips it with `-`.
"""

_HEAD = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- if messages and messages[0]['role'] != 'system' -%}
  {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
"""
_TAIL = """\
      {%- elif 'text' in part -%}
        {{- part['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

VL = _HEAD + """\
      {%- if part['type'] == 'image' or part['type'] == 'image_url' or 'image' in part -%}
        {%- set seen.images = seen.images + 1 -%}
        {%- if add_vision_id is defined and add_vision_id -%}{{- 'Picture ' ~ seen.images ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif part['type'] == 'video' or 'video' in part -%}
        {%- set seen.videos = seen.videos + 1 -%}
        {%- if add_vision_id is defined and add_vision_id -%}{{- 'Video ' ~ seen.videos ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
""" + _TAIL

OMNI = _HEAD + """\
      {%- if part['type'] == 'image' or part['type'] == 'image_url' or 'image' in part -%}
        {{- '<|vision_bos|><|IMAGE|><|vision_eos|>' -}}
      {%- elif part['type'] == 'audio' or 'audio' in part or 'audio_url' in part -%}
        {{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}
      {%- elif part['type'] == 'video' or 'video' in part -%}
        {{- '<|vision_bos|><|VIDEO|><|vision_eos|>' -}}
""" + _TAIL


def for_family(family):
    return OMNI if family == "qwen2_5_omni" else VL
