"""What training leaves on the disk: networks to use, and states to go on from (lessons 06 and 07).

A file is written whole under a name of its own, flushed to the disk and then renamed, so a reader never meets half of
one, and a crash or a full disk leaves what was there before. Reading one never runs code from it.
"""

import glob
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .data import ASSETS
from .devices import best_device
from .diffusion import GaussianDiffusion
from .schedules import Schedule
from .unet import UNet


def save_checkpoint(path: str | Path, net: UNet, diffusion: GaussianDiffusion, **about) -> None:
    """Write one file, path.safetensors: weights and betas, and in its header, as JSON, everything needed to use them
    and `about`.

    raises ValueError for another kind of network, which could not be built again; TypeError if `about` holds what JSON
           does not know; OSError if the file can't be written. What was there before is then untouched
    """
    net = getattr(net, "_orig_mod", net)  # what torch.compile wraps: with the ordinary names
    if not isinstance(net, UNet):
        raise ValueError(f"a checkpoint holds a UNet, which it can build again; got {type(net).__name__}")
    path = weights_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    tensors["betas"] = diffusion.schedule.beta[1:].contiguous()
    about = dict(network=net.arguments, predicts=diffusion.predicts, variance=diffusion.variance, **about)
    with _written(path, save(tensors, metadata={"about": json.dumps(about)})) as new:
        new.replace(path)
    _flush_folder(path.parent)


def load_checkpoint(path: str | Path, device: torch.device | str | None = None) -> tuple[UNet, GaussianDiffusion, dict]:
    """Read what `save_checkpoint` wrote: the network in evaluation mode, its diffusion, and what the header says.

    Nothing in the file is executed.
    raises FileNotFoundError if there is none at `path`; ValueError if the file is not such a checkpoint
    """
    path = weights_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            if "about" not in (file.metadata() or {}):
                raise ValueError("its header does not say how to build the network")
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        diffusion = GaussianDiffusion(Schedule(tensors.pop("betas")), about["predicts"], about["variance"])
        net = UNet(**about["network"])
        net.load_state_dict(tensors)
    except (ValueError, LookupError, TypeError, RuntimeError, OSError, SafetensorError) as e:
        raise ValueError(f"{path} is not a checkpoint of this course, or is damaged: {e}") from e
    return net.eval().to(device or best_device(), memory_format=torch.channels_last), diffusion, about


def weights_file(path: str | Path) -> Path:
    """`path` with its suffix, given or not; "lr0.004" has none to replace, so `Path.with_suffix` will not do."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def load_pretrained(device: torch.device | str | None = None) -> tuple[UNet, GaussianDiffusion, dict]:
    """The bundled checkpoint: a class-conditional network for Fashion-MNIST. See `load_checkpoint`."""
    return load_checkpoint(ASSETS / "fashion_unet", device)


class StateFile:
    """The file that an interrupted training goes on from, `path`, and beside it the one before, `path`.previous.

    path:  the file; or a folder that exists, in which every training has a file of its own
    about: what the training is made of, in words; a state with other words belongs to another training

    A line with the format and a digest comes first, then what torch.save made of the state. The digest finds every
    accident before anything is read; torch.load with weights_only=True refuses everything but tensors and plain values.
    """

    FORMAT = b"ddpm_course training state 1"

    def __init__(self, path: str | Path, about: dict):
        self.path, self.about = Path(path), {name: str(value) for name, value in about.items()}
        if self.path.is_dir():
            words = repr(sorted(self.about.items())).encode()
            self.path = self.path / f"training-{hashlib.sha256(words).hexdigest()[:12]}"
        self.previous = self.path.with_name(self.path.name + ".previous")

    def save(self, state: dict) -> None:
        """Write a new state; the one before is kept. OSError if it can't be written, and a good state is left."""
        buffer = io.BytesIO()
        torch.save(dict(state, about=self.about), buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest().encode()
        with _written(self.path, self.FORMAT + b" " + digest + b"\n" + content) as new:
            if self.path.exists():
                self.path.replace(self.previous)
            new.replace(self.path)  # killed between these two lines: `load` finds the previous one
        _flush_folder(self.path.parent)

    def load(self) -> dict | None:
        """The newest state that is whole; None where there is none yet. Says so where it is not the newest file's.

        raises ValueError if it belongs to another training, or if there are files but none of them is a whole state
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.partial"):
            if _PARTIAL.fullmatch(left_over.name.removeprefix(self.path.name)):  # not of another one, NAME.2
                left_over.unlink(missing_ok=True)  # of a training that was killed while it wrote
        if not self.path.exists() and not self.previous.exists():
            return None
        try:
            state = self._read(self.path)
        except ValueError as problem:
            try:
                state = self._read(self.previous)
            except ValueError:
                raise ValueError(
                    f"{problem}, and there is no good state before it: nothing to go on from. "
                    "To start from the beginning, move it away or give another checkpoint=."
                ) from None
            if self.path.exists():
                damaged = self.path.with_name(self.path.name + ".damaged")
                self.path.replace(damaged)  # out of the way, so that the good one stays the previous one
                problem = f"{problem} (it is now {damaged.name})"
            print(f"{problem}: using the state before it, {self.previous.name}", flush=True)
        differences = [
            f"{name} ({state['about'].get(name)} then, {now} now)"
            for name, now in self.about.items()
            if state["about"].get(name) != now
        ]
        if differences:
            raise ValueError(
                f"{self.path} belongs to another training; what differs: {', '.join(differences)}. "
                "Give the same arguments as then, or another checkpoint=."
            )
        return state

    def _read(self, path: Path) -> dict:
        if not path.exists():
            raise ValueError(f"{path} is missing")
        line, _, content = path.read_bytes().partition(b"\n")
        name, _, digest = line.rpartition(b" ")
        if not line and not content:
            raise ValueError(f"{path} is empty")
        if name != self.FORMAT:
            if name.startswith(self.FORMAT.rpartition(b" ")[0]):
                raise ValueError(f"{path} was written by another version of this course")
            raise ValueError(f"{path} is not a training state of this course")
        if digest != hashlib.sha256(content).hexdigest().encode():
            raise ValueError(f"{path} is cut short or damaged")
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as e:  # unpickling what is no state can raise anything
            raise ValueError(f"{path} holds something else than a training state; nothing in it was run") from e
        if not isinstance(state, dict) or not isinstance(state.get("about"), dict):
            raise ValueError(f"{path} is not a training state of this course")
        return state


def digest(tensor: Tensor | None) -> str:
    """What tells a tensor from others: its shape, and the first digits of the SHA-256 of its values."""
    if tensor is None:
        return "none"
    values = tensor.detach().cpu().contiguous()
    return f"{' x '.join(map(str, values.shape))}, {hashlib.sha256(values.numpy()).hexdigest()[:12]}"


_PARTIAL = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")  # what follows the name while a file is being written


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """A complete file beside `path`, on the disk, to be renamed to it; gone afterwards if it was not."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Bring the new names to the disk too; Windows has no such call."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # nor have some network drives
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
