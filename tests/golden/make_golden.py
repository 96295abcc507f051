#!/usr/bin/env python3
"""Regenerate everything under tests/golden. See README.md.

    pip install -r requirements.txt
    python make_golden.py            # everything
    python make_golden.py models     # one part: media | models | pruned | preprocess | decoders
    python make_golden.py models qwen25-vl-windows omni-thinker
"""

import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch  # noqa: E402
import transformers  # noqa: E402

from oracle import cases, checkpoints, media, pruned  # noqa: E402
from oracle.paths import MODELS, link_equal_files  # noqa: E402

PARTS = ["media", "models", "pruned", "preprocess", "decoders"]


def main(args):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    if transformers.__version__ != "5.17.0":
        sys.exit(f"transformers 5.17.0 is required, found {transformers.__version__}")
    parts = [a for a in args if a in PARTS] or PARTS
    names = [a for a in args if a not in PARTS]
    unknown = set(names) - set(checkpoints.BY_NAME)
    if unknown:
        sys.exit(f"unknown model or part: {', '.join(sorted(unknown))}; models: {', '.join(checkpoints.BY_NAME)}")
    if "media" in parts:
        media.make()
    if "models" in parts:
        for spec in checkpoints.SPECS:
            if not names or spec.name in names:
                cases.make(spec)
        link_equal_files(MODELS)
    if "pruned" in parts:
        for spec in checkpoints.SPECS:
            if not names or spec.name in names:
                pruned.make(spec)
    if "preprocess" in parts:
        from oracle import preprocess

        preprocess.make()
    if "decoders" in parts:
        from oracle import decoders

        decoders.make()


if __name__ == "__main__":
    main(sys.argv[1:])
