"""The processes that train one model together, as `torchrun` starts them; a process alone is rank 0 of 1.

    torchrun --nproc-per-node 2 script.py

A process joins the others when it begins to train and leaves them when it is done, so that a script is the same for
one process and for many. docs/decisions/0008 explains why gradients are summed here rather than by
`DistributedDataParallel`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tsdistill.errors import ArtifactError, ConfigError, must

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that `torchrun` sets for every process."""

T = TypeVar("T")

_joined = itertools.count()


class Ranks:
    """One process's view of all that train together.

    Every method with a result for all must be called by all ranks in the same order.

    Args:
        rank: Which one this is, from 0.
        size: How many there are.
        device: Where tensors must be to travel.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this rank writes and talks for all."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """This rank's part of some windows: neighbours, as many as the others have or one fewer, perhaps none."""
        return index if self.size == 1 else index.tensor_split(self.size)[self.rank]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: Tensor) -> Tensor:
        """Sum gradients, in place, and a loss over all ranks; a parameter without gradient anywhere keeps none."""
        if self.size == 1:
            return loss
        has = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=loss.device)
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
        ]
        flat = torch.cat([loss.reshape(1), has, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        loss, has, *summed = flat.split([1, len(has), *(gradient.numel() for gradient in gradients)])
        for parameter, gradient, n_ranks in zip(parameters, summed, has.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if n_ranks else None
        return loss[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order of rank; plain data."""
        if self.size == 1:
            return [value]
        content = json.dumps(value).encode()
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([len(content)], device=self.device))
        longest = max(int(length) for length in lengths)
        padded = torch.frombuffer(bytearray(content.ljust(longest)), dtype=torch.uint8).to(self.device)
        buffers = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(buffers, padded)
        return [json.loads(bytes(one.cpu().numpy())) for one in buffers]

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Sums by name, the same to the last bit on every rank; a rank may lack a name."""
        if self.size == 1:
            return values
        sums: dict[str, float] = {}
        for values_of_rank in self.gather(values):
            for name, value in values_of_rank.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def lead(self, act: Callable[[], T]) -> T | None:
        """Do on rank 0 what concerns files, and fail everywhere if it fails there; None on the others."""
        if self.size == 1:
            return act()
        done, problem = None, None
        if self.leads:
            try:
                done = act()
            except ArtifactError as error:
                problem = str(error)
        problem = self.gather(problem)[0]
        if problem is not None:
            raise ArtifactError(problem)
        return done

    def hand_out(self, content: bytes | None) -> bytes | None:
        """Rank 0's bytes, for all; what the others give is not looked at."""
        if self.size == 1:
            return content
        length = self.gather(None if content is None else len(content))[0]
        if length is None:
            return None
        wire = torch.empty(length, dtype=torch.uint8)
        if self.leads and content is not None:
            wire = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        wire = wire.to(self.device)
        distributed.broadcast(wire, 0)
        return bytes(wire.cpu().numpy())

    def agree(self, tensors: dict[str, Tensor]) -> None:
        """Give every rank rank 0's tensors, in place."""
        if self.size > 1:
            for _, tensor in sorted(tensors.items()):
                distributed.broadcast(tensor, 0)


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started along with this one; alone where it did not.

    A process group that is open already is used, and left open.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
        return
    size = _size()
    if size == 1:
        yield Ranks()
        return
    # A prefix of its own for every joining: a new group must not find the addresses that the last one left behind.
    store = PrefixStore(f"tsdistill-{next(_joined)}", _store())
    rank = int(os.environ["RANK"])
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Ranks(rank, size, device)
    finally:
        distributed.destroy_process_group()


def own_device(kind: str) -> torch.device:
    """The device of this rank: on a machine with several accelerators each process has one of its own."""
    if kind != "cuda" or _size() == 1:
        return torch.device(kind)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    n_devices = torch.cuda.device_count()
    if local >= n_devices:
        raise ConfigError(
            f"Every process must have a GPU of its own, got process {local + 1} on a machine with {n_devices}. Start "
            f'at most {n_devices} processes per machine, or train with device="cpu".'
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _size() -> int:
    """How many processes train together."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if not world_size.isdecimal() or int(world_size) < 1:
        raise ConfigError(
            must("WORLD_SIZE", "be a whole number above 0", world_size, "Start with torchrun, or unset it")
        )
    missing = [name for name in VARIABLES if name not in os.environ]
    if int(world_size) > 1 and missing:
        raise ConfigError(
            f"With WORLD_SIZE={world_size} the environment must also hold {', '.join(missing)}. Start with torchrun, "
            "which sets them, or unset WORLD_SIZE to train in one process."
        )
    return int(world_size)


@functools.cache
def _store() -> Any:
    """Where processes find each other; opened once, because its server must outlive every group."""
    return next(iter(rendezvous("env://")))[0]
