"""Trains one of the two models on freshly drawn scenes.

    python train.py --which target --steps 3000 --out RUN
    python train.py --which draft --steps 2500 --out RUN2 --teacher RUN/model.pt

Every scene is new, so the accuracy in the log is that of unseen scenes. RUN/log.txt gets a line every 50 steps,
RUN/ckpt.pt is written every few minutes (--resume goes on from it), RUN/model.pt at the end.
The matrices of the layers are trained with Muon, everything else with AdamW. With --device cuda the scenes are still drawn by
the processor, by as many processes as --workers says.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F

import world
from batches import Maker
from fast import SIZES, Aux, Batch, build, forward, inherit, narrow, vision, weights
from tokenizer import build as build_tokenizer


def worker() -> tuple[int, int]:
    """Number of this drawing process, and how many there are. They draw on the processor, wherever training computes."""
    torch.set_num_threads(1)
    torch.set_default_device("cpu")
    info = torch.utils.data.get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


class Stream(torch.utils.data.IterableDataset):
    """An endless stream of steps, each a list of batches."""

    def __init__(self, tok_json: str, seed: int, first: int, steps: int, weights_file: Path, hard: float, rank: int, ranks: int, drop: float, seldom: float, batch: float, describe: float | None = None, often: list[str] | None = None):
        self.tok_json, self.seed, self.first, self.steps, self.weights_file, self.hard = tok_json, seed, first, steps, weights_file, hard
        self.rank, self.ranks, self.drop, self.seldom, self.batch, self.describe, self.often = rank, ranks, drop, seldom, batch, describe, often

    def __iter__(self):
        from tokenizers import Tokenizer

        me, workers = worker()
        maker = Maker(Tokenizer.from_str(self.tok_json), self.seed + self.first + 10_000 * self.rank + 100_000 * me, self.weights_file)
        maker.seldom, maker.hard = self.seldom, world.HARD - set(self.often or ())
        rng = random.Random(self.seed * 31 + self.first + 100_000 * me)  # sizes and mixes: the same on every rank, so that none waits
        torch.manual_seed(self.seed + self.first + 10_000 * self.rank + 100_000 * me)
        part = self.batch * (1.0 if self.ranks == 1 else 1.2 / self.ranks)
        for step in range(self.first + me, self.steps, workers):
            p = max(step / self.steps, self.hard)
            large = 0.04 if p < 0.15 else 0.2 if p < 0.5 else 0.33
            small = 0.6 if p < 0.1 else 0.3
            drop = 0.15 if p < 0.6 else self.drop
            long_share = self.describe if self.describe is not None else 0.6 if p < 0.3 else 0.4
            u = rng.random()
            size = (448, 448) if u < large else (112, 112) if u < large + small else rng.choice(world.SIZES[1:5])
            area = size[0] * size[1]
            n = round(part * (7 if area > 120_000 else 16 if area > 40_000 else 24))
            media = ("image", "audio") if rng.random() < 0.5 else ("image",)
            sound = rng.choice([1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
            out = [maker.make(media, n, size, 2.0, sound, many=8 if len(media) == 1 else 9, long_share=long_share, drop=drop)]
            if rng.random() < (0.5 if p < 0.5 else 0.35):
                out.append(maker.make(("audio",), round(part * (14 if p < 0.5 else 10)), sound=sound, many=6, long_share=0.3, drop=drop))
            else:
                out.append(maker.make(("video",), round(part * 12), duration=rng.choice([2.0, 3.0, 4.0]), many=5, long_share=0.4, drop=drop))
            if step % 2 == 0:
                out.append(maker.make((), round(part * 4), many=12))
            if p < 0.85:
                out.append(maker.crowd(round(part * 6)))
            yield out


class Crowds(Stream):
    """An endless stream of crowded pictures, for the vision tower alone."""

    def __iter__(self):
        from tokenizers import Tokenizer

        me, workers = worker()
        maker = Maker(Tokenizer.from_str(self.tok_json), self.seed + 20 + self.first + 10_000 * self.rank + 100_000 * me)
        for step in range(me, self.steps, workers):
            part = self.batch / self.ranks
            yield maker.crowd(round(14 * part)) if step % 2 else maker.crowd(round(40 * part), (112, 112))


def orthogonal(grad: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
    """What torch's Muon makes of a gradient (https://kellerjordan.github.io/posts/muon), in f32 where torch takes bf16. Emulated, that
    takes most of a step's time."""
    a, b, c = coefficients
    x = grad.T if grad.shape[0] > grad.shape[1] else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.shape[0] > grad.shape[1] else x


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--which", choices=["target", "draft"], required=True)
    ap.add_argument("--steps", type=int, required=True)
    ap.add_argument("--minutes", type=float, help="end so long after the start, if that is sooner; the learning rate falls accordingly. With one process and --hard 1")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--teacher", type=Path, help="distil from this target as well")
    ap.add_argument("--init", type=Path, help="start from these weights: model.pt, ckpt.pt, or an exported directory")
    ap.add_argument("--mlp", type=int, help="channels of the MLPs, of the language model and of the vision tower; of --init those that have most to say")
    ap.add_argument("--tower", action="store_true", help="with --init and --teacher: take the vision tower from layers of the teacher all the same")
    ap.add_argument("--hard", type=float, default=0.0, help="start the curriculum from this share of it")
    ap.add_argument("--vision-steps", type=int, default=0, help="first so many steps for the vision tower alone")
    ap.add_argument("--drop", type=float, default=0.5, help="share of media items that lose tokens, in the later part")
    ap.add_argument("--alike", type=float, default=0.0, help="with --teacher: how much the vision tower's features are to be like the teacher's")
    ap.add_argument("--seldom", type=float, default=1.0, help="share of the questions of world.HARD that are asked")
    ap.add_argument("--often", nargs="+", default=[], choices=sorted(world.HARD), metavar="KIND", help="kinds of world.HARD that --seldom leaves alone")
    ap.add_argument("--describe", type=float, help="share of the pictures that are described as well, from the beginning on")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--rank", type=int, default=0, help="number of this process, with --ranks")
    ap.add_argument("--ranks", type=int, default=1, help="processes that train together, each started with its own --rank")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--batch", type=float, default=1.0, help="scenes a step, as a multiple of the usual number")
    ap.add_argument("--device", default="cpu", help="where the models compute: cpu or cuda")
    ap.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    args = ap.parse_args()
    if args.minutes and (args.ranks > 1 or args.hard < 1):
        ap.error("--minutes goes with one process and --hard 1: each process has a clock of its own, and the curriculum goes by steps")
    if args.tower and not (args.init and args.teacher):
        ap.error("--tower goes with --init and --teacher")
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    # A processor without instructions for bf16 emulates them, several times slower than f32.
    quick = args.device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    if not quick:  # Muon has no setting for it
        torch.optim._muon._zeropower_via_newtonschulz = orthogonal
    if args.workers > 1:  # so many batches on their way would take more open files than a process may have
        torch.multiprocessing.set_sharing_strategy("file_system")
    if args.ranks > 1:  # so small a model keeps one core busy, not two: a process a core, gradients averaged
        import torch.distributed as dist

        args.out.mkdir(parents=True, exist_ok=True)
        dist.init_process_group("gloo", init_method=f"file://{args.out.resolve()}/sync", rank=args.rank, world_size=args.ranks)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tok = build_tokenizer()
    if args.mlp:
        SIZES[args.which].update(mlp=args.mlp, vmlp=args.mlp)
    model = build(args.which, tok).to(args.device).train()
    aux = Aux(model.config.text_config.hidden_size).to(args.device)
    teacher = None
    if args.teacher:
        teacher = build("target", tok).to(args.device).eval()
        teacher.load_state_dict(weights(args.teacher))
        if args.tower or not args.init:
            inherit(model, teacher)
    if args.init:
        begun = narrow(weights(args.init), model)
        if args.tower:  # the teacher's stays
            begun = {name: value for name, value in begun.items() if not name.startswith("visual.")}
        model.load_state_dict(begun, strict=not args.tower)
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inner = any(s in name for s in (".layers.", ".blocks.", ".merger.mlp."))
        (matrices if p.ndim == 2 and inner else rest).append(p)
    opts = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.03, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest + [p for n, p in aux.named_parameters() if "place" not in n], lr=args.lr * 0.7, betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.AdamW(aux.place.parameters(), lr=args.lr * 0.7, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    base = [o.param_groups[0]["lr"] for o in opts]
    first, spent, warm = 0, 0.0, 10 if args.init else 30 if args.teacher else 100
    ckpt = args.out / "ckpt.pt"
    if args.resume and ckpt.exists():
        state = torch.load(ckpt, map_location=args.device)
        model.load_state_dict(state["model"])
        aux.load_state_dict(state["aux"], strict=False)
        try:
            for o, s in zip(opts, state["opts"]):
                o.load_state_dict(s)
            warm = 1
        except ValueError:
            pass  # other auxiliary heads than then: the optimisers start afresh
        first, spent = state["step"], state["spent"]
    weights_file = args.out / "weights.json"
    stream = Stream(tok.to_str(), args.seed, first, args.steps, weights_file, args.hard, args.rank, args.ranks, args.drop, args.seldom, args.batch, args.describe, args.often)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=args.workers, prefetch_factor=4)
    log = (args.out / "log.txt").open("a")

    def average(part: torch.nn.Module) -> None:
        """Gradients of this part of the model averaged over the ranks, then clipped. Others must stay None: Muon makes a step of
        full size out of any gradient, however small."""
        if args.ranks > 1:
            params = list(part.parameters()) + list(aux.parameters())
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params])
            dist.all_reduce(flat)
            for p, g in zip(params, flat.div_(args.ranks).split([p.numel() for p in params])):
                p.grad = g.view_as(p)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def say(text: str) -> None:
        if args.rank:
            return
        print(text, flush=True)
        log.write(text + "\n")
        log.flush()

    def save(step: int) -> None:
        if args.rank:
            return
        state = {"model": model.state_dict(), "aux": aux.state_dict(), "opts": [o.state_dict() for o in opts], "step": step,
                 "spent": spent + time.time() - began}
        torch.save(state, ckpt.with_suffix(".tmp"))
        ckpt.with_suffix(".tmp").rename(ckpt)

    say(f"{args.which} {sum(p.numel() for p in model.parameters())} parameters, {vars(args)}")
    began = saved = time.time()
    right, asked = defaultdict(float), defaultdict(int)
    acc: dict[str, float] = {}
    losses: list[float] = []
    waited = 0.0
    if args.vision_steps:
        crowds = Crowds(tok.to_str(), args.seed, first, args.vision_steps, weights_file, 0, args.rank, args.ranks, args.drop, args.seldom, args.batch)
        losses_v: list[float] = []
        for step, b in enumerate(torch.utils.data.DataLoader(crowds, batch_size=None, num_workers=args.workers, prefetch_factor=6)):
            f = step / args.vision_steps
            for o, b0 in zip(opts, base):
                o.param_groups[0]["lr"] = b0 * min(1.0, (step + 1) / 50) * (1 - 0.7 * f)
                o.zero_grad(set_to_none=True)
            b.to(args.device)
            with torch.autocast(args.device, torch.bfloat16, enabled=quick):
                seen = vision(model.visual, b.image, *b.image_grid)
                if teacher is None:
                    loss = aux.cells(seen, b.image_aux, aux.image)
                else:  # the draft's tower learns to give what the target's gives
                    with torch.no_grad():
                        want = vision(teacher.visual, b.image, *b.image_grid).float()
                    loss = F.mse_loss(seen.float(), want) / want.var()
            loss.backward()
            average(model.visual)
            for o in opts:
                o.step()
            losses_v.append(loss.item())
            if (step + 1) % 100 == 0:
                say(f"vision step {step + 1} loss {sum(losses_v) / 100:.4f} {(time.time() - began) / 60:.1f} min")
                losses_v = []
        save(first)
    it = iter(loader)
    done = first
    start = time.time()
    for step in range(first, args.steps):
        t = time.time()
        f = step / args.steps
        if args.minutes:
            f = max(f, (t - start) / 60 / args.minutes)
            if f >= 1:
                break
        batches: list[Batch] = next(it)
        waited += time.time() - t
        rate = min(1.0, (step + 1 - first) / warm) * min(1.0, (1 - f) / 0.45) ** 1.0
        for o, b0 in zip(opts, base):
            o.param_groups[0]["lr"] = b0 * max(rate, 0.01)
            o.zero_grad(set_to_none=True)
        aux_weight = 0.0 if f > 0.85 or teacher is not None or args.init else max(0.15, 0.5 * (1 - f / 0.6))
        loss_sum = 0.0
        total = sum(float(b.weights().sum()) for b in batches if b.seg)
        for b in batches:
            b.to(args.device)
            if not b.seg and aux_weight == 0:
                continue
            if not b.seg:
                with torch.autocast(args.device, torch.bfloat16, enabled=quick):
                    aux_loss = aux.cells(vision(model.visual, b.image, *b.image_grid), b.image_aux, aux.image)
                (aux_weight * 0.5 * aux_loss).backward()
                continue
            labels, w = b.labels(), b.weights()
            with torch.autocast(args.device, torch.bfloat16, enabled=quick):
                seen: list[torch.Tensor] = []
                logits, aux_loss = forward(model, b, aux if aux_weight > 0 else None, seen)
                if teacher is not None:
                    with torch.no_grad():
                        wanted: list[torch.Tensor] = []
                        guide = forward(teacher, b, seen=wanted)[0].float()
            logits = logits.float()
            each = F.cross_entropy(logits, labels, reduction="none")
            loss = (each * w).sum() / total
            if teacher is not None:
                soft = F.kl_div(F.log_softmax(logits, -1), F.log_softmax(guide, -1), reduction="none", log_target=True).sum(-1)
                loss = 0.2 * loss + (soft * torch.where(w < 1, 1.0, w)).sum() / total
                # What each token of the media shows is taught directly too, which answers tell but seldom.
                for got, want in zip(seen, wanted):
                    alike = F.mse_loss(got.float(), want.float()) / want.float().var()
                    loss = loss + args.alike * alike
            (loss + aux_weight * aux_loss / len(batches)).backward()
            loss_sum += loss.item()
            good = (logits.argmax(-1) == labels).float()
            owner, names = b.owners()
            bad = torch.zeros(len(names)).index_add(0, owner, 1 - good)
            for name, x in zip(names, bad.tolist()):
                if name:
                    asked[name] += 1
                    right[name] += x == 0
        average(model)
        for o in opts:
            o.step()
        losses.append(loss_sum)
        if (step + 1) % 50 == 0:
            now = time.time() - began
            short = [k for k in asked if k not in ("describe", "choice")]
            mean = sum(right[k] for k in short) / max(1, sum(asked[k] for k in short))
            say(f"step {step + 1} loss {sum(losses) / len(losses):.4f} short {mean:.3f} {(spent + now) / 60:.1f} min, "
                f"{now / (step + 1 - first):.2f} s a step, waited {waited / (step + 1 - first):.2f}")
            losses = []
        if (step + 1) % 150 == 0 and args.rank == 0:
            acc = {k: right[k] / asked[k] for k in sorted(asked)}
            say("  " + " ".join(f"{k} {v:.2f}" for k, v in acc.items()))
            if teacher is None:  # the draft is to be sure of what is easy
                weights_file.with_suffix(".tmp").write_text(json.dumps({k: min(1.5, 0.2 + 2.5 * (1 - v)) for k, v in acc.items()}))
                weights_file.with_suffix(".tmp").rename(weights_file)
            right.clear()
            asked.clear()
        if time.time() - saved > 240:
            save(step + 1)
            saved = time.time()
        done = step + 1
    save(done)
    if args.rank == 0:
        torch.save(model.state_dict(), args.out / "model.pt")
    say(f"done in {(spent + time.time() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
