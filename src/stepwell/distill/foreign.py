"""Any other causal model of Hugging Face transformers, behind the same three functions as the plain Llama."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from stepwell.distill.lora import plain_state
from stepwell.errors import DistillError


class Passed(nn.Module):
    """Stands where the body was: what comes in as embeddings goes out as hidden states."""

    def forward(self, inputs_embeds: Tensor, **_: Any) -> BaseModelOutputWithPast:  # noqa: ANN401 - whatever is passed on
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)


class Cache:
    """Keys and values of what was read, as transformers keeps them."""

    def __init__(self) -> None:
        self.held = DynamicCache()
        self.length = 0

    def repeat(self, num: int) -> None:
        """Every row `num` times, side by side."""
        self.held.batch_repeat_interleave(num)

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on."""
        self.held.batch_select_indices(rows)


class Foreign(nn.Module):
    """A causal model of transformers: hidden states and logits apart, so that logits are made only where needed."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - any of hundreds of classes
        super().__init__()
        self.model = model
        asked = inspect.signature(model.base_model.forward).parameters
        self.cache_name = "cache" if "cache" in asked else "past_key_values"  # its name before transformers 5.24
        self.dropout, self.recompute, self.recomputing = 0.0, False, False

    @classmethod
    def read(cls, folder: Path) -> Foreign:
        """Read a folder. Raises DistillError."""
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DistillError(f"transformers cannot read the model: {error}", file=str(folder)) from error
        return cls(model)

    @property
    def context(self) -> int:
        """Tokens that fit; 0 where nothing says so."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 0)

    @property
    def head(self) -> Any:  # noqa: ANN401
        """The model without its body: head, scale and cap of the logits as each architecture has them."""
        head = copy.copy(self.model)
        head.__dict__["_modules"] = {**dict(self.model.named_children()), self.model.base_model_prefix: Passed()}
        return head

    def forward(
        self, ids: Tensor, places: Tensor | None = None, mask: Tensor | None = None, *, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states (batch, tokens, hidden); `mask` (batch, read) says which tokens are real."""
        if self.recompute and not self.recomputing:
            self.recomputing = True
            enable = getattr(self.model, "activation_checkpointing_enable", None)  # its name before transformers 5.24:
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
        read = {} if cache is None else {self.cache_name: cache.held}
        out = self.model.base_model(
            input_ids=ids,
            position_ids=places,
            attention_mask=None if mask is None else mask.long(),
            use_cache=cache is not None,
            **read,
        )
        if cache is not None:
            cache.length += ids.shape[1]
        hidden: Tensor = out.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states (tokens, hidden)."""
        logits: Tensor = self.head(inputs_embeds=hidden[None]).logits[0]
        return logits

    def cache(self, rows: int, room: int) -> Cache:  # noqa: ARG002 - grows by itself
        """An empty cache."""
        return Cache()

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """config.json and safetensors as transformers writes them."""
        weights = {name: weight.detach().to("cpu", dtype) for name, weight in plain_state(self.model).items()}
        self.model.save_pretrained(folder, state_dict=weights)
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
