"""Networks to use, as files: the weights, and what is needed to build the network again and sample from it (lesson 06).

Reading one never runs code from it.
"""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..data import ASSETS
from ..diffusion import GaussianDiffusion
from ..files import write_atomically
from ..schedules import Schedule
from ..unet import UNet
from .devices import best_device

PRETRAINED = {"bundled": "fashion_unet", "emoji": "emoji_unet", "learned": "fashion_learned"}  # files of ASSETS
LARGEST = 2 << 30  # bytes of weights that a file may ask for: a hundred times what this course trains


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
    write_atomically(path, save(tensors, metadata={"about": json.dumps(about)}))


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
            _reject_claims(about["network"], {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        schedule = Schedule(tensors.pop("betas"), zero_snr=True)
        diffusion = GaussianDiffusion(schedule, about["predicts"], about["variance"])
        net = UNet(**about["network"])
        net.load_state_dict(tensors)
    except (ValueError, LookupError, TypeError, RuntimeError, OSError, SafetensorError) as e:
        raise ValueError(f"{path} is not a checkpoint of this course, or is damaged: {e}") from e
    return net.eval().to(device or best_device(), memory_format=torch.channels_last), diffusion, about


def _reject_claims(network: dict, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the network that a file asks for has the tensors that the file holds.

    It is built without memory for this: 300 bytes must not cost gigabytes or hours, nor a sparse file its size.
    """
    if 4 * sum(map(math.prod, shapes.values())) > LARGEST:
        raise ValueError(f"its tensors take more than {LARGEST >> 30} GB")
    if len(network["widths"]) * network.get("blocks", 1) > len(shapes):
        raise ValueError("it asks for more blocks than it has tensors")
    with torch.device("meta"):
        asked = {name: tuple(value.shape) for name, value in UNet(**network).state_dict().items()}
    if asked | {"betas": shapes.get("betas")} != shapes:
        name = next(name for name in [*asked, *shapes] if asked.get(name) != shapes.get(name) and name != "betas")
        raise ValueError(f"{name} has the shape {shapes.get(name)}, and the network asks for {asked.get(name)}")


def weights_file(path: str | Path) -> Path:
    """`path` with its suffix, given or not; "lr0.004" has none to replace, so `Path.with_suffix` will not do."""
    path = Path(os.path.expanduser(path))
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def load_pretrained(
    device: torch.device | str | None = None, name: str = "bundled"
) -> tuple[UNet, GaussianDiffusion, dict]:
    """A network that was trained on one of the bundled sets and knows its classes. See `load_checkpoint`.

    name:   "bundled" for the garments, "emoji" for the colour set, "learned" for garments with a learned variance
    raises  ValueError for another name
    """
    if name not in PRETRAINED:
        raise ValueError(f"the trained networks are {', '.join(PRETRAINED)}; got {name!r}")
    return load_checkpoint(ASSETS / PRETRAINED[name], device)
