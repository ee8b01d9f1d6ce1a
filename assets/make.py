"""Make the bundled data again. Needs the original files of Fashion-MNIST, a font and a list of names for the emoji, or
scikit-image for the photograph.

    python assets/make.py fashion_mnist IDX_FOLDER                         the bundled subset, into assets/
    python assets/make.py fashion_mnist IDX_FOLDER --all --out FOLDER      all 70,000 images, same layout
    python assets/make.py emoji FONT NAMES                                 the pictures in colour, into assets/
    python assets/make.py photo                                            the photograph, into assets/
    python assets/make.py half CHECKPOINT                                  its weights in 16 bits, into assets/
    python assets/make.py strip                                            the README's picture, from the checkpoint
    python assets/make.py wall                                             the page of lesson 13, from its notebook

IDX_FOLDER holds the four .gz files: Debian's package `dataset-fashion-mnist` puts them into
/usr/share/datasets/fashion-mnist. FONT is NotoColorEmoji.ttf (Debian's `fonts-noto-color-emoji`, in
/usr/share/fonts/truetype/noto), NAMES is emoji-test.txt (`unicode-data`, in /usr/share/unicode/emoji).
"""

import argparse
import gzip
import hashlib
import io
import re
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
NAMES = ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
SPLITS = {"train": ("train", 2400), "test": ("t10k", 400)}  # file prefix, images of each class in the subset
ALIKE = re.compile(  # the same picture with the hands turned, or in another size
    "(?!twelve).* o’clock|.*-thirty|(black|white) (medium|medium-small|small) square|small (orange|blue) diamond"
)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file: two zero bytes, a type, the number of axes, their lengths (big-endian), the values."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return file.getvalue()


def fashion_mnist(idx: Path, out: Path, everything: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for split, (prefix, per_class) in SPLITS.items():
        images = read_idx(idx / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(idx / f"{prefix}-labels-idx1-ubyte.gz")
        # the first of each class, in the original order
        first = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))
        rows = np.arange(len(labels)) if everything else first
        table = {
            "image": [{"bytes": png(images[i]), "path": None} for i in rows],
            "label": labels[rows].astype(int).tolist(),
        }
        datasets.Dataset.from_dict(table, features=FEATURES).to_parquet(out / f"{split}-00000-of-00001.parquet")
        print(f"{split}: {len(rows)} images")


def emoji(font_file: Path, names_file: Path, out: Path) -> None:
    """Every emoji that is one character, on white. Of each group, every tenth is for testing."""
    out.mkdir(parents=True, exist_ok=True)
    font = ImageFont.truetype(font_file, 109)  # the one size that this font has
    kept, left_out, group = {}, Counter(), None  # kept: {group: [(name, picture)]}
    for line in names_file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        if not (row := re.match(r"([0-9A-F ]+?) *; fully-qualified +# \S+ E[0-9.]+ (.+)", line)):
            continue
        character = "".join(chr(int(code, 16)) for code in row[1].split() if code != "FE0F")  # FE0F: in colour, please
        if group == "Flags":
            left_out["flags"] += 1
        elif len(character) > 1:
            left_out["of several characters"] += 1
        elif ALIKE.fullmatch(row[2]):
            left_out["like another"] += 1
        else:
            kept.setdefault(group, []).append((row[2], glyph(character, font)))
    features = datasets.Features(FEATURES | {"label": datasets.ClassLabel(names=list(kept))})
    features["name"] = datasets.Value("string")
    for split in SPLITS:
        rows = [
            {"image": {"bytes": png(picture), "path": None}, "label": label, "name": name}
            for label, group in enumerate(kept.values())
            for i, (name, picture) in enumerate(group)
            if (i % 10 == 9) == (split == "test")
        ]
        # mixed, so that the first rows are of all classes, and in the same way on every machine
        rows.sort(key=lambda row: hashlib.sha256(row["name"].encode()).digest())
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(out / f"{split}-00000-of-00001.parquet")
        print(f"{split}: {len(rows)} images, {dict(Counter(row['label'] for row in rows))}")
    print("left out:", dict(left_out))
    print("drawn with Pillow", PIL.__version__)
    for source in (font_file, names_file):
        print(source.name, hashlib.sha256(source.read_bytes()).hexdigest())


def glyph(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """(32, 32, 3) uint8: the whole picture of a character in the middle, with one white pixel around it.

    All are a quarter of their size in the font, and the few that are larger than most a little smaller.
    """

    def draw(text: str) -> Image.Image:
        drawing = Image.new("RGBA", (256, 256), (255, 255, 255, 0))
        ImageDraw.Draw(drawing).text((60, 60), text, fill="black", font=font, embedded_color=True)
        return drawing

    drawing = draw(character)
    box = drawing.getchannel("A").getbbox()
    if drawing == draw("\uffff") or not box or min(box[:2]) == 0 or max(box[2:]) == 256:
        raise ValueError(f"the font has no picture of U+{ord(character):04X}, or one that does not fit")
    left, top, right, bottom = box
    side = max(right - left, bottom - top, 120)
    left, top = left - (side - right + left) // 2, top - (side - bottom + top) // 2
    opaque = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
    # cropped first, so that LANCZOS, which reaches three pixels far, leaves the border alone
    small = opaque.crop((left, top, left + side, top + side)).resize((30, 30), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (32, 32), "white")
    picture.paste(small, (1, 1))
    return np.asarray(picture)


def photo(out: Path) -> None:
    from skimage import data, transform

    picture = transform.resize(data.astronaut()[:400, 60:460], (128, 128), anti_aliasing=True)
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(out / "photo.png", optimize=True)


def half(checkpoint: Path, out: Path) -> None:
    from ddpm_course.training import load_checkpoint, save_checkpoint

    net, diffusion, about = load_checkpoint(checkpoint, "cpu")
    about = {name: value for name, value in about.items() if name not in ("network", "predicts", "variance")}
    save_checkpoint(out / checkpoint.name, net.half(), diffusion, **about)


def strip(out: Path) -> None:
    """Three garments on their way out of noise: x_t at ten of the sampler's 50 steps, one garment a row."""
    import torch
    from torchvision.utils import make_grid

    from ddpm_course.data import CLASS_NAMES
    from ddpm_course.samplers import ddim_steps
    from ddpm_course.training import load_pretrained

    net, diffusion, _ = load_pretrained(device="cpu")
    y = torch.tensor([CLASS_NAMES.index(name) for name in ("sneaker", "dress", "bag")])
    steps = ddim_steps(net, diffusion, (len(y), 1, 28, 28), 50, y=y, generator=torch.Generator().manual_seed(1))
    frames = [step.x.clamp(-1, 1) for step in steps]
    chosen = [frames[i] for i in (0, 14, 21, 26, 31, 36, 40, 44, 47, 49)]
    pixels = torch.stack(chosen, dim=1).flatten(0, 1).repeat_interleave(3, 2).repeat_interleave(3, 3)
    grey, opaque = (make_grid(x, nrow=len(chosen), padding=6)[0] for x in ((pixels + 1) / 2, torch.ones_like(pixels)))
    grid = torch.stack([grey, opaque], dim=2)  # between the images it is transparent, for light and dark pages
    Image.fromarray((grid * 255).round().byte().numpy(), "LA").save(out / "strip.png", optimize=True)


def wall(out: Path) -> None:
    import wall

    wall.draw(wall.table(), out / "bug_clinic.pdf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the bundled data again.")
    parser.add_argument("what", choices=["fashion_mnist", "emoji", "photo", "half", "strip", "wall"])
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    if len(args.sources) != {"fashion_mnist": 1, "emoji": 2, "half": 1}.get(args.what, 0):
        parser.error("fashion_mnist needs IDX_FOLDER, emoji FONT and NAMES, half CHECKPOINT, the others nothing")
    if args.what == "fashion_mnist":
        fashion_mnist(*args.sources, args.out or HERE / "fashion_mnist", args.all)
    elif args.what == "emoji":
        emoji(*args.sources, args.out or HERE / "emoji")
    else:
        {"photo": photo, "half": half, "strip": strip, "wall": wall}[args.what](*args.sources, args.out or HERE)
