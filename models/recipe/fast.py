"""Configs of the two models, and a forward pass for training that computes what transformers computes, only faster.

The published forward loops over windows and items; here all scenes of a batch have media of the same sizes, so that every
attention is one dense call. A scene is one row: a shared prefix (header and media) and several segments, each a question
with its answer, that see the prefix and themselves but not each other; positions restart after the prefix. That is the same
computation as one single-turn prompt a question, at the price of one prefix. `check.py` holds both against the original.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from tokenizer import MODEL_VOCAB

SIZES = {
    # text: hidden, layers, heads, kv heads, mlp; vision: hidden, layers, heads, mlp, full blocks; audio: d_model, layers, heads, mlp
    "target": dict(h=160, layers=5, heads=5, kv=1, mlp=400, vh=96, vlayers=4, vheads=4, vmlp=256, full=[3], ad=96, alayers=2, aheads=4, amlp=256),
    "draft": dict(h=160, layers=2, heads=5, kv=1, mlp=160, vh=96, vlayers=2, vheads=4, vmlp=160, full=[], ad=96, alayers=2, aheads=4, amlp=256),
}


def config(which: str, tok) -> Qwen2_5OmniThinkerConfig:
    """The config of "target" or "draft"; `tok` is the tokenizers.Tokenizer that gives the special ids."""
    s = SIZES[which]
    tid = tok.token_to_id
    return Qwen2_5OmniThinkerConfig(
        text_config=dict(
            vocab_size=MODEL_VOCAB, hidden_size=s["h"], intermediate_size=s["mlp"], num_hidden_layers=s["layers"],
            num_attention_heads=s["heads"], num_key_value_heads=s["kv"], max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            pad_token_id=tid("<|endoftext|>"), eos_token_id=tid("<|im_end|>"), tie_word_embeddings=False,
        ),
        vision_config=dict(
            depth=s["vlayers"], hidden_size=s["vh"], intermediate_size=s["vmlp"], num_heads=s["vheads"], patch_size=14,
            spatial_merge_size=2, temporal_patch_size=2, window_size=112, out_hidden_size=s["h"], fullatt_block_indexes=s["full"],
        ),
        audio_config=dict(
            num_mel_bins=128, encoder_layers=s["alayers"], encoder_attention_heads=s["aheads"], encoder_ffn_dim=s["amlp"],
            d_model=s["ad"], max_source_positions=1500, n_window=100, output_dim=s["h"],
        ),
        audio_token_index=tid("<|AUDIO|>"), image_token_index=tid("<|IMAGE|>"), video_token_index=tid("<|VIDEO|>"),
        audio_start_token_id=tid("<|audio_bos|>"), audio_end_token_id=tid("<|audio_eos|>"),
        vision_start_token_id=tid("<|vision_bos|>"), vision_end_token_id=tid("<|vision_eos|>"),
        vision_token_id=tid("<|vision_pad|>"), user_token_id=tok.encode("user").ids[0], position_id_per_seconds=25,
        seconds_per_chunk=2, tie_word_embeddings=False, eos_token_id=tid("<|im_end|>"), pad_token_id=tid("<|endoftext|>"),
    )


def build(which: str, tok) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A fresh model; weights are normal with a deviation of 1/sqrt(fan in), which suits so small a width."""
    model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config(which, tok), attn_implementation="sdpa")
    depth = model.config.text_config.num_hidden_layers
    for name, p in model.named_parameters():
        if p.ndim >= 2:
            fan_in = p[0].numel()
            std = 0.02 if "embed_tokens" in name or "bos_eos" in name else fan_in**-0.5
            if name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight", "attn.proj.weight")):
                std *= (2 * depth) ** -0.5
            if "lm_head" in name:
                std *= 0.5
            torch.nn.init.normal_(p, std=std)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    return model


def weights(file: Path) -> dict[str, torch.Tensor]:
    """Weights of a run (model.pt or ckpt.pt) or of a directory that export.py has written, on the processor."""
    if file.is_dir():
        return {name: value.float() for name, value in load_file(file / "model.safetensors", device="cpu").items()}
    state = torch.load(file, map_location="cpu")
    return state.get("model", state)


LM_LAYERS = (0, 4)  # layers of the target that the draft starts from
VISION_LAYERS = (0, 3)


def inherit(draft, target) -> int:
    """Starts the draft from some layers of the target and from all else that it has; of a matrix that is smaller in the draft
    it takes the first rows and columns. Returns the number of tensors taken."""
    source = dict(target.named_parameters())
    taken = 0
    with torch.no_grad():
        for name, p in draft.named_parameters():
            part = name.split(".")
            if name.startswith("model.layers."):
                part[2] = str(LM_LAYERS[int(part[2])])
            if name.startswith("visual.blocks."):
                part[2] = str(VISION_LAYERS[int(part[2])])
            name = ".".join(part)
            if name in source:
                p.copy_(source[name][tuple(slice(n) for n in p.shape)])
                taken += 1
    return taken


def narrow(state: dict[str, torch.Tensor], model) -> dict[str, torch.Tensor]:
    """Weights for a model whose MLPs have fewer channels: those that have most to say, by the product of their three norms."""
    wanted, out = model.state_dict(), dict(state)
    for name in state:
        if not name.endswith("mlp.down_proj.weight") or name not in wanted or state[name].shape == wanted[name].shape:
            continue
        part = {key: name.replace("down_proj", key) for key in ("gate_proj", "up_proj", "down_proj")}
        norms = state[part["gate_proj"]].norm(dim=1) * state[part["up_proj"]].norm(dim=1) * state[part["down_proj"]].norm(dim=0)
        kept = norms.topk(wanted[name].shape[1]).indices.sort().values
        out[part["down_proj"]] = state[part["down_proj"]][:, kept]
        for key in ("gate_proj", "up_proj"):
            for end in (".weight", ".bias"):
                full = part[key].removesuffix(".weight") + end
                if full in state:
                    out[full] = state[full][kept]
    return out


@dataclass
class Batch:
    """Scenes with media of equal sizes. All tensors have B rows.

    layout: what the prefix is made of, in order: lists of token ids, or "image", "video", "audio"
    keep:   (B, P) indices into the prefix that are kept; dropped media tokens are not in the sequence at all
    pos:    (3, B, P) M-RoPE positions of the kept prefix tokens; `start` is the position of a segment's first token
    seg, label, weight: groups of segments of about equal length, each (B, K, L): ids, next-token labels or -100, loss weights
    kinds:  for each group B lists of K question kinds
    """

    layout: list = field(default_factory=list)
    keep: torch.Tensor | None = None
    pos: torch.Tensor | None = None
    start: int = 0
    seg: list = field(default_factory=list)
    label: list = field(default_factory=list)
    weight: list = field(default_factory=list)
    kinds: list = field(default_factory=list)
    image: torch.Tensor | None = None  # (B, N, 588) patches in 2x2 merge order; one frame, as both are equal
    image_grid: tuple[int, int] = (0, 0)
    video: torch.Tensor | None = None  # (B, T, 64, 1176)
    mel: torch.Tensor | None = None  # (B, 128, frames)
    image_aux: torch.Tensor | None = None  # (B, N/4, 7) what each cell shows, see batches.cells
    video_aux: torch.Tensor | None = None  # (B, T*16, 7) the same, with the direction in place of the glyph
    audio_aux: torch.Tensor | None = None  # (B, tokens) 0 silence, 1 to 3 pitch

    def to(self, device: str) -> None:
        """Moves all tensors to where the models compute."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device, non_blocking=True))
            elif name in ("seg", "label", "weight"):
                setattr(self, name, [t.to(device, non_blocking=True) for t in value])

    def flat(self, which: str) -> torch.Tensor:
        return torch.cat([g.flatten() for g in getattr(self, which)])

    def where(self) -> torch.Tensor:
        """Numbers of the labelled tokens, counted over all groups."""
        return (self.flat("label") >= 0).nonzero()[:, 0]

    def labels(self) -> torch.Tensor:
        return self.flat("label")[self.where()]

    def weights(self) -> torch.Tensor:
        return self.flat("weight")[self.where()]

    def owners(self) -> tuple[torch.Tensor, list[str]]:
        """For every labelled token the number of its segment, and the kind of every segment ("" where there is none)."""
        out, names, base = [], [], 0
        for g, kinds in zip(self.seg, self.kinds):
            B, K, L = g.shape
            out.append((torch.arange(B * K * L) // L) + base)
            base += B * K
            for row in kinds:
                names += row + [""] * (K - len(row))
        return torch.cat(out)[self.where()], names


_grids: dict = {}


def _grid(visual, gh: int, gw: int):
    """Window order, its inverse and rotary tables of one grid of patches."""
    key = (id(visual), gh, gw)
    if key not in _grids:
        thw = torch.tensor([[1, gh, gw]])
        window, cu = get_vision_window_index(thw, spatial_merge_size=2, window_size=112, patch_size=14)
        sizes = (cu[1:] - cu[:-1]).tolist()
        assert len(set(sizes)) == 1, "training sizes fill their windows"
        perm = (window[:, None] * 4 + torch.arange(4)).flatten()
        cos, sin = visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(thw, 2))
        _grids[key] = (perm, torch.argsort(window), cos[perm], sin[perm], sizes[0])
    return _grids[key]


def _rot(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def _linear(x: torch.Tensor, *layers) -> torch.Tensor:
    """Several linear layers over one input as a single product."""
    w = torch.cat([m.weight for m in layers])
    b = None if layers[0].bias is None else torch.cat([m.bias for m in layers])
    return F.linear(x, w, b)


def attend(q, k, v, attn_mask=None, is_causal=False):
    """Plain attention; for so many so small problems it is several times faster on a CPU than the fused kernels."""
    score = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    if attn_mask is not None:
        score = score + torch.zeros(attn_mask.shape, dtype=score.dtype).masked_fill(~attn_mask, -1e9)
    return score.softmax(-1).to(v.dtype) @ v


def _norm(x: torch.Tensor, m) -> torch.Tensor:
    return F.rms_norm(x, m.weight.shape, m.weight, m.variance_epsilon)


def vision(visual, patches: torch.Tensor, gh: int, gw: int) -> torch.Tensor:
    """Patches (B, N, 588 or 1176) in merge order to merged features (B, N/4, hidden)."""
    perm, back, cos, sin, win = _grid(visual, gh, gw)
    w = visual.patch_embed.proj.weight  # (vh, 3, 2, 14, 14)
    B, N, width = patches.shape
    w = w.sum(2) if width == 588 else w
    x = F.linear(patches, w.reshape(w.shape[0], -1)).float()[:, perm]
    heads = visual.config.num_heads
    cos, sin = cos[None, :, None], sin[None, :, None]
    for i, blk in enumerate(visual.blocks):
        at = blk.attn
        q, k, v = _linear(_norm(x, blk.norm1), at.q, at.k, at.v).view(B, N, 3, heads, -1).unbind(2)
        q, k = q * cos + _rot(q) * sin, k * cos + _rot(k) * sin
        n = N if i in visual.fullatt_block_indexes else win
        q, k, v = (t.reshape(B * N // n, n, heads, -1).transpose(1, 2).to(v.dtype) for t in (q, k, v))
        o = attend(q, k, v)
        x = x + at.proj(o.transpose(1, 2).reshape(B, N, -1))
        g, u = _linear(_norm(x, blk.norm2), blk.mlp.gate_proj, blk.mlp.up_proj).chunk(2, -1)
        x = x + blk.mlp.down_proj(F.silu(g) * u)
    x = _norm(x, visual.merger.ln_q).reshape(B, N // 4, -1)
    return visual.merger.mlp(x)[:, back]


def audio(tower, mel: torch.Tensor) -> torch.Tensor:
    """Log-mel (B, 128, frames), at most one chunk of 2 * n_window frames, to features (B, tokens, hidden)."""
    x = F.gelu(tower.conv2(F.gelu(tower.conv1(mel)))).transpose(1, 2)
    B, T, d = x.shape
    x = x + tower.positional_embedding.positional_embedding[:T]
    heads = tower.config.encoder_attention_heads
    for layer in tower.layers:
        at = layer.self_attn
        y = layer.self_attn_layer_norm(x)
        q, k, v = (m(y).view(B, T, heads, -1).transpose(1, 2) for m in (at.q_proj, at.k_proj, at.v_proj))
        o = attend(q, k, v)
        x = x + at.out_proj(o.transpose(1, 2).reshape(B, T, d))
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
    x = x[:, : T // 2 * 2].reshape(B, T // 2, 2, d).mean(2)
    return tower.proj(tower.ln_post(x))


def language(model, prefix: torch.Tensor, groups: list[torch.Tensor], pos: torch.Tensor, start: int, where: torch.Tensor):
    """Hidden states of the segment tokens whose numbers are in `where`.

    prefix (B, P, hidden) with positions pos (3, B, P); groups of segments (B, K, L, hidden), all starting at position `start`.
    Every segment sees the prefix and itself. `where` counts the tokens of all groups, one after the other.
    """
    lm = model.model
    cfg = model.config.text_config
    H, K = cfg.num_attention_heads, cfg.num_key_value_heads
    D = cfg.hidden_size // H
    B, P, h = prefix.shape
    shapes = [g.shape[:3] for g in groups]
    x = torch.cat([prefix.reshape(B * P, h)] + [g.reshape(-1, h) for g in groups])
    where_x = where + B * P
    seg_pos = [(torch.arange(L) + start).expand(3, b, k, L).reshape(3, 1, -1) for b, k, L in shapes]
    cos, sin = lm.rotary_emb(x, torch.cat([pos.reshape(3, 1, -1)] + seg_pos, 2))
    cos, sin = cos[0, :, None], sin[0, :, None]
    masks = [torch.cat([torch.ones(L, P, dtype=torch.bool), torch.ones(L, L, dtype=torch.bool).tril()], 1) for _, _, L in shapes]
    for n, layer in enumerate(lm.layers):
        last = n == len(lm.layers) - 1
        at = layer.self_attn
        qkv = _linear(_norm(x, layer.input_layernorm), at.q_proj, at.k_proj, at.v_proj).view(-1, H + 2 * K, D)
        qk, v = qkv[:, : H + K], qkv[:, H + K :]
        qk = (qk * cos + _rot(qk) * sin).to(v.dtype)
        q, k = qk[:, :H], qk[:, H:].repeat_interleave(H // K, 1)
        v = v.repeat_interleave(H // K, 1)
        pq, pk, pv = (t[: B * P].view(B, P, H, D).transpose(1, 2) for t in (q, k, v))
        outs = []
        if not last:
            outs.append(attend(pq, pk, pv, is_causal=True).transpose(1, 2).reshape(B * P, h))
        at_token = B * P
        for (b, n_seg, L), mask in zip(shapes, masks):
            m = b * n_seg * L
            gq, gk, gv = (t[at_token : at_token + m].view(b, n_seg, L, H, D).transpose(2, 3) for t in (q, k, v))
            gk = torch.cat([pk[:, None].expand(-1, n_seg, -1, -1, -1), gk], 3).flatten(0, 1)
            gv = torch.cat([pv[:, None].expand(-1, n_seg, -1, -1, -1), gv], 3).flatten(0, 1)
            o = attend(gq.flatten(0, 1), gk, gv, attn_mask=mask)
            outs.append(o.transpose(1, 2).reshape(m, h))
            at_token += m
        o = torch.cat(outs)
        if last:  # only what is asked for
            o, x = o[where], x[where_x]
        x = x + at.o_proj(o)
        g, u = _linear(_norm(x, layer.post_attention_layernorm), layer.mlp.gate_proj, layer.mlp.up_proj).chunk(2, -1)
        x = x + layer.mlp.down_proj(F.silu(g) * u)
    return _norm(x, lm.norm)


def forward(model, b: Batch, aux: torch.nn.Module | None = None, seen: list | None = None):
    """Logits at the labelled tokens (M, vocab), in the order of `Batch.labels()`, and the auxiliary loss.

    `seen` gets what the vision tower gives for each picture or clip of the prefix, (B, tokens, hidden), dropped tokens included.
    """
    emb = model.model.embed_tokens
    B = b.keep.shape[0]
    parts, aux_loss = [], torch.zeros(())
    for part in b.layout:
        if part == "image":
            f = vision(model.visual, b.image, *b.image_grid)
            if seen is not None:
                seen.append(f)
            if aux is not None:
                aux_loss = aux_loss + aux.cells(f, b.image_aux, aux.image)
        elif part == "video":
            T = b.video.shape[1]
            f = vision(model.visual, b.video.flatten(0, 1), 8, 8).reshape(B, T * 16, -1)
            if seen is not None:
                seen.append(f)
            if aux is not None:
                aux_loss = aux_loss + aux.cells(f, b.video_aux, aux.video)
        elif part == "audio":
            f = audio(model.audio_tower, b.mel)
            if aux is not None:
                aux_loss = aux_loss + F.cross_entropy(aux.audio(f).float().flatten(0, 1), b.audio_aux.flatten())
        else:
            f = emb(torch.tensor(part)).expand(B, -1, -1)
        parts.append(f)
    prefix = torch.cat([p.float() for p in parts], 1)
    prefix = prefix.gather(1, b.keep[:, :, None].expand(-1, -1, prefix.shape[-1]))
    where = b.where()
    hidden = language(model, prefix, [emb(g) for g in b.seg], b.pos, b.start, where)
    return model.lm_head(hidden), aux_loss


class Aux(torch.nn.Module):
    """Heads that are used in training only: what does this token show? They teach the encoders early and are thrown away."""

    def __init__(self, h: int):
        super().__init__()
        self.image = torch.nn.ModuleList([torch.nn.Linear(h, n) for n in (8, 8, 20, 9)])
        self.video = torch.nn.ModuleList([torch.nn.Linear(h, n) for n in (8, 8, 4, 9)])
        self.audio = torch.nn.Linear(h, 4)
        self.place = torch.nn.Linear(h, 5)  # centre of nothing, a shape, a card; and where that centre is

    def cells(self, f: torch.Tensor, target: torch.Tensor, heads) -> torch.Tensor:
        f, target = f.flatten(0, 1).float(), target.flatten(0, 1)
        out = self.place(f).float()
        loss = F.cross_entropy(out[:, :3], target[:, 4], torch.tensor([0.3, 1.0, 1.0]))
        if (here := target[:, 5] >= 0).any():
            loss = loss + 2 * F.smooth_l1_loss(out[here, 3:], target[here, 5:] / 250.0 - 2.0)
        for i, head in enumerate(heads):
            t = target[:, i]
            if i == 0:
                w = torch.ones(8)
                w[0] = 0.2
                loss = loss + F.cross_entropy(head(f), t, w)
            elif (here := t >= 0).any():
                loss = loss + F.cross_entropy(head(f[here]), t[here])
        return loss
