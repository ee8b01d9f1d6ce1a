"""Where a step's pictures come from: rows of a set in memory, or a stream of batches (lesson 07)."""

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..arguments import as_labels
from ..pixels import as_images
from .devices import Team


class Batches:
    """Shuffled rows for ever: every image once before any comes again (but for the last, partial batch)."""

    def __init__(self, images: int, size: int, device: torch.device | str, generator: torch.Generator | None):
        self.images, self.size, self.device, self.generator = images, size, device, generator
        self.order, self.position = None, 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        """(size,) the numbers of the next images."""
        if self.order is None or self.position + self.size > self.images:
            self.order = torch.randperm(self.images, device=self.device, generator=self.generator)
            self.position = 0
        self.position += self.size
        return self.order[self.position - self.size : self.position]

    def state_dict(self) -> dict:
        return dict(order=self.order, position=self.position)

    def load_state_dict(self, state: dict) -> None:
        self.order = state["order"].to(self.device) if state["order"] is not None else None
        self.position = state["position"]


class Stream:
    """Batches of one size for ever, out of a source whose batches have any: for sets that do not fit into memory.

    source:  a DataLoader, or another iterable of batches, read again from its start when it ends; so a generator must
             not end. A batch is a tensor of images, (B, C, H, W), uint8 or floats in [-1, 1], or a pair of images and
             (B,) labels. Where it, its sampler or its data set has a set_epoch, as DistributedSampler and `datasets`
             have, that is called before every reading.
    size:    images in a batch of ours, all of one shape and type
    classes: of the network; None leaves labels out
    team:    each of its processes gives a source of its own, with its own share of the images

    A training that goes on later continues a source where it was if that has state_dict and load_state_dict, which
    return and take plain values and tensors, in a team of one. Any other source is read from its start, as the next
    epoch. Weights, optimizer, average, and the generator of t and noise are always what they were.
    """

    def __init__(self, source: Iterable, size: int, classes: int | None, team: Team):
        self.source, self.size, self.classes, self.team = source, size, classes, team
        self.epoch, self.iterator = 0, None
        self.pieces: list[tuple[Tensor, ...]] = []  # read and not used yet: (images,) or (images, labels) each
        self.kind = None  # what all pieces have in common, once there is one

    def __next__(self) -> tuple[Tensor, Tensor | None]:
        """(size, C, H, W) images, and (size,) labels or None, where the source has them.

        raises ValueError for what is no batch, or unlike the first; a source that has ended; two processes that read
               the same images
        """
        begins = self.kind is None
        while sum(len(piece[0]) for piece in self.pieces) < self.size:
            self.pieces.append(self._read())
        columns = [c[0] if len(c) == 1 else torch.cat(c) for c in zip(*self.pieces, strict=True)]
        self.pieces = [tuple(column[self.size :] for column in columns)]
        images, labels = ([column[: self.size] for column in columns] + [None])[:2]
        if begins:
            self._check_first(images)
        return images, labels

    def _read(self) -> tuple[Tensor, ...]:
        if self.iterator is None:
            self._begin()
        batch = next(self.iterator, None)
        if batch is None:
            self.epoch += 1
            self._begin()
            batch = next(self.iterator, None)
        if batch is None:
            raise ValueError("the stream of images has ended: give a DataLoader, which can be read again and again")
        parts = batch if isinstance(batch, list | tuple) else [batch]
        images = as_images("the images of the stream", parts[0])
        if images.ndim != 4 or not len(images) or len(parts) > 2:
            raise ValueError(
                "a batch of the stream must be images of shape (B, C, H, W), or a pair of such images and labels; got "
                f"{len(parts)} things, the first of shape {tuple(images.shape)}"
            )
        piece = (images,)
        if len(parts) == 2 and self.classes is not None:
            piece = images, as_labels("the labels of the stream", parts[1], len(images), self.classes)
        kind = tuple(images.shape[1:]), images.dtype, len(piece) == 2
        self.kind = self.kind or kind
        if kind != self.kind:
            was, now = (f"{dtype} {shape}, with{'' if y else 'out'} labels" for shape, dtype, y in (self.kind, kind))
            raise ValueError(f"the images of the stream must be of one kind: first came {was}, and then {now}")
        return piece

    def _begin(self) -> None:
        for part in (self.source, *(getattr(self.source, name, None) for name in ("sampler", "dataset"))):
            if hasattr(part, "set_epoch"):
                part.set_epoch(self.epoch)
        self.iterator = iter(self.source)

    def _check_first(self, images: Tensor) -> None:
        """What no single batch tells for certain, but the first one tells well enough."""
        if images.is_floating_point() and images.min() >= 0:
            raise ValueError("the stream's first images have no value below 0: floats must lie in [-1, 1] (2 x - 1)")
        mine = hashlib.sha256(images.cpu().contiguous().numpy()).hexdigest()
        if self.team.any(self.team.told(mine) == mine and not self.team.leads):
            raise ValueError("two processes read the same images: give each its share, with a DistributedSampler, say")

    def state_dict(self) -> dict:
        if self.team.size > 1 or not hasattr(self.source, "state_dict"):
            return dict(epoch=self.epoch, source=None)
        # clones, as a slice would take the whole of what it is a slice of into the file
        pieces = [[x.clone() for x in piece] for piece in self.pieces]
        return dict(epoch=self.epoch, source=self.source.state_dict(), pieces=pieces)

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.pieces = state["epoch"] + 1, []
        if state["source"] is not None and self.team.size == 1 and hasattr(self.source, "load_state_dict"):
            self.epoch, self.pieces = state["epoch"], [tuple(piece) for piece in state["pieces"]]
            self.source.load_state_dict(state["source"])
        self._begin()  # now, since it may draw from the generator that is set next
