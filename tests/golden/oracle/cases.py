"""Runs the real processors and models on the cases of each checkpoint and writes what they give."""

import copy

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from . import checkpoints, media, preprocess, tokenizer
from .paths import CASES, write_json, write_tensors

GREEDY = 64
MIN_GAP = 1e-3
MIN_DISTINCT = 8
GREEDY_ROWS = [1, 31, 63]
# Cases with the option `all_rows` store the logits of every position, the others those of ROWS positions.
ROWS = 6


def text(t):
    return {"type": "text", "text": t}


def image(name):
    return {"type": "image", "image": f"media/{name}.png"}


def image_url(name):
    return {"type": "image_url", "image_url": {"url": f"media/{name}.png"}}


def video(name):
    return {"type": "video", "video": f"media/{name}.safetensors"}


def audio(name):
    return {"type": "audio", "audio": f"media/{name}.wav"}


def user(*parts):
    return [{"role": "user", "content": list(parts) if not isinstance(parts[0], str) else parts[0]}]


HELLO = user("What is in the picture?")
TURNS = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": [text("Héllo, 你好! It's 42.\n\nOK?")]},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Is there   anything else?"},
]
LONG = user("Describe the image and the sound. The video shows a red disc that moves over the field. How many "
            "frames are there in this video? Compare the two images, then say what you hear.")

# model -> [(case, messages, options)]. Options: `all_rows` stores every logits row, `sample_fps` samples clips to that rate (None: all frames are used),
# `use_audio_in_video` interleaves a clip with its sound (Omni).
CASES_OF = {
    "qwen2-vl-gqa": [
        ("text", TURNS, {}),
        ("image", user(image("a"), text("Describe the image.")), {}),
        ("two_images", user(image("b"), text("and"), image_url("c"), text("Compare the two images.")), {}),
        ("video", user(video("clip_a"), text("What is this?")), {"sample_fps": 2}),
        ("video_image", user(video("clip_c"), image("small"), text("How many?")), {}),
    ],
    "qwen2-vl-tied-odd": [
        ("text", HELLO, {}),
        ("elongated", user(text("What is it?"), image("elongated")), {}),
        ("two_same_size", user(image("exact"), image("exact"), text("Compare.")), {}),
    ],
    "qwen2-vl-flat": [
        ("text", TURNS, {}),
        ("gray_and_alpha", user(image("gray"), image("alpha"), text("Describe.")), {}),
        ("video", user(video("clip_b"), text("What moves?")), {"sample_fps": 2}),
    ],
    "qwen2-vl-sliding": [
        ("text_long", LONG, {}),
        ("image", user(image("a"), text("Describe the image.")), {}),
    ],
    "qwen25-vl-windows": [
        ("text", HELLO, {"all_rows": True}),
        ("image", user(image("b"), text("Describe the image.")), {}),
        ("two_images", user(image("c"), text("and"), image("a"), text("Compare the two images.")), {}),
        ("video", user(video("clip_a"), text("What is this?")), {"sample_fps": 2}),
        ("video_slow", user(video("clip_b"), text("What moves?")), {"sample_fps": 2}),
        ("video_image", user(text("First"), video("clip_b"), text("then"), image("exact"), text("Compare.")),
         {"sample_fps": 1}),
    ],
    "qwen25-vl-flat-tied": [
        ("text", TURNS, {}),
        ("image", user(image("exact"), text("Describe the image.")), {}),
        ("image_video", user(image("small"), video("clip_c"), text("What moves?")), {}),
    ],
    "qwen25-vl-sharded": [
        ("text", HELLO, {}),
        ("image", user(image("elongated"), text("Describe.")), {}),
        ("two_videos", user(video("clip_b"), video("clip_a"), text("Compare.")), {"sample_fps": 2}),
    ],
    "qwen25-vl-sliding": [
        ("text_long", LONG, {}),
        ("image", user(image("a"), text("Describe the image.")), {}),
    ],
    "omni-thinker": [
        ("text", HELLO, {"all_rows": True}),
        ("audio_chunks", user(audio("sweep_2s45"), text("What do you hear?")), {}),
        ("two_audios", user(audio("tone_0s30"), text("and"), audio("odd_0s50"), text("Compare.")), {}),
        ("image", user(image("c"), text("Describe the image.")), {}),
        ("video", user(video("clip_a"), text("What is this?")), {"sample_fps": 3}),
        ("image_audio_video", user(image("a"), audio("chirp_0s64"), video("clip_b"), text("Tell me.")),
         {"sample_fps": 1}),
    ],
    "omni-whole": [
        ("text", TURNS, {}),
        ("audio", user(audio("chirp_0s64"), text("What do you hear?")), {}),
        ("image_audio", user(image("b"), text("and"), audio("noise_1s00"), text("Compare.")), {}),
        ("audio_in_video", user(video("clip_b"), text("What is this?")),
         {"sample_fps": 1, "use_audio_in_video": True, "audio_tracks": ["sweep_2s45"]}),
    ],
    "omni-chunks-tied": [
        ("audio_border", user(audio("chirp_0s64"), text("What?")), {}),
        ("audio_odd", user(audio("odd_0s50"), audio("tone_0s30"), text("What?")), {}),
        ("audio_image", user(audio("noise_1s00"), image("small"), text("Compare.")), {}),
    ],
    "qwen2-vl-deep": [
        ("image_video", user(image("small"), video("clip_c"), text("What moves?")), {}),
    ],
}


def parts_of(messages, kind):
    """Paths of the parts of one kind, in order."""
    out = []
    for message in messages:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if kind == "image" and part["type"] == "image_url":
                    out.append(part["image_url"]["url"])
                elif part["type"] == kind:
                    out.append(part[kind])
    return out


def to_u8(pixel_values, spec, repeated):
    """Undo the normalisation: u8 patches [n, 3, T, P, P] in the order of pixel_values, and prove that it is exact.

    An image is `repeated` along T by the processor; one copy is kept.
    """
    t, p = spec.vision["temporal_patch_size"], spec.vision["patch_size"]
    mean = torch.tensor(checkpoints.CLIP_MEAN).mul(255.0).view(3, 1, 1, 1)
    std = torch.tensor(checkpoints.CLIP_STD).mul(255.0).view(3, 1, 1, 1)
    patches = pixel_values.view(-1, 3, t, p, p)
    u8 = (patches * std + mean).round().clamp(0, 255).to(torch.uint8)
    if repeated:
        u8 = u8[:, :, :1]
    assert (((u8.float() - mean) / std).expand_as(patches) - patches).abs().max() <= 5e-7
    return u8


def run_processor(spec, processor, messages, options):
    """(prompt, model inputs, facts for the JSON)."""
    # A processor sees only chat_template.jinja and .json; the tokenizer has the one in tokenizer_config.json.
    renderer = processor if processor.chat_template is not None else processor.tokenizer
    # A copy, since transformers rewrites image_url parts in place before it renders.
    prompt = renderer.apply_chat_template(copy.deepcopy(messages), tokenize=False, add_generation_prompt=True)
    pictures, clips = parts_of(messages, "image"), parts_of(messages, "video")
    sounds = [p for p in parts_of(messages, "audio")] + [f"media/{n}.wav" for n in options.get("audio_tracks", [])]
    frames, metadata = [], []
    kwargs, facts = {}, {"images": [], "videos": [], "audios": []}
    if pictures:
        kwargs["images"] = [media.load_picture(p) for p in pictures]
        facts["images"] = [{"path": p, "width": i.width, "height": i.height} for p, i in zip(pictures, kwargs["images"])]
    if clips:
        fps_of = {f"media/{n}.safetensors": c[3] for n, c in media.CLIPS.items()}
        frames = [media.load_clip(p) for p in clips]
        metadata = [
            VideoMetadata(total_num_frames=len(f), fps=fps_of[p], duration=len(f) / fps_of[p],
                          height=f.shape[1], width=f.shape[2]) for p, f in zip(clips, frames)
        ]
        kwargs.update(videos=frames, video_metadata=metadata, cap_pixels_per_frame=False)
        if options.get("sample_fps") is not None:
            kwargs.update(do_sample_frames=True, fps=options["sample_fps"])
        if spec.family == "qwen2_5_omni":
            # Omni's processor would otherwise impose 128 to 768 tokens a frame pair, whatever the files say.
            lo, hi = processor.video_processor.size.shortest_edge, processor.video_processor.size.longest_edge
            kwargs.update(min_pixels=lo, max_pixels=hi)
            kwargs["use_audio_in_video"] = bool(options.get("use_audio_in_video"))
    if sounds:
        kwargs["audio"] = [media.load_sound(p) for p in sounds]
        facts["audios"] = [{"path": p, "samples": len(s)} for p, s in zip(sounds, kwargs["audio"])]
    if spec.family == "qwen2_5_omni":
        budgets = {k: kwargs.pop(k) for k in ("min_pixels", "max_pixels") if k in kwargs}
        if budgets:
            kwargs["videos_kwargs"] = {**budgets, **{k: kwargs.pop(k) for k in (
                "video_metadata", "cap_pixels_per_frame", "do_sample_frames", "fps", "use_audio_in_video")
                if k in kwargs}}
    inputs = processor(text=[prompt], return_tensors="pt", **kwargs)
    for path, f, m in zip(clips, frames, metadata):
        rate = options.get("sample_fps")
        indices = range(len(f)) if rate is None else processor.video_processor.sample_frames(m, fps=rate).tolist()
        facts["videos"].append({
            "path": path, "frames": len(f), "fps": m.fps, "height": m.height, "width": m.width, "sample_fps": rate,
            "frame_indices": list(indices),
        })
    image_size, video_size = processor.image_processor.size, processor.video_processor.size
    facts["pixels"] = {
        "image": {"min_pixels": image_size.shortest_edge, "max_pixels": image_size.longest_edge},
        "video": {"min_pixels": video_size.shortest_edge, "max_pixels": video_size.longest_edge},
    }
    return prompt, dict(inputs), facts


def rope_index(spec, model, inputs, options):
    """Position ids [3, L] and the delta that decoding adds, as the model computes them."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if spec.family == "qwen2_5_omni":
        lengths = inputs["feature_attention_mask"].sum(-1) if "feature_attention_mask" in inputs else None
        position_ids, delta = model.get_rope_index(
            ids, inputs.get("image_grid_thw"), inputs.get("video_grid_thw"), mask,
            bool(options.get("use_audio_in_video")), lengths, inputs.get("video_second_per_grid"))
    elif "image_grid_thw" in inputs or "video_grid_thw" in inputs:
        position_ids, delta = model.model.get_rope_index(
            ids, mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"), second_per_grid_ts=inputs.get("second_per_grid_ts"),
            attention_mask=mask)
    else:
        position_ids, delta = torch.arange(ids.shape[1]).expand(3, 1, -1), torch.zeros(1, 1, dtype=torch.long)
    return position_ids[:, 0].contiguous(), int(delta.reshape(-1)[0])


def reset(model):
    """transformers keeps the last request's rope deltas on the module."""
    for m in (model, getattr(model, "model", None)):
        if hasattr(m, "rope_deltas"):
            m.rope_deltas = None


def media_keys(inputs):
    return [k for k in ("pixel_values", "pixel_values_videos", "input_features") if k in inputs]


@torch.no_grad()
def run_case(spec, model, processor, name, messages, options):
    """Tensors and JSON of one case, or None where the drawn weights make no fair test."""
    prompt, inputs, facts = run_processor(spec, processor, messages, options)
    extra = {"use_audio_in_video": True} if options.get("use_audio_in_video") else {}
    reset(model)
    logits = model(**inputs, **extra).logits[0]
    position_ids, delta = rope_index(spec, model, inputs, options)

    reset(model)
    gen = model.generate(**inputs, **extra, do_sample=False, max_new_tokens=GREEDY, min_new_tokens=GREEDY,
                         return_dict_in_generate=True, output_logits=True)
    rows = torch.cat(gen.logits)
    tokens = gen.sequences[0, inputs["input_ids"].shape[1]:]
    assert len(tokens) == GREEDY and torch.equal(tokens, rows.argmax(-1))
    assert (rows[0] - logits[-1]).abs().max() < 1e-4
    top2 = rows.topk(2).values
    gap = (top2[:, 0] - top2[:, 1]).min().item()
    distinct = len(set(tokens.tolist()))
    if gap <= MIN_GAP or distinct < MIN_DISTINCT:
        return None

    # How far f32 rounding alone moves the logits: the same forward pass in f64.
    wide = {k: v.double() if torch.is_floating_point(v) and k in media_keys(inputs) else v for k, v in inputs.items()}
    model.double()
    reset(model)
    noise = (model(**wide, **extra).logits[0].float() - logits).abs().max().item()
    model.float()
    if noise > 4e-5:
        return None
    # Every modality must reach the logits: negate it and see them move.
    for key in media_keys(inputs):
        reset(model)
        moved = model(**{**inputs, key: -inputs[key]}, **extra).logits[0, -1]
        if (moved - logits[-1]).abs().max() < 0.05:
            return None

    length = inputs["input_ids"].shape[1]
    step = length if options.get("all_rows") else ROWS
    at = sorted({int(round(x)) for x in np.linspace(0, length - 1, step)})
    tensors = {
        "input_ids": inputs["input_ids"][0], "attention_mask": inputs["attention_mask"][0],
        "position_ids": position_ids, "logits_positions": torch.tensor(at), "logits": logits[at],
        "greedy_tokens": tokens, "greedy_logits_steps": torch.tensor(GREEDY_ROWS), "greedy_logits": rows[GREEDY_ROWS],
    }
    for key in ("image_grid_thw", "video_grid_thw"):
        if key in inputs:
            tensors[key] = inputs[key]
    if "mm_token_type_ids" in inputs:
        tensors["mm_token_type_ids"] = inputs["mm_token_type_ids"][0].long()
    for key in ("pixel_values", "pixel_values_videos"):
        if key in inputs:
            tensors[f"{key}_u8"] = to_u8(inputs[key], spec, repeated=key == "pixel_values")
    seconds = inputs.get("second_per_grid_ts", inputs.get("video_second_per_grid"))
    if "input_features" in inputs:
        # The features themselves are stored once per sound, in preprocess/mel.safetensors.
        mask = inputs["feature_attention_mask"]
        tensors["feature_lengths"] = mask.sum(-1).long()
        facts["padded_frames"] = mask.shape[1]
        for i, sound in enumerate(facts["audios"]):
            frames = int(mask[i].sum())
            assert mask[i, :frames].all()
            sound["frames"] = frames
            stored = preprocess.mel_of(sound["path"])
            assert (inputs["input_features"][i, :, :frames] - stored).abs().max() < 1e-5
    info = {
        "model": spec.name, "case": name, "family": spec.family, "messages": messages,
        "use_audio_in_video": bool(options.get("use_audio_in_video")), "prompt": prompt, **facts,
        "second_per_grid": None if seconds is None else [float(s) for s in seconds],
        "length": length, "rope_delta": delta, "greedy_tokens": tokens.tolist(),
        "greedy_text": processor.tokenizer.decode(tokens, skip_special_tokens=False),
        "greedy_distinct": distinct, "greedy_min_gap": gap, "f64_difference": noise,
    }
    return tensors, info


def write_case(spec, name, result):
    tensors, info = result
    write_tensors(CASES / spec.name / f"{name}.safetensors", tensors)
    write_json(CASES / spec.name / f"{name}.json", info)


def make(spec):
    """Draw weights until every case of this checkpoint is a fair test, then write them and the cases."""
    checkpoints.write_static(spec)
    processor = checkpoints.processor_class(spec).from_pretrained(spec.folder)
    assert processor.tokenizer.convert_tokens_to_ids(list(tokenizer.special_ids(spec.family))) == list(
        tokenizer.special_ids(spec.family).values())
    for attempt in range(200):
        seed = 1000 * (1 + [s.name for s in checkpoints.SPECS].index(spec.name)) + attempt
        model = checkpoints.write(spec, seed)
        results = {}
        for name, messages, options in CASES_OF[spec.name]:
            result = run_case(spec, model, processor, name, messages, options)
            if result is None:
                break
            results[name] = result
        else:
            for old in (CASES / spec.name).glob("*"):
                old.unlink()
            for name, result in results.items():
                write_case(spec, name, result)
            print(f"{spec.name}: seed {seed}, " + ", ".join(
                f"{n} L={r[1]['length']} gap={r[1]['greedy_min_gap']:.1e} distinct={r[1]['greedy_distinct']}"
                f" f64={r[1]['f64_difference']:.0e}" for n, r in results.items()), flush=True)
            return
    raise RuntimeError(f"{spec.name}: no seed gives a fair test")
