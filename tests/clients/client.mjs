// What the official Node.js client does with a node: every check says its name, and the first that fails ends the script.
//
//   node client.mjs BASE_URL MODEL MEDIA_FOLDER

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';

const [baseURL, model, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, timeout: 60_000 });
const base64 = (name) => readFileSync(join(folder, name)).toString('base64');
const check = (name) => console.log('ok', name);

const messages = [{
  role: 'user',
  content: [
    { type: 'image_url', image_url: { url: `data:image/png;base64,${base64('scene.png')}` } },
    { type: 'text', text: 'Describe the scene.' },
  ],
}];
const settings = { model, messages, temperature: 0, max_completion_tokens: 40 };

const whole = await client.chat.completions.create(settings);
const text = whole.choices[0].message.content;
assert.ok(text);
assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
check('chat');

let pieces = '';
let usage;
const chunks = await client.chat.completions.create({ ...settings, stream: true, stream_options: { include_usage: true } });
for await (const chunk of chunks) {
  pieces += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
assert.equal(pieces, text);
// What the first of two equal requests has read the second need not read.
const cached = [whole.usage, usage].map((told) => told.prompt_tokens_details.cached_tokens);
assert.ok(cached[0] <= cached[1], `${cached}`);
usage.prompt_tokens_details.cached_tokens = cached[0];
assert.deepEqual(usage, whole.usage);
check('streaming and usage');

const runner = client.chat.completions.stream(settings);
assert.equal(await runner.finalContent(), text);
check('the stream helper');

const sound = [{
  role: 'user',
  content: [
    { type: 'input_audio', input_audio: { data: base64('beeps.wav'), format: 'wav' } },
    { type: 'text', text: 'How many beeps are there?' },
  ],
}];
const heard = await client.chat.completions.create({ ...settings, messages: sound });
assert.ok(heard.usage.prompt_tokens_details.audio_tokens > 0);
check('image and audio parts');

const told = await client.chat.completions.create({ ...settings, logprobs: true, top_logprobs: 2 });
assert.equal(told.choices[0].logprobs.content.length, told.usage.completion_tokens);
check('log-probabilities');

await assert.rejects(client.chat.completions.create({ ...settings, model: 'another' }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...settings, temperature: 3 }), OpenAI.BadRequestError);
check('errors');

const leaving = await client.chat.completions.create({ ...settings, temperature: 1.5, max_completion_tokens: 400, stream: true });
for await (const _chunk of leaving) {
  leaving.controller.abort();
  break;
}
assert.equal((await client.chat.completions.create(settings)).choices[0].message.content, text);
check('cancellation');
