"""Where a training runs: the device, its precision, and the other processes of the same training (lesson 07)."""

import atexit
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def best_device() -> torch.device:
    """CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """The precision of the network's matrix products: bfloat16, float16 (with loss scaling), or None for float32.

    Only CUDA gains from it in this course: bfloat16 where the GPU has it in hardware, as an A100 has; a T4 emulates it.
    """
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def even_slices(n: int, count: int) -> list[slice]:
    """n rows in `count` parts, all of which begin at even rows: self-conditioning serves every second row."""
    return [slice(*ends) for ends in pairwise([*(2 * (i * n // (2 * count)) for i in range(count)), n])]


@dataclass(frozen=True)
class Team:
    """The processes that `torchrun` started for one training; a team of one where it did not.

    They all draw the data order, t and noise of the whole batch from the same seed, and each works on its share of the
    batch; DistributedDataParallel averages their gradients. So N processes train the network that one would.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device | str | None = None) -> "Team":
        """Meet the other processes, each on a GPU of its own where there are any (NCCL), else on the CPU (gloo)."""
        if not (dist.is_available() and dist.is_torchelastic_launched()):
            return cls(torch.device(device) if device else best_device())
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda":
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                raise ValueError(f"torchrun started more processes than the {gpus} GPUs of this machine")
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)
        return cls(device, dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.leads:
            print(line, flush=True)

    def share(self, n: int) -> slice:
        """This process's part of n rows."""
        return even_slices(n, self.size)[self.rank]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of every process's value, in all of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def any(self, here: bool) -> bool:
        """Whether it is so in one of the processes at least; the same answer in all of them."""
        return here if self.size == 1 else self.mean(torch.tensor(float(here), device=self.device)).item() > 0

    def told(self, value: Any) -> Any:
        """What the leading process passed here, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]


def _leave() -> None:
    """Leave the other processes, once gloo's threads have let go of the last tensors they were given.

    A thread that still holds one when the interpreter ends waits for a lock that is gone, and aborts the process. The
    last result is here before its thread has tidied up, and torch has no call that waits for that.
    """
    time.sleep(0.2)
    dist.destroy_process_group()
