"""Prompts that lose media tokens, and what the probe sees of one, by transformers and plain PyTorch.

Nothing here knows the engine: what is dropped and when, and every value of the probe's report, is computed from its
definition (README.md) on transformers' own modules.
"""

import dataclasses
from itertools import groupby

import torch

from . import cases, checkpoints, tokenizer
from .paths import PRUNED, write_json, write_tensors

# model -> case: every way of sharing key heads, windows in the probe's layers and behind them, all kinds of media, and
# one checkpoint whose probe has two layers.
CASES_OF = {
    "qwen2-vl-gqa": "video_image",
    "qwen2-vl-tied-odd": "two_same_size",
    "qwen2-vl-sliding": "image",
    "qwen2-vl-deep": "image_video",
    "qwen25-vl-windows": "video_image",
    "qwen25-vl-flat-tied": "image_video",
    "qwen25-vl-sliding": "image",
    "omni-thinker": "image_audio_video",
    "omni-whole": "image_audio",
    "omni-chunks-tied": "audio_image",
}
FEATURE_WIDTH = 16
# Tokens read behind the prompt.
MORE = 3
# Of each row of logits every eighth is kept.
COLUMN_STEP = 8
# What rounding may move: a fifth of the tests' tolerances; of one row's attention, two fifths.
MAX_NOISE = 4e-5
MAX_RELEVANCE_NOISE = 4e-7
# What a mistake must move at least: twenty times the tolerance.
MIN_MOVED = 4e-3
MIN_RELEVANCE_MOVED = 2e-5


def language(spec, model):
    """The text model: embeddings, layers, norm."""
    return model.model if spec.family == "qwen2_5_omni" else model.model.language_model


def probe_layers(lm):
    return min(max(1, len(lm.layers) // 8), len(lm.layers) - 1)


def embedded(spec, model, inputs):
    """The prompt as the text model gets it: `[L, hidden]`, text embedded and media encoded."""
    caught = {}
    hook = language(spec, model).register_forward_pre_hook(
        lambda module, args, kwargs: caught.update(kwargs), with_kwargs=True)
    cases.reset(model)
    model(**inputs)
    hook.remove()
    return caught["inputs_embeds"][0]


def items_of(spec, ids):
    """Where the media lie: runs of one placeholder. Markers stand between any two."""
    names = tokenizer.special_ids(spec.family)
    placeholders = [names[n] for n in ("<|image_pad|>", "<|video_pad|>", "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>")
                    if n in names]
    items, start = [], 0
    for token, run in groupby(ids.tolist()):
        end = start + len(list(run))
        if token in placeholders:
            items.append((start, end))
        start = end
    return items


def through(lm, x, positions, layers):
    """Hidden states `[n, hidden]` of tokens at `positions` `[3, n]` after some layers, each of which sees all of them."""
    n = len(x)
    at = torch.arange(n)
    x = x[None]
    turned = lm.rotary_emb(x, positions[:, None])
    for number in layers:
        seen = at[None, :] <= at[:, None]
        if lm.config.layer_types[number] == "sliding_attention":
            seen &= at[None, :] > at[:, None] - lm.config.sliding_window
        mask = torch.zeros(n, n, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[None, None]
        x = lm.layers[number](x, attention_mask=mask, position_embeddings=turned)
    return x[0]


def following(positions, count):
    """`[3, count]` positions behind the prompt: `generate` counts on from its last token in each row."""
    return positions[:, -1:] + 1 + torch.arange(count)


def by_hand(model, lm, x, positions, kept, tokens, first):
    """Logits after the prompt and after each of `tokens`, where `first` layers see all and the others what is kept.

    Nothing is cached: what the tokens behind the prompt see in each layer is computed anew.
    """
    before = len(x)
    x = torch.cat([x, lm.embed_tokens(tokens)])
    positions = torch.cat([positions, following(positions, len(tokens))], dim=1)
    hidden = through(lm, x, positions, range(first))
    rows = kept + list(range(before, len(x)))
    hidden = through(lm, hidden[rows], positions[:, rows], range(first, len(lm.layers)))
    return model.lm_head(lm.norm(hidden[-len(tokens) - 1:]))


def by_model(model, lm, x, positions, kept, tokens):
    """The same where no layer sees what is dropped: transformers' own text model with its own cache, token by token."""
    out = lm(inputs_embeds=x[None, kept], position_ids=positions[:, None, kept], use_cache=True)
    rows = [model.lm_head(out.last_hidden_state[:, -1])]
    for embedding, position in zip(lm.embed_tokens(tokens), following(positions, len(tokens)).T):
        out = lm(inputs_embeds=embedding[None, None], position_ids=position[:, None, None],
                 past_key_values=out.past_key_values, use_cache=True)
        rows.append(model.lm_head(out.last_hidden_state[:, -1]))
    return torch.cat(rows)


def weights_of(lm, x, positions, layer):
    """Attention `[heads, L, L]` of one layer, as transformers hands it out."""
    out = lm(inputs_embeds=x[None], position_ids=positions[:, None], use_cache=False, output_attentions=True)
    return out.attentions[layer][0]


def relevance(weights, rows, item, sink=1):
    """Attention that `rows` pay to an item's tokens, without the first token of all: the mean over rows and heads."""
    paid = weights[:, rows].clone()
    paid[:, :, :sink] = 0
    paid = paid / paid.sum(-1, keepdim=True)
    return paid.mean(dim=(0, 1))[item[0]:item[1]]


def signs(seed, count):
    """The top bits of SplitMix64's outputs (Steele, Lea and Flood 2014): 1 for a clear bit, -1 for a set one."""
    mask, state, out = 2**64 - 1, seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(-1.0 if (z ^ (z >> 31)) >> 63 else 1.0)
    return torch.tensor(out)


def report(lm, x, positions, items, content_free, seed, sink=1, back=0, rows=1):
    """The probe's values of each item. For mistakes: `sink` 0 counts the first token, `back` 1 takes the layer before,
    `rows` are the last ones that pay."""
    layer = probe_layers(lm) - back
    weights = weights_of(lm, x, positions, layer)
    last = items[-1][1]
    # The content-free text stands where the text behind the last item began.
    at = positions[:, last:last + 1] + torch.arange(len(content_free))
    nothing = weights_of(lm, torch.cat([x[:last], lm.embed_tokens(content_free)]),
                         torch.cat([positions[:, :last], at], dim=1), layer)
    matrix = (signs(seed, x.shape[1] * FEATURE_WIDTH) / FEATURE_WIDTH**0.5).view(-1, FEATURE_WIDTH)
    out = []
    for item in items:
        features = x[item[0]:item[1]]
        out.append({
            "saliency": (features - features.mean(dim=0)).norm(dim=1),
            "features": features @ matrix.to(features.dtype),
            "relevance": relevance(weights, list(range(len(x) - rows, len(x))), item, sink),
            "nothing": relevance(nothing, list(range(last, last + len(content_free))), item, sink),
        })
    return out


def patterns(items, generator):
    """Keep lists, a list for each item; `None` keeps all of it."""
    sizes = [end - start for start, end in items]

    def some(size):
        return sorted(torch.randperm(size, generator=generator)[:max(1, size // 2)].tolist())

    return {
        "scattered": [some(size) for size in sizes],
        # The item itself; of the one that follows, some; the others whole.
        "dropped": [[] if i == 0 else some(size) if i == 1 else None for i, size in enumerate(sizes)],
        "ends": [sorted({0, size - 1}) for size in sizes],
        "middle": [list(range(1, size - 1)) for size in sizes],
    }


def places(items, keep, length):
    """The places kept, text included."""
    gone = set()
    for (start, end), kept in zip(items, keep):
        if kept is not None:
            gone |= set(range(start, end)) - {start + token for token in kept}
    return [place for place in range(length) if place not in gone]


def closed_up(positions, kept):
    """What a mistaken host would count anew: positions drawn together by the number of tokens dropped before."""
    dropped = torch.tensor(kept) - torch.arange(len(kept))
    wrong = positions.clone()
    wrong[:, kept] -= dropped
    return wrong


def largest(a, b):
    return (a.float() - b.float()).abs().max().item()


def run_pattern(model, lm, x, positions, kept, tokens):
    return {
        "before": by_model(model, lm, x, positions, kept, tokens),
        "behind": by_hand(model, lm, x, positions, kept, tokens, probe_layers(lm)),
    }


@torch.no_grad()
def run_case(spec, model, processor, name):
    messages, options = next((m, o) for n, m, o in cases.CASES_OF[spec.name] if n == name)
    _, inputs, _ = cases.run_processor(spec, processor, messages, options)
    positions, _ = cases.rope_index(spec, model, inputs, options)
    ids, lm = inputs["input_ids"][0], language(spec, model)
    items, first = items_of(spec, ids), probe_layers(lm)
    x = embedded(spec, model, inputs)
    names = tokenizer.special_ids(spec.family)
    closing = int(ids[items[-1][1]])
    assert closing in [names.get(n) for n in ("<|vision_end|>", "<|vision_eos|>", "<|audio_eos|>")]
    neutral = processor.tokenizer("N/A<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    content_free, seed = torch.tensor([closing] + neutral), 2**63 + len(ids)

    # Nothing dropped is the whole model's own forward pass, and `generate`'s where it goes on.
    everything = list(range(len(ids)))
    cases.reset(model)
    greedy = model.generate(**inputs, do_sample=False, max_new_tokens=MORE + 1, min_new_tokens=MORE + 1,
                            return_dict_in_generate=True, output_logits=True)
    rows, tokens = torch.cat(greedy.logits), greedy.sequences[0, len(ids):-1]
    for whole in run_pattern(model, lm, x, positions, everything, tokens).values():
        assert largest(whole, rows) < MAX_NOISE, (spec.name, name, largest(whole, rows))
    # No layer sees what is dropped: both ways are one.
    half = places(items, [list(range(0, end - start, 2)) for start, end in items], len(ids))
    assert largest(by_hand(model, lm, x, positions, half, tokens, 0),
                   by_model(model, lm, x, positions, half, tokens)) < MAX_NOISE

    seen = report(lm, x, positions, items, content_free, seed)
    with_sink = report(lm, x, positions, items, content_free, seed, sink=0)
    wrong_layer = report(lm, x, positions, items, content_free, seed, back=1)
    wrong_rows = report(lm, x, positions, items, content_free, seed, rows=3)
    # A window may hide the first token from what stands behind the items.
    windowed = lm.config.layer_types[first] == "sliding_attention"
    for value in ("relevance", "nothing"):
        for ours, other in zip(seen, with_sink):
            assert windowed or largest(ours[value], other[value]) > MIN_RELEVANCE_MOVED, (spec.name, name, value)
    for wrong in (wrong_layer, wrong_rows):
        for ours, other in zip(seen, wrong):
            moved = largest(ours["relevance"], other["relevance"])
            assert windowed or moved > MIN_RELEVANCE_MOVED, (spec.name, name, moved)

    # What rounding alone moves: the same in f64, encoders included.
    media = cases.media_keys(inputs)
    wide_inputs = {k: v.double() if k in media and torch.is_floating_point(v) else v for k, v in inputs.items()}
    model.double()
    wide_x = embedded(spec, model, wide_inputs)
    noise = {"report": 0.0, "relevance": 0.0}
    for ours, wide in zip(seen, report(lm, wide_x, positions, items, content_free, seed)):
        for value in ours:
            kind = "relevance" if value in ("relevance", "nothing") else "report"
            noise[kind] = max(noise[kind], largest(ours[value], wide[value]))
    model.float()
    assert noise["report"] <= MAX_NOISE and noise["relevance"] <= MAX_RELEVANCE_NOISE, (spec.name, name, noise)

    tensors = {f"{value}.{i}": t for i, item in enumerate(seen) for value, t in item.items()}
    info = {"model": spec.name, "case": name, "probe_layers": first, "seed": seed, "content_free": content_free.tolist(),
            "items": [list(item) for item in items], "column_step": COLUMN_STEP, "report_f64_difference": noise["report"],
            "relevance_f64_difference": noise["relevance"], "patterns": {}}
    for pattern in patterns(items, torch.Generator()):
        for attempt in range(100):
            generator = torch.Generator().manual_seed(attempt)
            keep = patterns(items, generator)[pattern]
            tokens = torch.randint(256, (MORE,), generator=generator)
            kept = places(items, keep, len(ids))
            logits = run_pattern(model, lm, x, positions, kept, tokens)
            wrong = run_pattern(model, lm, x, closed_up(positions, kept), kept, tokens)
            whole = run_pattern(model, lm, x, positions, everything, tokens)
            model.double()
            wide = run_pattern(model, lm, wide_x, positions, kept, tokens)
            model.float()
            rounding = max(largest(logits[when], wide[when]) for when in logits)
            moved = min(min(largest(logits[when], other[when]) for other in (wrong, whole)) for when in logits)
            apart = largest(logits["before"], logits["behind"])
            if rounding <= MAX_NOISE and min(moved, apart) >= MIN_MOVED:
                break
        else:
            raise RuntimeError(f"{spec.name}/{name}: no draw of {pattern} is a fair test: {rounding} {moved} {apart}")
        for when, rows in logits.items():
            tensors[f"{pattern}.{when}"] = rows[:, ::COLUMN_STEP]
        info["patterns"][pattern] = {"keep": keep, "tokens": tokens.tolist(), "f64_difference": rounding}
    return tensors, info


def make(spec):
    name = CASES_OF.get(spec.name)
    if name is None:
        return
    # Attention is handed out by the eager way only.
    spec = dataclasses.replace(spec, attention="eager")
    model = checkpoints.load(spec)
    processor = checkpoints.processor_class(spec).from_pretrained(spec.folder)
    tensors, info = run_case(spec, model, processor, name)
    write_tensors(PRUNED / spec.name / f"{name}.safetensors", tensors)
    write_json(PRUNED / spec.name / f"{name}.json", info)
    print(f"{spec.name}/{name} pruned: items {info['items']}, report {info['report_f64_difference']:.0e}, "
          f"relevance {info['relevance_f64_difference']:.0e}, " + ", ".join(
              f"{n} {p['f64_difference']:.0e}" for n, p in info["patterns"].items()), flush=True)
