"""Writes trained weights as a Hugging Face directory: bf16 weights, config, tokenizer, processor and generation settings, and
msao.json, which tells MSAO how clips are taken (the Omni processor's own default would scale small ones up).

    python export.py --which target --weights RUN/model.pt OUT_DIR

`--weights` may also be a checkpoint (ckpt.pt). `--earlier DIR --share 0.7` takes seven tenths of each weight from an exported directory
that these weights were trained further from, and the rest from them: between the two lies a model between the two (arXiv 2109.01903).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from fast import build, weights
from tokenizer import build as build_tokenizer, write


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--which", choices=["target", "draft"], required=True)
    ap.add_argument("--weights", type=Path, required=True)
    ap.add_argument("--earlier", type=Path, help="an exported directory to go back towards")
    ap.add_argument("--share", type=float, help="how far: 1 is all the way")
    ap.add_argument("out", type=Path)
    args = ap.parse_args()
    if (args.earlier is None) != (args.share is None):
        ap.error("--earlier and --share go together")
    if args.earlier and (not 0 <= args.share <= 1 or args.earlier.resolve() == args.out.resolve()):
        ap.error("--share is from 0 to 1, and --earlier another directory than the one that is written")
    tok = build_tokenizer()
    model = build(args.which, tok)
    state = weights(args.weights)
    if args.earlier:
        earlier = weights(args.earlier)
        state = {name: torch.lerp(value, earlier[name], args.share) for name, value in state.items()}
    model.load_state_dict(state)
    model.to(torch.bfloat16).save_pretrained(args.out)
    write(args.out, tok)
    config = json.loads((args.out / "config.json").read_text())
    config["architectures"] = ["Qwen2_5OmniThinkerForConditionalGeneration"]
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    clips = json.loads((args.out / "video_preprocessor_config.json").read_text())
    video = {k: clips[k] for k in ("fps", "min_pixels", "max_pixels")}
    (args.out / "msao.json").write_text(json.dumps({"video": video}) + "\n")
    (args.out / "model.safetensors").chmod(0o644)
    size = sum(p.stat().st_size for p in args.out.iterdir())
    print(args.out, sum(p.numel() for p in model.parameters()), "parameters,", size, "bytes")


if __name__ == "__main__":
    main()
