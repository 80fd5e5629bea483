"""A Llama in plain PyTorch: RMSNorm, rotary positions (Hugging Face's half-split layout), SwiGLU, tied embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; widths are multiples of 256, so that every GGUF format fits."""

    vocabulary: int = 2048
    hidden: int = 256
    inner: int = 768
    layers: int = 4
    heads: int = 4
    context: int = 512
    theta: float = 10_000.0
    epsilon: float = 1e-6


class Attention(nn.Module):
    """Causal self-attention over (batch, tokens, hidden)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        batch, tokens, hidden = x.shape
        split = (batch, tokens, self.heads, hidden // self.heads)
        query = rotated(self.q_proj(x).view(split).transpose(1, 2), turn)
        key = rotated(self.k_proj(x).view(split).transpose(1, 2), turn)
        value = self.v_proj(x).view(split).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, hidden))


class Feed(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One layer: attention, then feed-forward, each with its norm and its way around."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        self.mlp = Feed(shape)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, dropout: float) -> Tensor:
        x = x + functional.dropout(self.self_attn(self.input_layernorm(x), turn, mask), dropout)
        return x + functional.dropout(self.mlp(self.post_attention_layernorm(x)), dropout)


class Writer(nn.Module):
    """Names of the parts are Hugging Face's, so that the state dict is the file."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        cosine, sine = turns(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.begin(shape)

    def begin(self, shape: Shape) -> None:
        """Small weights; those that write into the residual stream smaller with depth (GPT-2)."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 if "embed" in name else 0.6 / math.sqrt(weight.shape[1]))
                if narrow:
                    weight.data.mul_(1 / math.sqrt(2 * shape.layers))

    def forward(
        self, ids: Tensor, places: Tensor | None = None, mask: Tensor | None = None, dropout: float = 0.0
    ) -> Tensor:
        """Token ids (batch, tokens) to hidden states (batch, tokens, hidden).

        `places` (batch, tokens) are the positions and `mask` (batch, 1, tokens, tokens) who may look at whom; without
        them the tokens stand in order and look back.
        """
        here = slice(ids.shape[1]) if places is None else places
        turn = (self.cosine[here], self.sine[here])
        if places is not None:
            turn = (turn[0][:, None], turn[1][:, None])
        x = functional.dropout(self.embed_tokens(ids), dropout)
        for layer in self.layers:
            x = layer(x, turn, mask, dropout)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits over the vocabulary; the embedding is the head."""
        return hidden @ self.embed_tokens.weight.T


def turns(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines (context, head / 2) of the rotary positions (Su et al. 2021)."""
    size = shape.hidden // shape.heads
    speed = 1.0 / shape.theta ** (torch.arange(0, size, 2).float() / size)
    angle = torch.arange(shape.context).float()[:, None] * speed
    return angle.cos(), angle.sin()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys (batch, heads, tokens, head) by their position."""
    cosine, sine = turn
    left, right = x.chunk(2, -1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1).to(x.dtype)


def num_parameters(model: nn.Module) -> int:
    """Parameters, the tied embedding counted once."""
    return sum(weight.numel() for weight in model.parameters())
