"""Times Hugging Face `generate` on a model directory, for `cargo xtask prove serving`.

    python generate_speed.py --model DIR --dtype float32 --threads 2 [--modes eager,static,compile]

The model is loaded once; then each line of standard input is one measurement and gets one line on standard output:

    {"prompts": [[1, 2, 3], [4, 5, 6]], "new_tokens": 32, "repeats": 2, "modes": ["eager"]}
    {"decode_tokens_per_s": .., "prefill_tokens_per_s": .., "first_token_ms": .., "peak_anonymous_bytes": ..,
     "modes": {"decode": "eager", "prefill": "static", "first": "static"}, "prompt_tokens": .., "new_tokens": ..,
     "tokens": [[..], ..], "by_mode": {"eager": {..}}, "failed": {}}

The first line that it prints tells that it is ready, and what the weights and the bare process take. All prompts of one
measurement are equally long and make one batch; `generate` is greedy, with its cache, without any end-of-sequence id, so
that every answer has `new_tokens` tokens. The reference is given its best: sdpa attention, inference mode, the thread
count asked for, a warm-up with the very same shapes, and the fastest of its modes, figure by figure:

    eager    the default: a cache that grows
    static   a cache of fixed size
    compile  a static cache, and the model's forward through torch.compile

Where a machine is so slow (bf16 on a processor without instructions for it) that a measurement would take much longer
than `--seconds` in a mode, prompts and answers are cut for all modes, and the answer tells to how many tokens.

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
        # `generate` has copied the token to the processor: whatever the GPU does is done.
        self.times.append(time.perf_counter())

    def end(self):
        pass


def load(directory, dtype, device):
    config = transformers.AutoConfig.from_pretrained(directory)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        sys.exit(f"{directory}/config.json: transformers has no class {name!r}")
    model = kind.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa", local_files_only=True)
    model.eval().to(device)
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
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with Watch() as watch:
        generate(model, prompts, mode, new_tokens)
    on_device = torch.cuda.max_memory_allocated() if on_gpu else 0
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
            "peak_device_bytes": on_device,
        }
        if best is None:
            best = told
        else:
            # Each figure at its best: a pause of the machine spoils one run, not the reference.
            largest = ("decode_tokens_per_s", "prefill_tokens_per_s")
            best = {key: max(best[key], told[key]) if key in largest else min(best[key], told[key]) for key in told}
    return best, out[:, prompts.shape[1] :].tolist()


def affordable(model, prompts, new_tokens, repeats, seconds):
    """How many tokens of prompt and answer a measurement has time for: estimated by a short piece, at most what is asked."""
    piece = min(8, prompts.shape[1])
    runs = repeats + 1
    # The first run also pays for what is made once.
    for _ in range(2):
        clock = Clock()
        start = time.perf_counter()
        generate(model, prompts[:, :piece], "eager", 2, clock)
        times = clock.times[1:]
        per_prompt_token, step = (times[0] - start) / piece, max(times[1] - times[0], 1e-6)
        if (times[-1] - start) * runs > seconds:
            break
    # Half of the time for the prompt at most, and never less than a few steps.
    length = max(piece, min(prompts.shape[1], int(seconds / 2 / runs / per_prompt_token)))
    left = seconds / runs - length * per_prompt_token
    return length, max(min(3, new_tokens), min(new_tokens, int(left / step)))


def answer(model, request, default_modes, seconds, bare):
    prompts = torch.tensor(request["prompts"], device=model.device)
    repeats = request.get("repeats", 2)
    length, new_tokens = affordable(model, prompts, request["new_tokens"], repeats, seconds)
    prompts = prompts[:, :length]
    by_mode, failed, tokens = {}, {}, None
    for mode in request.get("modes", default_modes):
        try:
            by_mode[mode], given = measure(model, prompts, mode, new_tokens, repeats, bare)
            tokens = given if tokens is None else tokens
        except Exception as error:  # a mode that this machine cannot run is told, and the others count
            failed[mode] = f"{type(error).__name__}: {str(error)[:300]}"
    if not by_mode:
        return {"error": "no mode ran", "failed": failed}
    decode = max(by_mode, key=lambda mode: by_mode[mode]["decode_tokens_per_s"])
    prefill = max(by_mode, key=lambda mode: by_mode[mode]["prefill_tokens_per_s"])
    first = min(by_mode, key=lambda mode: by_mode[mode]["first_token_ms"])
    return {
        "decode_tokens_per_s": by_mode[decode]["decode_tokens_per_s"],
        "prefill_tokens_per_s": by_mode[prefill]["prefill_tokens_per_s"],
        "first_token_ms": by_mode[first]["first_token_ms"],
        "peak_anonymous_bytes": by_mode[decode]["peak_anonymous_bytes"],
        "peak_device_bytes": by_mode[decode]["peak_device_bytes"],
        "modes": {"decode": decode, "prefill": prefill, "first": first},
        "prompt_tokens": length,
        "new_tokens": new_tokens,
        "tokens": tokens,
        "by_mode": by_mode,
        "failed": failed,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--modes", default="eager,static")
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    # What transformers imports when a class is first named belongs to the bare process too.
    bare_model = transformers.Qwen2_5OmniThinkerForConditionalGeneration
    del bare_model
    torch.ones(64, 64) @ torch.ones(64, 64)
    bare = anonymous_bytes()
    model = load(args.model, getattr(torch, args.dtype), args.device)
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
            told = answer(model, json.loads(line), args.modes.split(","), args.seconds, bare)
        except (KeyError, TypeError, ValueError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
