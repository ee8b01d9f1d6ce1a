"""Reading images: folders and data sets laid out as the hub's, every mode of a picture, accidents, and no network."""

import contextlib
import hashlib
import re
import runpy
import socket
import threading
import time
from pathlib import Path

import datasets
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_course import data
from ddpm_course.data import (
    ASSETS,
    CLASS_NAMES,
    EMOJI_CLASSES,
    clusters,
    load_images,
    load_photo,
    to_uint8,
    to_unit_range,
)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch, request):
    """`datasets` keeps what it has read: a test must not meet another test's, nor its reader's, nor their settings."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    if "bundled" not in request.node.name:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def flat(value=100, mode="L", size=(12, 12), transparent=None):
    picture = Image.new("L", size, value).convert(mode)
    if transparent is not None:
        picture.info["transparency"] = transparent  # the one grey, or entry of the palette, that is not seen
    return picture


def deep(value, dtype):
    return Image.fromarray(np.full((12, 12), value, dtype))


def write(folder, files):
    """Pictures, or bytes, under their names; returns the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content.save(folder / name) if isinstance(content, Image.Image) else (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("side", [4, 5])
def test_clusters_find_pictures_that_are_alike_and_end_where_no_picture_is_nearer_to_another_mean(side):
    """Three kinds of pictures far apart, as bytes and floats; and the fixed point of k-means on pictures of no kind."""
    g = torch.Generator().manual_seed(0)
    kinds, noise = torch.arange(60) % 3, torch.randn(60, 2, side, side, generator=g)
    floats = (kinds.float() - 1).reshape(-1, 1, 1, 1) * 0.8 + 0.05 * noise
    for images in (floats.clamp(-1, 1), to_uint8(floats)):
        found = clusters(images, 3, generator=torch.Generator().manual_seed(3))
        assert found.dtype == torch.int64
        assert all(len(found[kinds == kind].unique()) == 1 for kind in range(3)) and len(found.unique()) == 3
    found = clusters(noise, 5, generator=g)
    x = torch.nn.functional.avg_pool2d(noise, 2, ceil_mode=True).flatten(1)
    means = torch.stack([x[found == label].mean(0) for label in range(5)])
    own = (x - means[found]).norm(dim=1)
    assert all((own <= (x - mean).norm(dim=1) + 1e-5).all() for mean in means)


@pytest.mark.parametrize(
    ("images", "count", "complaint"),
    [
        (torch.zeros(4, 8, 8), 2, r"images must have shape \(N, C, H, W\), got \(4, 8, 8\)"),
        (torch.zeros(4, 1, 8, 8), 5, "count must be a whole number from 1 to 4, one for each picture"),
        (torch.full((4, 1, 8, 8), 200.0), 2, r"images must be uint8 0…255, or floats in \[-1, 1\]"),
    ],
)
def test_what_clusters_cannot_use(images, count, complaint):
    with pytest.raises(ValueError, match=complaint):
        clusters(images, count)


def test_ranges_are_inverse_for_every_level():
    """What lies outside is clamped, not wrapped; the rest is rounded (127.5 to even), not cut off."""
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_unit_range(levels)
    assert x.dtype == torch.float32 and (x - torch.linspace(-1, 1, 256)).abs().max() < 1e-6
    assert x[0] == -1 and x[255] == 1 and torch.equal(to_uint8(x), levels)
    others = torch.tensor([-3.0, -1.01, 1.01, 7.0, 0.0, 1.0 / 127.5, 0.6 / 127.5 - 1])
    assert torch.equal(to_uint8(others), torch.tensor([0, 0, 255, 255, 128, 128, 1], dtype=torch.uint8))


@pytest.mark.parametrize("split, n", [("train", 24_000), ("test", 4_000)])
def test_the_bundled_set_is_balanced(split, n):
    images, labels = load_images(split=split)
    assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8 and images.is_contiguous()
    assert labels.dtype == torch.int64 and torch.bincount(labels, minlength=10).tolist() == [n // 10] * 10
    assert images.min() == 0 and images.max() == 255 and images.flatten(1).float().std(1).min() > 1
    assert torch.unique(images.flatten(1)[:2000], dim=0).shape[0] > 1990  # not one image again and again


def test_the_bundled_set_has_the_hubs_layout():
    """The columns and class names that the hub's Fashion-MNIST has, so that the same code reads both; at most 16 MB."""
    folder = ASSETS / "fashion_mnist"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16 * 10**6
    found = datasets.load_dataset(str(folder))
    for split in (found["train"], found["test"]):
        assert isinstance(split.features["image"], datasets.Image) and list(split.features) == ["image", "label"]
        names = " ".join(split.features["label"].names)
        assert names == "T - shirt / top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle boot"
    assert names.replace("T - shirt / top", "T-shirt").lower() == " ".join(CLASS_NAMES).lower()


def test_the_bundled_emoji_are_whole_in_the_middle_and_all_different():
    (images, labels), (test_images, test_labels) = load_images("emoji"), load_images("emoji", "test")
    assert torch.bincount(labels).tolist() == [144, 141, 134, 120, 176, 77, 235, 183]
    assert torch.bincount(test_labels).tolist() == [16, 15, 14, 13, 19, 8, 26, 20]  # a tenth of each class
    assert len(labels[:100].unique()) == len(EMOJI_CLASSES)  # the first rows are a mixture
    images = torch.cat([images, test_images])
    assert images.shape == (1341, 3, 32, 32) and images.dtype == torch.uint8 and images.is_contiguous()
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images)
    drawn = (images < 255).any(1)
    assert drawn.flatten(1).sum(1).min() > 100 and not drawn[:, [0, -1]].any() and not drawn[:, :, [0, -1]].any()
    for lines in (drawn.any(1), drawn.any(2)):  # columns, rows
        before, after = lines.int().argmax(1), lines.flip(1).int().argmax(1)  # white ones on the two sides
        assert (before - after).abs().max() <= 3  # faint edges count too


def test_the_bundled_emoji_have_the_hubs_layout():
    folder = ASSETS / "emoji"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3 * 10**6
    found = datasets.load_dataset(str(folder))
    for split in (found["train"], found["test"]):
        assert list(split.features) == ["image", "label", "name"]
        assert isinstance(split.features["image"], datasets.Image) and split[0]["image"].mode == "RGB"
        assert tuple(name.split()[0].lower() for name in split.features["label"].names) == EMOJI_CLASSES
    names = found["train"]["name"][:] + found["test"]["name"][:]
    assert len(set(names)) == 1341 and {"grinning face", "red square", "blue square"} <= set(names)
    images, labels = load_images("emoji")
    for name, colour in {"red square": 0, "blue square": 2}.items():
        i = names.index(name)  # both are for training
        assert images[i, :, 16, 16].argmax() == colour and EMOJI_CLASSES[labels[i]] == "symbols"


def test_emoji_are_drawn_chosen_and_written_in_the_same_way_again(tmp_path):
    """With a font that every machine with matplotlib has. Faces 0-10 stay, and nothing of what would be alike."""
    lines = ["# group: Smileys & Emotion"]
    lines += [f"{0x1F600 + i:X} ; fully-qualified # x E1.0 face {i}" for i in range(11)]
    lines += ["263A FE0F ; fully-qualified # x E0.6 smiling face", "263A ; unqualified # x E0.6 smiling face"]
    lines += ["# group: Component", "1F3FB ; component # x E1.0 light skin tone"]
    lines += ["# group: Objects", "1F44B 1F3FB ; fully-qualified # x E1.0 waving hand: light skin tone"]
    lines += ["260E ; fully-qualified # x E0.6 telephone", "1F550 ; fully-qualified # x E0.6 one o’clock"]
    lines += ["# group: Flags", "2690 ; fully-qualified # x E1.0 white flag"]
    names, font = tmp_path / "names.txt", f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    names.write_text("\n".join(lines), encoding="utf-8")
    make = runpy.run_path(str(ASSETS / "make.py"))
    for folder in ("one", "two"):
        make["emoji"](Path(font), names, tmp_path / folder)
    for split, expected in {"train": 12, "test": 1}.items():
        files = [tmp_path / folder / f"{split}-00000-of-00001.parquet" for folder in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
        rows = datasets.Dataset.from_parquet(str(files[0]))
        assert len(rows) == expected and rows.features["label"].names == ["Smileys & Emotion", "Objects"]
        kept = dict(zip(rows["name"], rows["label"], strict=True))
        faces = [f"face {i}" for i in range(11) if (i == 9) == (split == "test")]
        assert kept == dict.fromkeys(faces, 0) | ({"smiling face": 0, "telephone": 1} if split == "train" else {})
    names.write_text("# group: Objects\nE000 ; fully-qualified # x E1.0 nothing", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the font has no picture of U\+E000"):
        make["emoji"](Path(font), names, tmp_path / "three")


def test_every_bundled_file_is_listed_with_its_hash():
    """assets/README.md names each data file in backticks with its SHA-256 beside it, and the hash is the file's."""
    listed = dict(re.findall(r"`([^`]+)`.*\b([0-9a-f]{64})\b", (ASSETS / "README.md").read_text()))
    files = [file for file in ASSETS.rglob("*") if file.suffix in (".parquet", ".safetensors", ".png")]
    assert len(files) >= 8
    for file in files:
        name = file.relative_to(ASSETS).as_posix()
        assert listed[name] == hashlib.sha256(file.read_bytes()).hexdigest(), name
    photo = load_photo()
    assert (
        photo.dtype == torch.uint8 and photo.shape[0] == 3 and min(photo.shape[1:]) >= 64 and photo.float().std() > 20
    )


SPLITS = {"train/cat/a.png": 10, "train/dog/b.png": 20, "test/cat/a.png": 80, "test/dog/b.png": 90}


@pytest.mark.parametrize(
    "files, split, expected",
    [
        ({"boot/0.png": 10, "boot/1.png": 11, "dress/0.png": 200}, "train", [(0, 10), (0, 11), (1, 200)]),
        ({"0.png": 0, "1.png": 50, "2.png": 100}, "train", [(None, 0), (None, 50), (None, 100)]),
        (SPLITS, "train", [(0, 10), (1, 20)]),
        (SPLITS, "test", [(0, 80), (1, 90)]),
        ({"train/a.png": 10, "test/a.png": 80, "test/b.png": 90}, "test", [(None, 80), (None, 90)]),
    ],
)
def test_subfolders_are_splits_and_classes(tmp_path, files, split, expected):
    write(tmp_path, {name: flat(value) for name, value in files.items()})
    images, labels = load_images(str(tmp_path), split)
    assert images.shape[1:] == (1, 12, 12)
    labels = [None] * len(images) if labels is None else labels.tolist()
    assert sorted(zip(labels, images[:, 0, 5, 5].tolist(), strict=True)) == expected
    assert len(load_images(tmp_path, split, limit=2)[0]) == 2
    with pytest.raises(ValueError, match="has no split 'validation', only: .*train"):
        load_images(tmp_path, "validation")


@pytest.mark.parametrize(
    "name, picture, expected",
    [
        ("a.png", flat(255, "1"), [255]),
        ("a.png", flat(100, "L"), [100]),
        ("a.png", flat(100, "LA"), [100]),
        ("a.png", flat(100, "P"), [100] * 3),
        ("a.png", flat(100, "RGB"), [100] * 3),
        ("a.png", flat(100, "RGBA"), [100] * 3),
        ("a.jpg", flat(100, "RGB"), [100] * 3),
        ("a.jpg", flat(100, "CMYK"), [100] * 3),
        ("a.png", deep(25_700, np.uint16), [100]),  # scaled by its range, not by its brightest pixel
        ("a.png", deep(60_000, np.uint16), [233]),
        ("a.tiff", deep(25_700, np.uint16), [100]),
        ("a.tiff", deep(25_700, np.int32), [100]),
        ("a.tiff", deep(200, np.int32), [200]),  # 8 bits, stored in 32
        ("a.tiff", deep(2**30, np.int32), [255]),
        ("a.tiff", deep(np.nan, np.float32), [0]),
        ("a.tiff", deep(100, np.float32), [255]),  # floats have no agreed white: the brightest pixel is
        ("a.png", Image.new("RGBA", (12, 12), (10, 20, 30, 0)), [255] * 3),  # what is transparent is white
        ("a.png", Image.new("LA", (12, 12), (10, 0)), [255]),
        ("a.png", flat(100, "P", transparent=100), [255] * 3),
        ("a.png", flat(100, "P", transparent=7), [100] * 3),
        ("a.png", flat(100, "L", transparent=100), [255]),
        ("a.png", flat(100, "L", transparent=7), [100]),
    ],
)
def test_every_kind_of_picture(tmp_path, name, picture, expected):
    """Grey gives one channel and anything else three; JPEG rounds."""
    images, _ = load_images(write(tmp_path, {name: picture}))
    assert images.dtype == torch.uint8 and images.shape == (1, len(expected), 12, 12)
    wrong_by = (images.int() - torch.tensor(expected)[:, None, None]).abs().max()
    assert wrong_by <= (2 if name == "a.jpg" else 0)


def test_sizes_are_cropped_from_the_centre(tmp_path):
    """A 40×20 picture, black but for its middle square: size=10 keeps the square alone; corners of 8×8 are enlarged."""
    wide = Image.new("L", (40, 20), 0)
    wide.paste(200, (10, 0, 30, 20))
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    write(tmp_path, {"wide.png": wide, "tall.png": tall, "small.png": flat(200, size=(8, 8))})
    images, _ = load_images(tmp_path, size=10)
    assert images.shape == (3, 1, 10, 10) and images[:, :, 1:-1, 1:-1].min() == 200
    with pytest.raises(ValueError, match="the images have 3 different sizes; say size=32"):
        load_images(tmp_path)


def test_a_camera_held_upright_is_turned_and_one_colour_picture_makes_a_colour_set(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    flat(30, size=(16, 8)).save(tmp_path / "a.jpg", exif=exif)
    images, _ = load_images(write(tmp_path, {"b.png": flat(60, "RGB", size=(8, 16))}))
    assert images.shape == (2, 3, 16, 8) and sorted(images[:, :, 0, 0].tolist()) == [[30] * 3, [60] * 3]


def test_corrupt_files_are_counted_skipped_and_named(tmp_path, capsys):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    write(tmp_path, {"a/short.png": flat(), "a/cut.jpg": noisy, "b/empty.png": b"", "b/text.jpg": b"no picture"})
    for name, kept in (("a/short.png", 40), ("a/cut.jpg", 900)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    images, labels = load_images(write(tmp_path, {f"{'ab'[i % 2]}/good{i}.png": flat(10 * i) for i in range(4)}))
    out, err = capsys.readouterr()
    assert len(images) == 4 and sorted(labels.tolist()) == [0, 0, 1, 1]
    assert "4 pictures of 'train' (of 8), 2 classes (a, b)" in out and err == ""
    assert "could not be read as images: 4 (a/cut.jpg, a/short.png, b/empty.png, b/text.jpg)" in out


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({}, "no images or Parquet files found in"),
        ({"a.png": b"no picture"}, "none of the files could be read"),
        ({"a.csv": b"x,y\n1,2\n"}, r"no images or Parquet files found in .*; not read: \.csv files: 1 \(a\.csv\)"),
        ({"a.parquet": b"no Parquet"}, r"no images .*; not read: no Parquet that can be read: 1 \(a\.parquet\)"),
    ],
)
def test_nothing_readable_is_a_sentence(tmp_path, files, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_images(write(tmp_path, files))


# ---- data sets of the hub: their layouts as local files, and through a stand-in for the network ----


LAYOUTS = {
    "mnist": {"image": "image", "label": "label"},
    "cifar10": {"img": "image", "label": "label"},
    "celeba": {"image": "image"},
    "label first": {"label": "label", "name": "other", "picture": "image"},
}
GREYS, LABELS = [0, 10, 20, 30, 40, 50], [0, 1, 2, 0, 1, 2]


def table(layout, mode="L", start=0):
    """Six flat pictures in the columns of a layout."""
    pictures = [flat(grey + start, mode) for grey in GREYS]
    values = {"image": pictures, "label": LABELS, "other": list("abcdef")}
    names = datasets.ClassLabel(names=["zero", "one", "two"])
    kinds = {"image": datasets.Image(), "label": names, "other": datasets.Value("string")}
    columns = LAYOUTS[layout].items()
    features = datasets.Features({column: kinds[kind] for column, kind in columns})
    return datasets.Dataset.from_dict({column: values[kind] for column, kind in columns}, features=features)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_parquet_files_laid_out_as_the_hubs_are(tmp_path, layout):
    """Beside each other, or in a folder "data"."""
    starts, folder = {"train": 0, "test": 100}, tmp_path / ("data" if layout == "cifar10" else "")
    folder.mkdir(exist_ok=True)
    for split, start in starts.items():
        table(layout, start=start).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    for split, start in starts.items():
        images, labels = load_images(tmp_path, split)
        assert images.shape == (6, 1, 12, 12) and images[:, 0, 0, 0].tolist() == [grey + start for grey in GREYS]
        assert labels is None if layout == "celeba" else labels.tolist() == LABELS


@pytest.mark.parametrize("name", list(data.HUB))
def test_names_of_the_hub(monkeypatch, name):
    """A hub that answers, with `datasets.load_dataset` replaced by one that records what it was asked."""
    asked, mode, repository = [], "RGB" if name in ("cifar10", "celeba") else "L", data.HUB[name][0]

    def load_dataset(path, split=None, streaming=False):
        asked.append((path, split, streaming, datasets.config.HF_HUB_OFFLINE))
        if split not in ("train", "test"):
            raise ValueError(f'Unknown split "{split}". Should be one of train, test.')
        rows = table(name.removeprefix("fashion_"), mode)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    images, labels = load_images(name)
    assert asked == [(repository, "train", name == "celeba", False)]  # which is large: its first rows are streamed
    assert images.shape == (6, len(mode), 12, 12) and images[:, 0, 0, 0].tolist() == GREYS
    assert labels is None if name == "celeba" else labels.tolist() == LABELS
    few, _ = load_images(name, "test", size=4, limit=2)
    assert asked[-1] == (repository, "test", True, False) and few.shape == (2, len(mode), 4, 4)
    with pytest.raises(ValueError, match=f"{name} has no split 'validation'"):
        load_images(name, "validation")
    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: False)
    assert len(load_images(name, limit=2)[0]) == 2  # of the copy in the cache, where nothing is streamed
    assert asked[-1] == (repository, "train", False, True)


@contextlib.contextmanager
def listening(answer):
    """The address of a server on this machine that answers once, or keeps silent, or is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(f"{answer}\r\n\r\n".encode())

        if answer == "gone":
            server.close()
        elif answer.startswith("HTTP"):
            threading.Thread(target=serve, daemon=True).start()
        yield address


@pytest.mark.parametrize("hub", ["HTTP/1.1 200 OK", "HTTP/1.1 405 No", "silence", "gone", "offline", "slow name"])
def test_a_hub_that_does_not_deliver_is_one_sentence_within_seconds(monkeypatch, hub):
    """From a proxy's login page to a server that keeps silent. Five seconds is two more than the probe's."""
    load_dataset = datasets.load_dataset

    def refused(*args, **kwargs):
        if not datasets.config.HF_HUB_OFFLINE:
            raise RuntimeError("403 Forbidden")
        return load_dataset(*args, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", refused)
    if hub == "slow name":  # looking one up has no time limit of its own
        monkeypatch.setattr(data.urllib.request, "urlopen", lambda *_, **__: time.sleep(6))
    if hub == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(data, "hub_reachable", lambda endpoint: pytest.fail("probed"))
    problem = r"answers, but celeba .* \(403 " if "HTTP" in hub else "cannot be reached and celeba .* is not cached"
    with listening(hub) as address, pytest.raises(ConnectionError, match=f"^The Hugging Face hub {problem}") as caught:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
        started = time.monotonic()
        load_images("celeba")
    assert time.monotonic() - started < 5 and datasets.config.HF_HUB_OFFLINE is False
    assert 'load_images("bundled")' in str(caught.value) and "\n" not in str(caught.value)
