"""Fixed inputs of lesson 04's exercises, but for those that need its networks."""

import torch
from torch import Tensor, nn

from .cases import normal, on_gpu
from .records import Case


def embedding_cases() -> list[Case]:
    plan = [((1, 2, 3, 500, 999), 32), ((1000, 7, 400, 40, 33, 2), 128), ((5, 3, 1, 8), 4), ((17,), 32)]
    plan += [((1, 0, 250), 6), ((12, 12, 1000, 7, 3), 32), ((2051, 12), 64)]
    cases = []
    for t, dim in plan:
        column = torch.tensor(t, device="cpu")[:, None]
        facts = {
            "for a batch of one": len(t) == 1,
            "for dim = 6": dim == 6,
            "where t has as many entries as there are features": len(t) == dim,
            "where t = 0": column == 0,
            "where t is more than 100": column > 100,
            "where t is more than 1,000": column > 1000,
            "for a second batch of the same size": t[0] == 12,
            "for frequencies below 1": (torch.arange(dim) % (dim // 2) > 0)[None] & (column > 0),
            "in the second half of the features": (torch.arange(dim) >= dim // 2)[None],
        }
        cases.append(Case(f"t = {list(t)}, dim = {dim}", (torch.tensor(t, device="cpu"), dim), facts))
    return cases + on_gpu(cases[0])


def attention_cases() -> list[Case]:
    plan = [(2, 2, 6, 5), (2, 1, 5, 8), (3, 4, 7, 2), (1, 3, 3, 3), (2, 2, 1, 4), (2, 3, 5, 4), (2, 4, 9, 16)]
    cases = []
    for seed, shape in enumerate(plan):
        facts = {
            "for more than one head": shape[1] > 1,
            "for a single position": shape[2] == 1,
            "for odd d": shape[3] % 2 == 1,
            "where a query's weights differ": seed != 5 and shape[2] > 1,
            "for the last of the positions": (torch.arange(shape[2]) == shape[2] - 1)[:, None],
            "for a batch of one": shape[0] == 1,
            "for a batch of more than one": shape[0] > 1,
            "for views into other tensors, such as rearrange makes": shape == plan[-1],
        }
        qkv = tuple(1.5 * normal(shape, 40 + 3 * seed + i) for i in range(3))
        if seed == 5:
            qkv[0].zero_()
        if shape == plan[-1]:
            qkv = tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv)
        cases.append(Case(f"q, k, v of shape {shape}", qkv, facts))
    return cases + on_gpu(cases[0])


def pixel_cases() -> list[Case]:
    plan = [((2, 3, 4, 6), 2), ((2, 1, 4, 6), 2), ((2, 2, 6, 3), 3)]
    plan += [((3, 2, 4, 2), 1), ((2, 2, 8, 8), 4), ((1, 4, 4, 2), 2)]
    cases = []
    for seed, (shape, p) in enumerate(plan):
        facts = {
            "for more than one channel": shape[1] > 1,
            "where height and width differ": shape[2] != shape[3],
            "for a batch of more than one": shape[0] > 1,
            "for p = 1": p == 1,
            "for p of more than 2": p > 2,
            "for p other than 2": p != 2,
        }
        cases.append(Case(f"x of shape {shape}, p = {p}", (normal(shape, 60 + seed), p), facts))
    return cases + on_gpu(cases[0])


def paint_cases() -> list[Case]:
    plan = [((2, 2), 3, 2), ((3, 4), 3, 1), ((2, 3), 2, 2), ((4, 2), 4, 2)]
    plan += [((1, 1), 3, 2), ((3, 3), 2, 3), ((2, 5), 1, 2)]
    cases = []
    for seed, (shape, k, stride) in enumerate(plan):
        facts = {
            "for stride 2 and more": stride > 1,
            "for a stride other than 2": stride != 2,
            "for a kernel larger than 1 x 1": k > 1,
            "for a kernel other than 3 x 3": k != 3,
            "where kernels overlap": k > stride and shape != (1, 1),
            "where the kernel is smaller than the stride": k < stride,
            "where the kernel is not as large as the stride": k != stride,
            "where height and width differ": shape[0] != shape[1],
            "for a single pixel": shape == (1, 1),
            "where rows of x below the first paint": (torch.arange((shape[0] - 1) * stride + k) >= stride)[:, None]
            & (shape[0] > 1),
        }
        label = f"x of shape {shape}, kernel {k} x {k}, stride {stride}"
        cases.append(Case(label, (normal(shape, 80 + seed), normal((k, k), 90 + seed), stride), facts))
    return cases + on_gpu(cases[0])


def width_cases() -> list[Case]:
    plan = [
        ((32, 64), 1), ((16, 32, 64), 1), ([48, 96], 2), ((8,), 1), ((64, 32), 1),
        ((16, 24, 24, 16), 2), ((16, 32, 64), 3),
    ]  # fmt: skip
    return [
        Case(
            f"widths {widths}, blocks = {blocks}",
            (widths, blocks),
            {
                "for more than one level": len(widths) > 1,
                "for more than two levels": len(widths) > 2,
                "for two levels": len(widths) == 2,
                "for more than one block a level": blocks > 1,
                "where a width is less than the one above": list(widths) != sorted(widths),
                "where a width comes twice": len(set(widths)) < len(widths),
                "for widths in a list": isinstance(widths, list),
                "for the same widths with other blocks": widths == (16, 32, 64) and blocks == 3,
            },
        )
        for widths, blocks in plan
    ]


class Divided(nn.Module):
    """Takes only sizes that divide. The answer shows where each pixel stood, and how many there were in all."""

    def __init__(self, divisor: int):
        super().__init__()
        self.divisor, self.weight = divisor, nn.Parameter(torch.tensor(0.7, device="cpu"))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        if height % self.divisor or width % self.divisor:
            raise ValueError(f"height and width must be multiples of {self.divisor}, got {(height, width)}")
        rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
        code = t / 100 + (0 if y is None else 1 + y)
        average = (x / 2 + x.square()).mean(dim=(2, 3), keepdim=True)
        return self.weight * x * (1 + rows[:, None] / 8 + columns / 30) + average + code[:, None, None, None]


def size_cases() -> list[Case]:
    plan = [
        (4, (2, 1, 6, 7), None), (4, (3, 2, 8, 4), (1, 0, 3)), (8, (1, 1, 4, 20), None), (2, (2, 3, 5, 4), (4, 2)),
        (3, (2, 1, 7, 9), None), (4, (2, 1, 3, 3), None), (4, (2, 1, 8, 8), None),
    ]  # fmt: skip
    cases = []
    for seed, (divisor, shape, labels) in enumerate(plan):
        height, width = shape[2:]
        t = torch.tensor([733, 1, 48][: shape[0]], device="cpu")
        y = torch.tensor(labels, device="cpu") if labels else None
        facts = {
            "where nothing has to be padded": height % divisor == 0 and width % divisor == 0,
            "where height and width differ": height != width,
            "where labels are given": labels is not None,
            "for a batch of more than one": shape[0] > 1,
            "for a divisor other than 4": divisor != 4,
            "in the first row": (torch.arange(height) == 0)[:, None],
        }
        label = f"x of shape {shape}, divisor {divisor}, y = {labels}"
        cases.append(Case(label, (Divided(divisor), normal(shape, 130 + seed), t, y), facts))
    return cases


def perturbed(net: nn.Module, seed: int, training: bool, zero: str | None) -> nn.Module:
    """Layers that start at 0 would hide what comes before them; and what an exercise is to do, the layers cannot do.

    zero: the layers of this name are 0 after all: an answer that is right only then goes wrong before them
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, device="cpu")
            parameter.copy_(drawn / max(parameter[0].numel(), 4) ** 0.5 if parameter.ndim > 1 else 1 + 0.5 * drawn)
            if zero and zero in name:
                parameter.zero_()
    net.forward = called_in_a_circle
    return net.train(training)


def called_in_a_circle(*args):
    raise RecursionError("what you call here is the module that calls your function: the two would go round for ever")
