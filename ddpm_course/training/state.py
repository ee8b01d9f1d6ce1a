"""What survives an interrupted training: the file it goes on from, and the stop button in the middle of a step.

Reading a file never runs code from it.
"""

import hashlib
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import remove_partials, written_beside
from .devices import Team
from .step import Training


class StateFile:
    """The file that an interrupted training goes on from, `path`, and beside it the one before, `path`.previous.

    path:  the file; or a folder that exists, in which every training has a file of its own
    about: what the training is made of, in words; a state with other words belongs to another training

    A line with the format and a digest comes first, then what torch.save made of the state. The digest finds every
    accident before anything is read; torch.load with weights_only=True refuses everything but tensors and plain values.
    """

    FORMAT = b"ddpm_course training state 1"

    def __init__(self, path: str | Path, about: dict):
        self.path, self.about = Path(os.path.expanduser(path)), {name: str(value) for name, value in about.items()}
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
        with written_beside(self.path, self.FORMAT + b" " + digest + b"\n" + content) as new:
            if self.path.exists():
                self.path.replace(self.previous)
            new.replace(self.path)  # killed between these two lines: `load` finds the previous one

    def load(self) -> dict | None:
        """The newest state that is whole; None where there is none yet. Says so where it is not the newest file's.

        raises ValueError if it belongs to another training, or if there are files but none of them is a whole state
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(self.path)
        if not self.path.exists() and not self.previous.exists():
            return None
        try:
            state = self._read(self.path)
        except ValueError as problem:
            state = self._fall_back(problem)
        then, now, usual = state["about"], self.about, "the default"
        differences = [
            f"{name} ({then.get(name, usual)} then, {now.get(name, usual)} now)"
            for name in then | now
            if then.get(name) != now.get(name)
        ]
        if differences:
            raise ValueError(
                f"{self.path} belongs to another training; what differs: {', '.join(differences)}. "
                "Give the same arguments as then, or another checkpoint=."
            )
        return state

    def _fall_back(self, problem: ValueError) -> dict:
        """The state before, where the newest file has a problem."""
        try:
            state = self._read(self.previous)
        except ValueError:
            raise ValueError(
                f"{problem}, and there is no good state before it: nothing to go on from. "
                "To start from the beginning, move it away or give another checkpoint=."
            ) from None
        now = ""
        if self.path.exists():
            damaged = self.path.with_name(self.path.name + ".damaged")
            self.path.replace(damaged)  # out of the way, so that the good one stays the previous one
            now = f" (it is now {damaged.name})"
        print(f"{problem}{now}: using the state before it, {self.previous.name}", flush=True)
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


class Keeper:
    """Writes the state of a training now and then, and finds it again; without a file it only has something to say.

    checkpoint: the file or folder of the state, as for `StateFile`; or None
    about:      what the training is made of
    minutes:    between two states
    team:       of whose processes the first one reads and writes
    raises      ValueError if there is a state already, but of another training or of no use
    """

    def __init__(self, checkpoint: str | Path | None, about: dict[str, Any], minutes: float, team: Team):
        self.checkpoint, self.seconds, self.team = checkpoint, 60 * minutes, team
        self.file = StateFile(checkpoint, about) if checkpoint is not None else None
        self.state = team.told(self.file.load() if self.file and team.leads else None)
        self.step: int | None = None  # the one whose state is in the file
        self.written = time.perf_counter()

    def resume(self, training: Training) -> None:
        """Bring the training to where its state left it, if there is one."""
        self.step = None  # a second attempt, at the same training, writes its own states
        if self.state is None:
            return
        if not training.load_state_dict(self.state):
            here = training.device.type
            self.team.say(f"its state comes from another kind of device: on {here}, other random numbers follow")
        run, self.step = training.run, training.run.step
        place = f"step {run.step:,}" + (f" of {run.steps:,}" if run.steps is not None else "")
        if run.step == run.steps:
            place = "nothing is left to do (to train again, delete it or give another checkpoint=)"
        self.team.say(f"going on from {self.checkpoint}: {place}")

    def save(self, training: Training) -> str:
        """Write the state, and return how it goes on from there. A full disk costs the state, not the training."""
        if self.file is None:
            return "with checkpoint= the same call could go on from here"
        run = training.run
        try:
            if self.step != run.step:
                self.file.save(training.state_dict())
            self.step = run.step
        except OSError as error:
            self.team.say(f"the state of step {run.step:,} could not be written ({error}){self.kept}")
        return "the same call goes on" + (f" from step {self.step:,}" if self.step else " from the start")

    def save_in_time(self, training: Training) -> None:
        """Save at the end, and when enough minutes have passed; the stop button waits until that is done."""
        run = training.run
        if self.file and (run.step == run.steps or time.perf_counter() - self.written >= self.seconds):
            with unbroken():
                self.save(training)
            self.written = time.perf_counter()

    @property
    def kept(self) -> str:
        """Which state is in the file, as a sentence that follows another one."""
        return f" {self.checkpoint} holds the state of step {self.step:,}." if self.step is not None else ""


@contextmanager
def unbroken(wanted: bool = True) -> Iterator[list]:
    """Let a step end when the stop button is pressed in the middle of it: KeyboardInterrupt comes afterwards.

    wanted: False lets it come at once
    yields  a list that is empty as long as nothing was pressed
    """
    before = signal.getsignal(signal.SIGINT)
    if not wanted or threading.current_thread() is not threading.main_thread() or not callable(before):
        yield []  # or no interrupt arrives here
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield pressed
    except RuntimeError:  # the workers of a DataLoader hear the signal too, and the batch that they owe does not come
        if not pressed:
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, None)


def digest(tensor: Tensor | None) -> str:
    """What tells a tensor from others: its shape, and the first digits of the SHA-256 of its values."""
    if tensor is None:
        return "none"
    values = tensor.detach().cpu().contiguous()
    return f"{' x '.join(map(str, values.shape))}, {hashlib.sha256(values.numpy()).hexdigest()[:12]}"


def description(net: nn.Module) -> str:
    """What tells a network from others, whatever its weights: its class, its size, and a digest of its make."""
    shapes = {name: (tuple(value.shape), str(value.dtype)) for name, value in net.state_dict().items()}
    make = hashlib.sha256(repr((getattr(net, "arguments", None), shapes)).encode()).hexdigest()
    return f"{type(net).__name__} of {sum(p.numel() for p in net.parameters()):,} weights, {make[:12]}"
