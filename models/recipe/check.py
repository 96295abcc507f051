"""Holds the training forward and the training inputs against transformers: same logits, same features, same positions.

    python check.py
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import torch
from transformers import Qwen2_5OmniProcessor

import world
from batches import Maker
from fast import build, forward
from tokenizer import write


def main() -> None:
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        tok = write(Path(folder))
        processor = Qwen2_5OmniProcessor.from_pretrained(folder)
    worst = 0.0
    for which in ("target", "draft"):
        model = build(which, tok).eval()
        for media, size in [((), (112, 112)), (("image",), (112, 112)), (("image", "audio"), (448, 448)), (("audio",), (112, 112)),
                            (("video",), (112, 112)), (("video", "audio", "image"), (336, 224))]:
            scenes = [world.make_scene(40 + i, media, size, 3.0, 1.4) for i in range(2)]
            rng = random.Random(3)
            asks = []
            for s in scenes:
                qs = (world.questions(s, rng) or world.text_questions(rng))[:3] + world.long_questions(s, rng)
                asks.append([(q.text, q.answer, q.kind, q.long) for q in qs])
            maker = Maker(tok, 1)
            plain = world.jpeg, world.mp3  # what the published processor is given has not been through either
            world.jpeg, world.mp3 = lambda pixels, quality: pixels, lambda wave: wave
            b = maker.make(media, 2, size, 3.0, 1.4, drop=0.0, scenes=scenes, asks=asks)
            world.jpeg, world.mp3 = plain
            with torch.no_grad():
                logits, _ = forward(model, b)
            owner, _ = b.owners()
            seen = 0
            number, base = {}, 0  # (scene, question) -> number of its segment
            for g in b.seg:
                for i in range(2):
                    for k in range(g.shape[1]):
                        for j, (q, a, _, _) in enumerate(asks[i]):
                            if tok.decode(g[i, k].tolist(), skip_special_tokens=False).startswith(q + "<|im_end|>"):
                                number[i, j] = base + i * g.shape[1] + k
                base += 2 * g.shape[1]
            for i, s in enumerate(scenes):
                for j, (q, a, _, _) in enumerate(asks[i]):
                    parts = []
                    for m in b.layout:
                        if isinstance(m, str):
                            parts.append({"type": m})
                    head = tok.decode(b.layout[0], skip_special_tokens=False)
                    messages = [{"role": "user", "content": parts + [{"type": "text", "text": q}]}]
                    if head.startswith("<|im_start|>system"):
                        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
                    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + a
                    kw = {}
                    if "image" in media:
                        kw["images"] = [world.render_image(s)]
                    if "video" in media:
                        kw["videos"] = [torch.from_numpy(world.render_clip(s)).permute(0, 3, 1, 2)]
                        kw["videos_kwargs"] = {"size": {"shortest_edge": 3136, "longest_edge": 401408}, "do_sample_frames": False, "fps": 2.0}
                    if "audio" in media:
                        kw["audio"] = [world.render_sound(s)]
                    inputs = processor(text=text, return_tensors="pt", **kw)
                    model.rope_deltas = None
                    with torch.no_grad():
                        ref = model(**inputs).logits[0]
                    n = len(tok.encode(a).ids) + 1
                    mine = logits[owner == number[i, j]]
                    seen += n
                    gap = (mine - ref[-n:]).abs().max().item()
                    worst = max(worst, gap)
                    assert gap < 2e-3, (which, media, q, gap)
            assert seen == logits.shape[0]
        print(which, sum(p.numel() for p in model.parameters()), "parameters, worst gap so far", worst)


if __name__ == "__main__":
    main()
