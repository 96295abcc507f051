"""Vectors that need no weights: resizing, frame sampling, mel features and rope positions."""

import functools
import itertools
import random

import numpy as np
import torch
import transformers as tf
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.video_utils import VideoMetadata

from . import checkpoints, media, tokenizer
from .paths import PREPROCESS, write_json, write_packed_json, write_tensors


def extractor(chunk_length=30):
    """The feature extractor as the published Omni checkpoint configures it (but for its 300 s of padding)."""
    return tf.WhisperFeatureExtractor(feature_size=128, chunk_length=chunk_length, return_attention_mask=True)


@functools.cache
def mel_of(path):
    """Log-mel features [128, frames] of one sound, padding cut off."""
    out = extractor()(media.load_sound(path), sampling_rate=16000, padding="max_length", return_attention_mask=True,
                      return_tensors="pt")
    return out["input_features"][0, :, : int(out["attention_mask"].sum())].contiguous()


def smart_resize_table():
    """Rows of (height, width, factor, min_pixels, max_pixels) and the answer or the error."""
    rng = random.Random(7)
    asked = [
        (h, w, f, lo, hi)
        for (h, w), (f, lo, hi) in itertools.product(
            [(1, 1), (14, 14), (28, 28), (42, 42), (70, 98), (13, 2600), (2601, 13), (1, 200), (1, 201), (200, 1),
             (45, 61), (56, 224), (1080, 1920), (4000, 3000), (20, 300), (7, 9), (126, 126), (33, 45), (5, 1000)],
            [(28, 3136, 12845056), (28, 100352, 602112), (28, 1568, 12544), (16, 512, 10240), (20, 800, 8000)],
        )
    ]
    while len(asked) < 260:
        f = rng.choice([16, 20, 24, 28, 28, 28, 32])
        lo = f * f * rng.choice([1, 2, 4, 16, 128])
        asked.append((rng.randint(1, 2500), rng.randint(1, 2500), f, lo, lo * rng.choice([1, 2, 3, 8, 64])))
    rows = []
    for h, w, f, lo, hi in asked:
        row = {"height": h, "width": w, "factor": f, "min_pixels": lo, "max_pixels": hi}
        try:
            row["out"] = list(smart_resize(h, w, factor=f, min_pixels=lo, max_pixels=hi))
        except ValueError as error:
            row["error"] = str(error)
        rows.append(row)
    write_packed_json(PREPROCESS / "smart_resize.json", rows)


def resized_pictures():
    """u8 pixels after the image processor's resize (torchvision, bicubic, antialias) and the grid that follows."""
    tensors, rows = {}, []
    for name, factor, lo, hi in [
        ("a", 28, 1568, 12544), ("a", 16, 4096, 16384), ("b", 28, 784, 6272), ("c", 20, 400, 4000),
        ("small", 28, 3136, 12544), ("elongated", 16, 512, 4096), ("exact", 28, 784, 12544),
        ("gray", 28, 784, 3136), ("alpha", 16, 512, 4096),
    ]:
        processor = tf.Qwen2VLImageProcessor(
            patch_size=factor // 2, size={"shortest_edge": lo, "longest_edge": hi}, do_rescale=False,
            do_normalize=False)
        out = processor(media.load_picture(f"media/{name}.png"), return_tensors="pt")
        t, h, w = out["image_grid_thw"][0].tolist()
        p = factor // 2
        # Back from patches [h/2, w/2, 2, 2, channel, time, p, p] to a picture.
        patches = out["pixel_values"].reshape(h // 2, w // 2, 2, 2, 3, 2, p, p)[:, :, :, :, :, 0]
        pixels = patches.permute(0, 2, 5, 1, 3, 6, 4).reshape(h * p, w * p, 3)
        key = f"{name}_{factor}_{lo}_{hi}"
        tensors[key] = pixels.to(torch.uint8)
        rows.append({"key": key, "path": f"media/{name}.png", "factor": factor, "min_pixels": lo, "max_pixels": hi,
                     "height": h * p, "width": w * p, "grid_thw": [t, h, w]})
    frames = torch.from_numpy(media.load_clip("media/clip_a.safetensors")[:2])
    processor = tf.Qwen2VLVideoProcessor(size={"shortest_edge": 784, "longest_edge": 3136}, do_rescale=False,
                                         do_normalize=False, cap_pixels_per_frame=False)
    out = processor([frames], return_tensors="pt")
    t, h, w = out["video_grid_thw"][0].tolist()
    patches = out["pixel_values_videos"].reshape(h // 2, w // 2, 2, 2, 3, 2, 14, 14)
    tensors["clip_a_first_two"] = patches.permute(5, 0, 2, 6, 1, 3, 7, 4).reshape(2, h * 14, w * 14, 3).to(torch.uint8)
    rows.append({"key": "clip_a_first_two", "path": "media/clip_a.safetensors", "frames": [0, 1], "factor": 28,
                 "min_pixels": 784, "max_pixels": 3136, "height": h * 14, "width": w * 14, "grid_thw": [t, h, w]})
    write_tensors(PREPROCESS / "resize.safetensors", tensors)
    write_json(PREPROCESS / "resize.json", rows)


def frame_sampling():
    """Which frames of a clip are used, and what second_per_grid_ts Qwen2.5-VL gets from it."""
    processor = tf.Qwen2VLVideoProcessor()
    rows = []
    for total, fps, rate in itertools.product([1, 2, 3, 4, 5, 7, 19, 20, 50, 123, 400], [1.0, 4.0, 10.0, 29.97],
                                              [1, 2, 3, 4.5]):
        metadata = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps)
        row = {"total_frames": total, "fps": fps, "sample_fps": rate}
        try:
            indices = processor.sample_frames(metadata, fps=rate)
            metadata.frames_indices = indices
            row["frame_indices"] = indices.tolist()
            row["sampled_fps"] = metadata.sampled_fps
            row["second_per_grid"] = 2 / metadata.sampled_fps
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    write_packed_json(PREPROCESS / "frame_sampling.json", rows)


def mel_features():
    """Features of every sound in media/, and the facts about padding."""
    tensors, rows = {}, []
    for name, n in media.SOUNDS.items():
        path = f"media/{name}.wav"
        tensors[name] = mel_of(path)
        rows.append({"key": name, "path": path, "samples": n, "frames": tensors[name].shape[1]})
    # The padding changes neither the frames nor their scale, however long it is.
    path = "media/odd_0s50.wav"
    long = extractor(300)(media.load_sound(path), sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
    n = int(long["attention_mask"].sum())
    assert n == mel_of(path).shape[1] and (long["input_features"][0, :, :n] - mel_of(path)).abs().max() < 1e-5
    # Longer sounds are cut at chunk_length seconds: a 1 s window over the 2.45 s sweep.
    cut = extractor(1)(media.load_sound("media/sweep_2s45.wav"), sampling_rate=16000, return_attention_mask=True,
                       return_tensors="pt")
    tensors["sweep_2s45_cut_to_1s"] = cut["input_features"][0, :, -20:]
    rows.append({"key": "sweep_2s45_cut_to_1s", "stored": "the last 20 frames", "path": "media/sweep_2s45.wav", "samples": media.SOUNDS["sweep_2s45"],
                 "chunk_length": 1, "frames": int(cut["attention_mask"].sum())})
    # Silence: the floor of the scale.
    silence = extractor()(np.zeros(1600, np.float32), sampling_rate=16000, return_attention_mask=True,
                          return_tensors="pt")
    tensors["silence"] = silence["input_features"][0, :, : int(silence["attention_mask"].sum())]
    rows.append({"key": "silence", "samples": 1600, "frames": tensors["silence"].shape[1]})
    write_tensors(PREPROCESS / "mel.safetensors", tensors)
    write_json(PREPROCESS / "mel.json", {"signals": rows, "frames_of_samples": [
        [n, int(mask_frames(n))] for n in (1, 159, 160, 161, 319, 320, 400, 1600, 8037, 39277)]})


def mask_frames(samples):
    out = extractor(4)(np.zeros(samples, np.float32), sampling_rate=16000, return_attention_mask=True,
                       return_tensors="pt")
    return out["attention_mask"].sum()


def audio_tokens(frames):
    """How many placeholders a sound of so many mel frames takes."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def rope_family(spec_name, count=22):
    """Synthetic id sequences, the grids in them, and the positions get_rope_index gives."""
    spec = checkpoints.BY_NAME[spec_name]
    ids = tokenizer.special_ids(spec.family)
    omni = spec.family == "qwen2_5_omni"
    config = checkpoints.read_config(spec)
    with torch.device("meta"):
        model = checkpoints.model_class(spec)(config)
    rng = random.Random(len(spec_name))
    marks = {
        "image": ("<|vision_bos|>", "<|IMAGE|>", "<|vision_eos|>") if omni
        else ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
        "video": ("<|vision_bos|>", "<|VIDEO|>", "<|vision_eos|>") if omni
        else ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>"),
        "audio": ("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
    }
    kinds = ["image", "video", "audio"] if omni else ["image", "video"]
    tensors, rows = {}, []
    for i in range(count):
        joined = omni and i >= count - 5
        plan = [rng.choice(kinds) for _ in range(rng.randint(1, 4))] if i >= 4 else [["image"], ["video"], ["image"] * 3,
                                                                                     ["video", "image"]][i]
        if omni and i in (4, 5, 6):
            plan = [["audio"], ["audio", "image"], ["image", "audio", "video"]][i - 4]
        if joined:
            plan = [["clip"], ["image", "clip"], ["clip", "clip"], ["clip", "audio"], ["audio", "clip", "image"]][
                i - (count - 5)]
        seq, images, videos, seconds, frames = [], [], [], [], []

        def words(lo, hi):
            seq.extend(rng.randrange(0, 250) for _ in range(rng.randint(lo, hi)))

        words(0 if i % 3 else 1, 6)
        for kind in plan:
            grid = [1, 2 * rng.randint(1, 4), 2 * rng.randint(1, 5)]
            if kind == "image":
                images.append(grid)
                n = grid[1] * grid[2] // 4
            elif kind in ("video", "clip"):
                grid[0] = rng.randint(1, 4)
                videos.append(grid)
                seconds.append(rng.choice([0.08333, 0.5, 0.66667, 0.95, 1.0, 1.0, 1.9, 2.0, 2.33333, 3.5]))
                n = grid[0] * grid[1] * grid[2] // 4
            if kind == "audio":
                frames.append(rng.randint(3, 150))
                n = audio_tokens(frames[-1])
            if kind == "clip":
                frames.append(rng.randint(40, 400))
                seq += [ids["<|vision_bos|>"], ids["<|audio_bos|>"]]
                seq += interleaved(grid, seconds[-1], frames[-1], ids)
                seq += [ids["<|audio_eos|>"], ids["<|vision_eos|>"]]
            else:
                start, pad, end = marks[kind]
                seq += [ids[start]] + [ids[pad]] * n + [ids[end]]
            words(0 if kind != "clip" else 1, 7)
        words(1, 3)
        input_ids = torch.tensor([seq])
        image_grids = torch.tensor(images) if images else None
        video_grids = torch.tensor(videos) if videos else None
        per_grid = torch.tensor(seconds) if videos else None
        if omni:
            position_ids, delta = model.get_rope_index(
                input_ids, image_grids, video_grids, torch.ones_like(input_ids), joined,
                torch.tensor(frames) if frames else None, per_grid)
        else:
            types = (input_ids == config.image_token_id).int() + 2 * (input_ids == config.video_token_id).int()
            position_ids, delta = model.model.get_rope_index(
                input_ids, mm_token_type_ids=types, image_grid_thw=image_grids, video_grid_thw=video_grids,
                second_per_grid_ts=per_grid, attention_mask=torch.ones_like(input_ids))
        key = f"{i:02d}"
        tensors[f"{key}.input_ids"] = input_ids[0].int()
        tensors[f"{key}.position_ids"] = position_ids[:, 0].int()
        rows.append({"key": key, "plan": plan, "image_grid_thw": images, "video_grid_thw": videos,
                     "second_per_grid": seconds, "feature_lengths": frames, "use_audio_in_video": joined,
                     "length": len(seq), "rope_delta": int(delta.reshape(-1)[0])})
    write_tensors(PREPROCESS / f"rope_{spec.family}.safetensors", tensors)
    settings = {"model": spec.name, "spatial_merge_size": 2, "image_token_id": config.image_token_id,
                "video_token_id": config.video_token_id}
    if omni:
        settings.update(
            audio_token_id=config.audio_token_id, vision_start_token_id=config.vision_start_token_id,
            audio_start_token_id=config.audio_start_token_id, seconds_per_chunk=config.seconds_per_chunk,
            position_id_per_seconds=config.position_id_per_seconds)
    elif spec.family == "qwen2_5_vl":
        settings["tokens_per_second"] = config.vision_config.tokens_per_second
    write_json(PREPROCESS / f"rope_{spec.family}.json", {"settings": settings, "sequences": rows})


def interleaved(grid, second_per_grid, frames, ids, per_second=25, chunk_seconds=2.0):
    """Placeholders of a clip and its sound as Omni's processor orders them: chunk by chunk, pictures first."""
    tf_chunks = tf.Qwen2_5OmniProcessor.get_chunked_index
    per_frame = grid[1] * grid[2] // 4
    pictures = np.repeat(np.arange(grid[0]), per_frame) * second_per_grid * per_second
    sounds = np.arange(audio_tokens(frames))
    per_chunk = int(per_second * chunk_seconds)
    v, a = tf_chunks(None, pictures, per_chunk), tf_chunks(None, sounds, per_chunk)
    out = []
    for j in range(max(len(v), len(a))):
        if j < len(v):
            out += [ids["<|VIDEO|>"]] * (v[j][1] - v[j][0])
        if j < len(a):
            out += [ids["<|AUDIO|>"]] * (a[j][1] - a[j][0])
    return out


def make():
    PREPROCESS.mkdir(parents=True, exist_ok=True)
    smart_resize_table()
    resized_pictures()
    frame_sampling()
    mel_features()
    for name in ("qwen2-vl-gqa", "qwen25-vl-windows", "omni-thinker"):
        rope_family(name)
