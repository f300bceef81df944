"""Several single-threaded processes that train one model: gradients are averaged after every step.

On a CPU two processes of one thread each are faster than one process of two threads, because small layers do not
split well. Every process draws its own share of each batch, so ``processes`` changes which process computes a sample
and not which samples there are; a loss that compares samples is given those of all (``everyone``). With one process
nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    if size() > 1:
        dist.barrier()


def share(items: Sequence[Any]) -> list[Any]:
    """This process's part of a batch. The batch must divide evenly, so that the average is the batch's mean."""
    if len(items) % size():
        raise ValueError(f"a batch of {len(items)} cannot be shared by {size()} processes; change batch_size")
    return list(items)[rank() :: size()]


def everyone(own_RD: torch.Tensor) -> torch.Tensor:
    """(P R, D): the rows of all P processes, in the same order everywhere, for a loss that compares rows with each
    other. Every process must compute that whole loss. A gradient reaches the process's own rows only, P times as large,
    so that the average over the processes is the gradient of the whole loss."""
    if size() == 1:
        return own_RD
    parts = [torch.empty_like(own_RD) for _ in range(size())]
    dist.all_gather(parts, own_RD.detach().contiguous())
    if own_RD.requires_grad:
        parts[rank()] = own_RD.detach() + size() * (own_RD - own_RD.detach())
    return torch.cat(parts)


def average_gradients(parameters: Sequence[nn.Parameter], loss: torch.Tensor) -> float:
    """Average gradients and loss over the processes; returns the mean loss."""
    if size() == 1:
        return float(loss.detach())
    # a parameter that only some processes used (an expert, say) must be averaged by all of them, or they drift apart
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=loss.device)
    dist.all_reduce(present)
    with_gradient = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
    for parameter in with_gradient:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in with_gradient if p.grad is not None] + [loss.detach().view(1)])
    dist.all_reduce(flat)
    flat /= size()
    offset = 0
    for parameter in with_gradient:
        count = parameter.numel()
        assert parameter.grad is not None
        parameter.grad.copy_(flat[offset : offset + count].view_as(parameter))
        offset += count
    return float(flat[-1])


def launch(processes: int, work: Callable[[], None]) -> None:
    """Run ``work`` in ``processes`` processes that know each other; with one, simply call it."""
    if processes <= 1:
        work()
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_enter, args=(processes, port, work), nprocs=processes, join=True)


def _enter(number: int, processes: int, port: int, work: Callable[[], None]) -> None:
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group("gloo", rank=number, world_size=processes)
    torch.set_num_threads(1)
    try:
        work()
    finally:
        dist.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    """A killed launcher must not leave processes behind that go on training into the same folder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
