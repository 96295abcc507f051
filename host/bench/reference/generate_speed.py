"""Times Hugging Face `generate` on a model directory, for `cargo xtask prove serving`.

    python generate_speed.py --model DIR --dtype float32 --threads 2 [--modes eager,static,compile]

The model is loaded once; then each line of standard input is one measurement and gets one line on standard output:

    {"prompts": [[1, 2, 3], [4, 5, 6]], "new_tokens": 32, "repeats": 2, "modes": ["eager"]}
    {"mode": "eager", "decode_tokens_per_s": .., "step_ms": .., "prefill_tokens_per_s": .., "first_token_ms": ..,
     "peak_anonymous_bytes": .., "tokens": [[..], ..], "modes": {"eager": {..}}, "failed": {}}

The first line that it prints tells that it is ready, and what the weights and the bare process take. All prompts of one
measurement are equally long and make one batch; `generate` is greedy, with its cache, without any end-of-sequence id, so
that every answer has `new_tokens` tokens. The reference is given its best: sdpa attention, inference mode, the thread
count asked for, a warm-up with the very same shapes, and the fastest of its modes:

    eager    the default: a cache that grows
    static   a cache of fixed size
    compile  a static cache, and the model's forward through torch.compile

A mode that does not work on this machine is named under "failed" with its error. Memory is the peak of anonymous memory
during a run of its own, so that the watching does not disturb the clock, above the process that has only imported its
libraries.
"""

import argparse
import json
import sys
import threading
import time

import torch
import transformers


def anonymous_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


class Watch:
    """The peak of anonymous memory while it is open."""

    def __enter__(self):
        self.peak = anonymous_bytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        while not self.done.wait(0.002):
            self.peak = max(self.peak, anonymous_bytes())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.peak = max(self.peak, anonymous_bytes())


class Clock:
    """A streamer for `generate` that notes when each token is there. The prompt comes first."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def load(directory, dtype):
    config = transformers.AutoConfig.from_pretrained(directory)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        sys.exit(f"{directory}/config.json: transformers has no class {name!r}")
    model = kind.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa", local_files_only=True)
    model.eval()
    # Nothing may end an answer, and nothing but the largest logit may choose a token.
    model.generation_config = transformers.GenerationConfig(do_sample=False, use_cache=True, pad_token_id=0)
    return model


def options(mode, new_tokens):
    kwargs = {"max_new_tokens": new_tokens, "do_sample": False, "use_cache": True, "disable_compile": True}
    if mode != "eager":
        kwargs["cache_implementation"] = "static"
    if mode == "compile":
        compiling = transformers.CompileConfig(fullgraph=False, dynamic=False, mode="default")
        # Without it transformers compiles on GPUs only.
        compiling._compile_all_devices = True
        kwargs.update(disable_compile=False, compile_config=compiling)
    return kwargs


def generate(model, prompts, mode, new_tokens, streamer=None):
    with torch.inference_mode():
        return model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            streamer=streamer,
            **options(mode, new_tokens),
        )


def measure(model, prompts, mode, new_tokens, repeats, bare):
    """The fastest of `repeats` runs, after a run that warms up and is watched for its memory."""
    with Watch() as watch:
        generate(model, prompts, mode, new_tokens)
    best = None
    for _ in range(repeats):
        clock = Clock()
        start = time.perf_counter()
        out = generate(model, prompts, mode, new_tokens, clock)
        # The first note is of the prompt, before the model ran.
        times = clock.times[1:]
        assert len(times) == new_tokens and out.shape[1] == prompts.shape[1] + new_tokens, (len(times), out.shape)
        first, decode = times[0] - start, times[-1] - times[0]
        step = decode / max(new_tokens - 1, 1)
        batch, length = prompts.shape
        told = {
            "decode_tokens_per_s": batch / step if step > 0 else 0.0,
            "step_ms": 1e3 * step,
            "prefill_tokens_per_s": batch * length / first,
            "first_token_ms": 1e3 * first,
            "peak_anonymous_bytes": watch.peak - bare,
        }
        if best is None:
            best = told
        else:
            # Each figure at its best: a pause of the machine spoils one run, not the reference.
            largest = ("decode_tokens_per_s", "prefill_tokens_per_s")
            best = {key: max(best[key], told[key]) if key in largest else min(best[key], told[key]) for key in told}
    return best, out[:, prompts.shape[1] :].tolist()


def answer(model, request, default_modes, bare):
    prompts = torch.tensor(request["prompts"])
    new_tokens, repeats = request["new_tokens"], request.get("repeats", 2)
    modes, failed, tokens = {}, {}, None
    for mode in request.get("modes", default_modes):
        try:
            modes[mode], given = measure(model, prompts, mode, new_tokens, repeats, bare)
            tokens = given if tokens is None else tokens
        except Exception as error:  # a mode that this machine cannot run is told, and the others count
            failed[mode] = f"{type(error).__name__}: {str(error)[:300]}"
    if not modes:
        return {"error": "no mode ran", "failed": failed}
    best = max(modes, key=lambda mode: modes[mode]["decode_tokens_per_s"])
    return {"mode": best, **modes[best], "tokens": tokens, "modes": modes, "failed": failed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--modes", default="eager,static")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    # What transformers imports when a class is first named belongs to the bare process too.
    bare_model = transformers.Qwen2_5OmniThinkerForConditionalGeneration
    del bare_model
    torch.ones(64, 64) @ torch.ones(64, 64)
    bare = anonymous_bytes()
    model = load(args.model, getattr(torch, args.dtype))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    ready = {
        "ready": True,
        "bare_anonymous_bytes": bare,
        "weight_bytes": weights,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            told = answer(model, json.loads(line), args.modes.split(","), bare)
        except (KeyError, TypeError, ValueError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
