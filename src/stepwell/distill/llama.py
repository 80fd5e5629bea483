"""A Llama in plain PyTorch: RMSNorm, rotary positions (the half-split layout), SwiGLU, grouped key/value heads.

Names of the parts are Hugging Face's, so that the state dict is the file. `runs` says which folders this code is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PER_TOKEN = 2
"""Dimensions of a mask that says of each token whether it is real."""
SHORT = 512
"""Texts so long at most are attended to by plain products where that is quicker."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the model. For GGUF's K formats widths are multiples of 256, for Q8_0 of 32."""

    vocabulary: int = 2048
    hidden: int = 256
    inner: int = 768
    layers: int = 4
    heads: int = 4
    context: int = 512
    theta: float = 10_000.0
    epsilon: float = 1e-6
    kv_heads: int = 0
    """Heads of keys and values; 0: as many as of queries."""
    head: int = 0
    """Width of one head; 0: hidden / heads."""
    tied: bool = True
    """The embedding is the head of the logits as well."""
    stretch: tuple[float, float, float, int] | None = None
    """Llama 3's stretched positions: factor, low and high frequency factor, original context."""

    @property
    def num_kv(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def width(self) -> int:
        """Width of one head."""
        return self.head or self.hidden // self.heads


class Normed(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) x weight (Zhang and Sennrich 2019); backward in a third of autograd's passes."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:  # noqa: ANN401 - autograd's own
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = size.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_().to(x.dtype)
        even = x * scale
        context.save_for_backward(even, weight, scale)
        return even * weight

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        even, weight, scale = context.saved_tensors
        along = gradient * even
        mean = (along @ weight)[..., None] / len(weight)
        inward = torch.addcmul(gradient * weight, even, mean, value=-1).mul_(scale)
        return inward, along.flatten(0, -2).sum(0), None


class Norm(nn.RMSNorm):
    """RMSNorm."""

    def forward(self, x: Tensor) -> Tensor:
        return Normed.apply(x, self.weight, self.eps) if torch.is_grad_enabled() else super().forward(x)


class Cache:
    """Keys and values of the tokens read so far: per layer (rows, key/value heads, room, head width)."""

    def __init__(self, shape: Shape, rows: int, room: int, like: Tensor) -> None:
        size = (rows, shape.num_kv, room, shape.width)
        self.keys = [torch.zeros(size, dtype=like.dtype, device=like.device) for _ in range(shape.layers)]
        self.values = [torch.zeros(size, dtype=like.dtype, device=like.device) for _ in range(shape.layers)]
        self.length = 0

    def repeat(self, num: int) -> None:
        """Every row `num` times, side by side."""
        self.keys = [key.repeat_interleave(num, 0) for key in self.keys]
        self.values = [value.repeat_interleave(num, 0) for value in self.values]

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]

    def add(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put what a layer has just read behind the rest; all of it."""
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


def side_by_side(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Several linear layers of the same input, as one multiplication where they are plain."""
    if any(type(layer) is not nn.Linear for layer in layers):
        return tuple(layer(x) for layer in layers)
    weights = [layer.weight for layer in layers]
    return tuple(functional.linear(x, torch.cat(weights)).split([len(weight) for weight in weights], -1))


class Attention(nn.Module):
    """Causal self-attention over (batch, tokens, hidden)."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.shape, self.number = shape, number
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.num_kv * shape.width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.num_kv * shape.width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.width, shape.hidden, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = (
            part.view(batch, tokens, -1, self.shape.width).transpose(1, 2)
            for part in side_by_side(x, self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotated(query, turn), rotated(key, turn)
        if cache is not None:
            key, value = cache.add(self.number, key, value)
        mixed = attended(query, key, value, mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Mix values (batch, key/value heads, read, head) by queries (batch, heads, tokens, head)."""
    batch, heads, tokens, width = query.shape
    num_kv, read = key.shape[1:3]
    if tokens == 1 and num_kv < heads:  # queries of one group lie where tokens would: nothing is copied
        folded = query.reshape(batch, num_kv, heads // num_kv, width)
        return functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask).reshape(query.shape)
    if query.dtype == torch.bfloat16 and query.device.type == "cpu" and tokens == read <= SHORT:
        return multiplied(query, key, value, mask)
    wide = (batch, num_kv, heads // num_kv, read, width)
    key, value = (part[:, :, None].expand(wide).flatten(1, 2) for part in (key, value))
    causal = mask is None and tokens > 1
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def multiplied(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """The same as plain products: for short texts twice as quick as PyTorch's bfloat16 kernel for CPUs."""
    batch, heads, tokens, width = query.shape
    num_kv = key.shape[1]
    if mask is None:
        mask = looks(torch.ones(1, tokens, dtype=torch.bool), tokens, query.dtype)
    folded = (query * width**-0.5).reshape(batch, num_kv, heads // num_kv * tokens, width)
    scores = (folded @ key.transpose(2, 3)).view(batch, heads, tokens, tokens)
    shares = functional.softmax(scores.add_(mask), -1)
    return (shares.view(batch, num_kv, -1, tokens) @ value).view(query.shape)


class Feed(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = side_by_side(x, self.gate_proj, self.up_proj)
        return self.down_proj(functional.silu(gate) * up)


class Layer(nn.Module):
    """One layer: attention, then feed-forward, each with its norm and its way around."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden, eps=shape.epsilon)
        self.self_attn = Attention(shape, number)
        self.post_attention_layernorm = Norm(shape.hidden, eps=shape.epsilon)
        self.mlp = Feed(shape)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None, dropout: float
    ) -> Tensor:
        x = x + dropped(self.self_attn(self.input_layernorm(x), turn, mask, cache), dropout)
        return x + dropped(self.mlp(self.post_attention_layernorm(x)), dropout)


class Llama(nn.Module):
    """Embedding, layers, norm; logits by `logits`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.recompute, self.dropout = shape, False, 0.0
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, number) for number in range(shape.layers))
        self.norm = Norm(shape.hidden, eps=shape.epsilon)
        if not shape.tied:
            self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        self.begin(shape)

    def begin(self, shape: Shape) -> None:
        """Small weights; those that write into the residual stream smaller with depth (GPT-2)."""
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 if "embed" in name else 0.6 / math.sqrt(weight.shape[1]))
                if narrow:
                    weight.data.mul_(1 / math.sqrt(2 * shape.layers))

    def forward(
        self,
        ids: Tensor,
        places: Tensor | None = None,
        mask: Tensor | None = None,
        dropout: float | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """Token ids (batch, tokens) to hidden states (batch, tokens, hidden).

        `places` (batch, tokens) are the positions. `mask` says who may look at whom (batch, 1, tokens, tokens), or
        which tokens, read ones first, are real (batch, read); without it all are, and look back.
        """
        share = (self.dropout if self.training else 0.0) if dropout is None else dropout
        x = dropped(self.embed_tokens(ids), share)
        turn = turns(self.shape, ids, places, x.dtype)
        look = None if mask is None else looks(mask, ids.shape[1], x.dtype)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, turn, look, None, share, use_reentrant=False)
            else:
                x = layer(x, turn, look, cache, share)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits over the vocabulary."""
        return functional.linear(hidden, self.embed_tokens.weight) if self.shape.tied else self.lm_head(hidden)

    def cache(self, rows: int, room: int) -> Cache:
        """Room for the keys and values of so many rows and tokens."""
        return Cache(self.shape, rows, room, self.embed_tokens.weight)


def dropped(x: Tensor, share: float) -> Tensor:
    """Dropout."""
    return functional.dropout(x, share) if share else x


def looks(mask: Tensor, tokens: int, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to the scores, once for all layers."""
    if mask.dim() == PER_TOKEN:
        read = mask.shape[1]
        back = torch.ones(tokens, read, dtype=torch.bool, device=mask.device).tril(read - tokens)
        mask = mask[:, None, None, :] & back
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def turns(shape: Shape, ids: Tensor, places: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (batch, 1, tokens, head / 2) of the rotary positions (Su et al. 2021)."""
    if places is None:
        places = torch.arange(ids.shape[1], device=ids.device)[None]
    angle = places.float()[:, None, :, None] * speeds(shape).to(ids.device)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def speeds(shape: Shape) -> Tensor:
    """How far each pair turns per position; slow pairs slower still where Llama 3 stretches its context."""
    speed = 1.0 / shape.theta ** (torch.arange(0, shape.width, 2).float() / shape.width)
    if shape.stretch is None:
        return speed
    factor, low, high, context = shape.stretch
    turns_made = context * speed / (2 * math.pi)
    share = ((turns_made - low) / (high - low)).clamp(0, 1)
    return speed * (share + (1 - share) / factor)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys (batch, heads, tokens, head) by their position."""
    cosine, sine = turn
    left, right = x.chunk(2, -1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)


def num_parameters(model: nn.Module) -> int:
    """Parameters, a tied embedding counted once."""
    return sum(weight.numel() for weight in model.parameters())


def runs(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a Llama that this file computes; any other is left to transformers."""
    rope = rope_of(config)
    return (
        config.get("model_type") == "llama"
        and config.get("hidden_act", "silu") == "silu"
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and rope.get("rope_type", rope.get("type", "default")) in {"default", "llama3"}
        and not config.get("quantization_config")
    )


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says about positions: transformers 5 has `rope_parameters`, before it were two keys."""
    old = {"rope_theta": config.get("rope_theta", 10_000.0), **(config.get("rope_scaling") or {})}
    return config.get("rope_parameters") or old


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The sizes in a config.json of a Llama."""
    rope = rope_of(config)
    stretch = None
    if rope.get("rope_type", rope.get("type")) == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        stretch = (float(rope[names[0]]), float(rope[names[1]]), float(rope[names[2]]), int(rope[names[3]]))
    return Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        context=config.get("max_position_embeddings", 2048),
        theta=float(rope.get("rope_theta", 10_000.0)),
        epsilon=config.get("rms_norm_eps", 1e-6),
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        head=config.get("head_dim") or 0,
        tied=bool(config.get("tie_word_embeddings", False)),
        stretch=stretch,
    )


def config_of(shape: Shape) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM, read by transformers 4 and 5 and by llama.cpp."""
    rope: dict[str, Any] = {"rope_theta": shape.theta, "rope_type": "default"}
    if shape.stretch is not None:
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        rope |= {"rope_type": "llama3", **dict(zip(names, shape.stretch, strict=True))}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.num_kv,
        "head_dim": shape.width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "rope_parameters": rope,
        "tie_word_embeddings": shape.tied,
        "attention_bias": False,
        "mlp_bias": False,
    }
