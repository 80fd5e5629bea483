"""Several processes train one model: each takes its rows of every batch, and gradients are summed.

Started by torchrun (RANK, WORLD_SIZE, MASTER_ADDR in the environment); alone, nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def join() -> tuple[int, int]:
    """Rank and number of the processes; joins them where the environment names several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if world > 1 and torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def local_rank() -> int:
    """Which of this machine's accelerators is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def mine(items: Sequence[T], rank: int, world: int) -> list[T]:
    """This process's share of a batch, about as long as everyone's: items come sorted by length."""
    return list(items[rank::world])


def add_up(tensors: Sequence[Tensor], world: int) -> None:
    """Sum each tensor over all processes, in place, in one message."""
    if world == 1:
        return
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def wait(world: int) -> None:
    """Until all processes are here."""
    if world > 1:
        distributed.barrier()
