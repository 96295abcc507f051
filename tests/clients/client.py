"""What the official Python client does with a node: every check says its name, and the first that fails ends the script.

    python client.py BASE_URL MODEL MEDIA_FOLDER
"""

import base64
import pathlib
import sys
import time

import openai
from openai import OpenAI

base_url, model, folder = sys.argv[1:]
media = pathlib.Path(folder)
client = OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)


def base64_of(name):
    return base64.b64encode((media / name).read_bytes()).decode()


def image(question):
    url = "data:image/png;base64," + base64_of("scene.png")
    return [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url, "detail": "auto"}},
        {"type": "text", "text": question},
    ]}]


def check(name):
    print("ok", name, flush=True)


question = image("Describe the scene.")
settings = dict(model=model, messages=question, temperature=0, max_completion_tokens=40)

whole = client.chat.completions.create(**settings)
text = whole.choices[0].message.content
assert text and whole.choices[0].finish_reason in ("stop", "length")
assert whole.id.startswith("chatcmpl-") and whole.system_fingerprint.startswith("fp_")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert whole.model_extra["msao"]["route"] in ("edge", "cloud", "cloud-draft", "speculate")
check("chat")

pieces, usage = [], None
for chunk in client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}):
    if chunk.choices:
        pieces.append(chunk.choices[0].delta.content or "")
    usage = chunk.usage or usage
assert "".join(pieces) == text, (pieces, text)
# What the first of two equal requests has read the second need not read.
cached = [told.prompt_tokens_details.cached_tokens for told in (whole.usage, usage)]
assert cached[0] <= cached[1], cached
usage.prompt_tokens_details.cached_tokens = cached[0]
assert usage == whole.usage, (usage, whole.usage)
check("streaming and usage")

# The helper raises where an answer is cut off by its limit.
ample = {**settings, "max_completion_tokens": 400}
with client.chat.completions.stream(**ample) as stream:
    done = [event.content for event in stream if event.type == "content.done"]
    final = stream.get_final_completion()
assert done == [final.choices[0].message.content] and done[0].startswith(text)
check("the stream helper")

sound = [{"role": "user", "content": [
    {"type": "input_audio", "input_audio": {"data": base64_of("beeps.wav"), "format": "wav"}},
    {"type": "text", "text": "How many beeps are there?"},
]}]
heard = client.chat.completions.create(**{**settings, "messages": sound})
assert heard.choices[0].message.content
assert heard.usage.prompt_tokens_details.audio_tokens > 0
assert whole.usage.prompt_tokens_details.to_dict()["image_tokens"] > 0
check("image and audio parts")

told = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3)
content = told.choices[0].logprobs.content
assert len(content) == told.usage.completion_tokens
assert b"".join(bytes(token.bytes) for token in content).decode() == text
assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)
assert all(token.token == token.top_logprobs[0].token for token in content)
check("log-probabilities")

seeded = [client.chat.completions.create(**{**settings, "temperature": 1.0}, seed=7, n=2) for _ in range(2)]
first, second = ([choice.message.content for choice in answer.choices] for answer in seeded)
assert first == second and len(first) == 2
check("seeds and choices")

for kind, wrong in [
    (openai.NotFoundError, {"model": "another"}),
    (openai.BadRequestError, {"temperature": 3}),
    (openai.BadRequestError, {"response_format": {"type": "json_object"}}),
    (openai.BadRequestError, {"max_completion_tokens": 10**6}),
]:
    try:
        client.chat.completions.create(**{**settings, **wrong})
    except kind as error:
        assert error.code and error.body["message"] and error.request_id, error
    else:
        raise AssertionError(f"{wrong} was taken")
check("errors")

assert [it.id for it in client.models.list()] == [model]
assert client.models.retrieve(model).id == model
check("models")

stream = client.chat.completions.create(**{**settings, "temperature": 1.5, "max_completion_tokens": 400}, stream=True)
next(iter(stream))
stream.close()
# The node serves on, at once.
began = time.monotonic()
assert client.chat.completions.create(**settings).choices[0].message.content == text
check("cancellation")

raw = client.chat.completions.with_raw_response.create(**settings)
assert raw.headers["x-request-id"] and raw.headers["x-msao-route"] == whole.model_extra["msao"]["route"]
check("headers")
