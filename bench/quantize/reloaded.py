"""What a library's folder computes with once it is read again: run by file in that library's environment.

`PYTHON -I bench/quantize/reloaded.py FOLDER OUT.safetensors` loads FOLDER with transformers and writes every linear
layer's weights as the layer itself applies them, by what it makes of unit vectors; names as in the folder.
"""

# ruff: noqa: PLC0415 - transformers is only in that environment
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys


def main(folder: str, out: str) -> None:
    """Read and write."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    layers = {name: layer for name, layer in model.named_modules() if name.endswith("_proj")}
    width, weights = {}, {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: width.update({name: given[0].shape[-1]}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(torch.tensor([[1, 2]]))  # compressed-tensors unpacks at the first call
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            weights[f"{name}.weight"] = layer(torch.eye(width[name])).T.float().contiguous()
    save_file(weights, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
