"""Reading images: folders and data sets laid out as the hub's, every mode of a picture, accidents, and no network."""

import contextlib
import hashlib
import re
import socket
import threading
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_course import data
from ddpm_course.data import ASSETS, CLASS_NAMES, load_images, load_photo, to_uint8, to_unit_range


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch, request):
    """`datasets` keeps what it has read: a test must not meet another test's, nor its reader's, nor their settings."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    if "bundled" not in request.node.name:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def save(path, value=100, mode="L", size=(12, 12)):
    """One flat picture; `value` of 0…255, or of 0…65535 for a deep mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode in ("I", "I;16"):
        picture = Image.fromarray(np.full(size[::-1], value, dtype=np.uint16 if mode == "I;16" else np.int32))
    else:
        picture = Image.new("L", size, value).convert(mode)
    picture.save(path)
    return path


def test_ranges_are_inverse_for_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_unit_range(levels)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    assert max(abs(x[i].item() - (2 * i / 255 - 1)) for i in range(256)) < 1e-6
    assert torch.equal(to_uint8(x), levels)
    outside = to_uint8(torch.tensor([-3.0, -1.01, 1.01, 7.0, 0.0, 1.0 / 127.5, 0.6 / 127.5 - 1]))
    assert outside.tolist() == [
        0,
        0,
        255,
        255,
        128,
        128,
        1,
    ]  # clamped, not wrapped; rounded (127.5 to even), not cut off


# ---- the bundled set ----


@pytest.mark.parametrize("split, n", [("train", 24_000), ("test", 4_000)])
def test_the_bundled_set_is_balanced(split, n):
    images, labels = load_images(split=split)
    assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8 and images.is_contiguous()
    assert labels.shape == (n,) and labels.dtype == torch.int64
    assert torch.bincount(labels, minlength=10).tolist() == [n // 10] * 10
    assert images.min() == 0 and images.max() == 255 and images.flatten(1).float().std(1).min() > 1
    assert torch.unique(images.flatten(1)[:2000], dim=0).shape[0] > 1990  # not one image again and again


def test_the_bundled_set_has_the_hubs_layout():
    """The columns and class names that the hub's Fashion-MNIST has, so that the same code reads both; at most 16 MB."""
    folder = ASSETS / "fashion_mnist"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16 * 10**6
    found = datasets.load_dataset(str(folder))
    assert set(found) == {"train", "test"}
    for split in found.values():
        assert isinstance(split.features["image"], datasets.Image) and list(split.features) == ["image", "label"]
        assert split.features["label"].names == [
            "T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ]  # fmt: skip
    for ours, theirs in zip(CLASS_NAMES, split.features["label"].names, strict=True):
        assert ours.lower().replace("-", "").split()[0][:4] == theirs.lower().replace(" - ", "").split()[0][:4]


def test_every_bundled_file_is_listed_with_its_hash():
    """assets/README.md names each data file in backticks with its SHA-256 beside it, and the hash is the file's."""
    listed = {}
    for line in (ASSETS / "README.md").read_text().splitlines():
        digest = re.search(r"\b[0-9a-f]{64}\b", line)
        names = re.findall(r"`([^`]+\.(?:parquet|safetensors|png))`", line)
        if digest and names:
            listed[names[0].removeprefix("assets/")] = digest[0]
    files = sorted(p for kind in ("parquet", "safetensors", "png") for p in ASSETS.rglob(f"*.{kind}"))
    assert len(files) >= 5
    for file in files:
        name = file.relative_to(ASSETS).as_posix()
        assert (listed.get(name) or listed.get(file.name)) == hashlib.sha256(file.read_bytes()).hexdigest(), name
    photo = load_photo()
    assert photo.dtype == torch.uint8 and photo.shape[0] == 3 and min(photo.shape[1:]) >= 64
    assert photo.float().std() > 20


# ---- folders of images ----

SPLITS = {"train/cat/a.png": 10, "train/dog/b.png": 20, "test/cat/a.png": 80, "test/dog/b.png": 90}


@pytest.mark.parametrize(
    "files, split, expected",
    [
        ({"boot/0.png": 10, "boot/1.png": 11, "dress/0.png": 200}, "train", [(0, 10), (0, 11), (1, 200)]),
        ({"0.png": 0, "1.png": 50, "2.png": 100}, "train", [(0, 0), (0, 50), (0, 100)]),
        (SPLITS, "train", [(0, 10), (1, 20)]),
        (SPLITS, "test", [(0, 80), (1, 90)]),
        ({"train/a.png": 10, "test/a.png": 80, "test/b.png": 90}, "test", [(0, 80), (0, 90)]),
    ],
)
def test_subfolders_are_splits_and_classes(tmp_path, files, split, expected):
    for name, value in files.items():
        save(tmp_path / name, value)
    images, labels = load_images(str(tmp_path), split)
    assert images.shape[1:] == (1, 12, 12)
    assert sorted(zip(labels.tolist(), images[:, 0, 5, 5].tolist(), strict=True)) == expected
    assert len(load_images(tmp_path, split, limit=2)[0]) == 2
    with pytest.raises(ValueError, match="has no split 'validation', only: .*train"):
        load_images(tmp_path, "validation")


@pytest.mark.parametrize(
    "name, mode, value, expected",
    [
        ("a.png", "1", 255, [255]),
        ("a.png", "L", 100, [100]),
        ("a.png", "LA", 100, [100]),
        ("a.png", "P", 100, [100] * 3),
        ("a.png", "RGB", 100, [100] * 3),
        ("a.png", "RGBA", 100, [100] * 3),
        ("a.png", "I;16", 25_700, [100]),
        ("a.png", "I;16", 60_000, [233]),
        ("a.tiff", "I;16", 25_700, [100]),
        ("a.tiff", "I", 25_700, [100]),
        ("a.tiff", "F", 100, [255]),  # floats have no agreed white: the brightest pixel is
        ("a.jpg", "L", 100, [100]),
        ("a.jpg", "RGB", 100, [100] * 3),
        ("a.jpg", "CMYK", 100, [100] * 3),
    ],
)
def test_every_mode_of_a_picture(tmp_path, name, mode, value, expected):
    """Grey gives one channel and anything else three; 16-bit grey is scaled by its range, not by its brightest pixel."""
    save(tmp_path / name, value, mode)
    images, _ = load_images(tmp_path)
    assert images.dtype == torch.uint8 and images.shape == (1, len(expected), 12, 12)
    wrong_by = (images.int() - torch.tensor(expected)[:, None, None]).abs().max()
    assert wrong_by <= (0 if name == "a.png" else 2)  # JPEG rounds


@pytest.mark.parametrize("mode, channels", [("RGBA", 3), ("LA", 1), ("P", 3), ("L", 1)])
def test_transparent_pixels_are_white(tmp_path, mode, channels):
    """One black pixel on something that is not seen: alpha 0, or the one colour that the file calls transparent."""
    invisible, black, options = {
        "RGBA": ((10, 20, 30, 0), (0, 0, 0, 255), {}),
        "LA": ((10, 0), (0, 255), {}),
        "P": (0, 1, dict(transparency=0)),
        "L": (7, 0, dict(transparency=7)),
    }[mode]
    picture = Image.new(mode, (8, 8), invisible)
    if mode == "P":
        picture.putpalette([1, 2, 3, 0, 0, 0])
    picture.putpixel((0, 0), black)
    picture.save(tmp_path / "a.png", **options)
    images, _ = load_images(tmp_path)
    assert images.shape[1] == channels and images[0, :, 0, 0].max() == 0 and images[0, :, 4, 4].min() == 255


def test_sizes_are_cropped_from_the_centre(tmp_path):
    """A 40×20 picture, black but for its middle square: size=10 keeps the square alone; corners of 8×8 are enlarged."""
    wide = Image.new("L", (40, 20), 0)
    wide.paste(200, (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    save(tmp_path / "small.png", 200, size=(8, 8))
    images, _ = load_images(tmp_path, size=10)
    assert images.shape == (3, 1, 10, 10) and images[:, :, :, 1:-1][:, :, 1:-1].min() == 200
    with pytest.raises(ValueError, match="the images have 3 different sizes; say size=32"):
        load_images(tmp_path)


def test_a_camera_held_upright_is_turned_and_one_colour_picture_makes_a_colour_set(tmp_path):
    picture = Image.new("L", (16, 8), 30)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert load_images(tmp_path)[0].shape == (1, 1, 16, 8)
    save(tmp_path / "b.png", 60, "RGB", size=(8, 16))
    images, _ = load_images(tmp_path)
    assert images.shape == (2, 3, 16, 8)
    assert sorted(images[:, :, 0, 0].tolist()) == [[30] * 3, [60] * 3]


def test_corrupt_files_are_counted_skipped_and_named(tmp_path, capsys):
    for i in range(4):
        save(tmp_path / "ab"[i % 2] / f"good{i}.png", 10 * i)
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    noisy.save(tmp_path / "whole.jpg")
    spoilt = {
        "a/short.png": (tmp_path / "a" / "good0.png").read_bytes()[:40],
        "a/cut.jpg": (tmp_path / "whole.jpg").read_bytes()[:900],
        "b/empty.png": b"",
        "b/text.jpg": b"this is no picture",
    }
    (tmp_path / "whole.jpg").unlink()
    for name, content in spoilt.items():
        (tmp_path / name).write_bytes(content)
    images, labels = load_images(tmp_path)
    out, err = capsys.readouterr()
    assert len(images) == 4 and sorted(labels.tolist()) == [0, 0, 1, 1]
    assert "skipped 4 of 8 files" in out and err == ""
    assert all(name[2:] in out for name in spoilt)


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({}, "no images or Parquet files found in"),
        ({"a.png": "no picture"}, "none of the files could be read"),
        ({"a.csv": "x,y\n1,2\n"}, "no column of images was found, only: x, y"),
    ],
    ids=str,
)
def test_nothing_readable_is_a_sentence(tmp_path, files, complaint):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        load_images(tmp_path)


# ---- data sets of the hub: their layouts as local files, and through a stand-in for the network ----


LAYOUTS = {
    "fashion_mnist": {"image": "image", "label": "label"},
    "cifar10": {"img": "image", "label": "label"},
    "celeba": {"image": "image"},
    "label first": {"label": "label", "name": "other", "picture": "image"},
}
GREYS, LABELS = [0, 10, 20, 30, 40, 50], [0, 1, 2, 0, 1, 2]


def table(layout, colour=False, start=0):
    """Six flat pictures in the columns of a layout."""
    shape = (10, 10, 3) if colour else (10, 10)
    pictures = [Image.fromarray(np.full(shape, grey + start, dtype=np.uint8)) for grey in GREYS]
    values = {"image": pictures, "label": LABELS, "other": list("abcdef")}
    names = datasets.ClassLabel(names=["zero", "one", "two"])
    kinds = {"image": datasets.Image(), "label": names, "other": datasets.Value("string")}
    columns = LAYOUTS[layout].items()
    features = datasets.Features({column: kinds[kind] for column, kind in columns})
    return datasets.Dataset.from_dict({column: values[kind] for column, kind in columns}, features=features)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("subfolder", ["", "data"])
def test_parquet_files_laid_out_as_the_hubs_are(tmp_path, layout, subfolder):
    folder = tmp_path / "set" / subfolder
    folder.mkdir(parents=True)
    starts = {"train": 0, "test": 100}
    for split, start in starts.items():
        table(layout, start=start).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    for split, start in starts.items():
        images, labels = load_images(tmp_path / "set", split)
        assert images.shape == (6, 1, 10, 10)
        assert images[:, 0, 0, 0].tolist() == [grey + start for grey in GREYS]
        assert labels.tolist() == ([0] * 6 if layout == "celeba" else LABELS)


@pytest.mark.parametrize(
    "name, repository, layout, channels",
    [
        ("fashion_mnist", "zalando-datasets/fashion_mnist", "fashion_mnist", 1),
        ("mnist", "ylecun/mnist", "fashion_mnist", 1),
        ("cifar10", "uoft-cs/cifar10", "cifar10", 3),
        ("celeba", "nielsr/CelebA-faces", "celeba", 3),
    ],
)
def test_names_of_the_hub(monkeypatch, name, repository, layout, channels):
    """A hub that answers, with `datasets.load_dataset` replaced by one that records what it was asked."""
    asked = []

    def load_dataset(path, split=None, streaming=False):
        asked.append((path, split, streaming))
        if split not in ("train", "test"):
            raise ValueError(f'Unknown split "{split}". Should be one of train, test.')
        rows = table(layout, colour=channels == 3)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    images, labels = load_images(name)
    assert asked == [(repository, "train", name == "celeba")]  # which is large: its first rows are streamed
    assert images.shape == (6, channels, 10, 10) and images[:, 0, 0, 0].tolist() == GREYS
    assert labels.tolist() == ([0] * 6 if name == "celeba" else LABELS)
    few, _ = load_images(name, "test", size=4, limit=2)
    assert asked[-1] == (repository, "test", True) and few.shape == (2, channels, 4, 4)
    with pytest.raises(ValueError, match=f"{name} has no split 'validation'"):
        load_images(name, "validation")


def test_a_hub_that_answers_but_does_not_deliver(monkeypatch):
    """A proxy's login page, say: one sentence, with the reason."""

    def load_dataset(*args, **kwargs):
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ConnectionError, match=r'answers, but mnist .* \(403 Forbidden\): use load_images\("bundled"\)'):
        load_images("mnist")


@contextlib.contextmanager
def listening(answer=None):
    """The address of a server on this machine that answers once, or accepts and keeps silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        if answer:
            thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("name", ["fashion_mnist", "celeba"])
def test_no_network_is_one_sentence_within_seconds(monkeypatch, name):
    """Nobody listens at the hub's address (a closed port of this machine). Five seconds is two more than the probe's."""
    with listening() as address:
        pass
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    started = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        load_images(name)
    assert time.monotonic() - started < 5
    sentence = str(caught.value)
    assert sentence.startswith(f"The Hugging Face hub cannot be reached and {name} (") and "\n" not in sentence
    assert 'load_images("bundled")' in sentence and datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    "answer, reachable",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 405 No\r\n\r\n", True),
        (b"?\r\n", False),
        (None, False),  # a listener that accepts and never answers, as a firewall does
    ],
)
def test_what_counts_as_an_answer(answer, reachable):
    with listening(answer) as address:
        assert data.hub_reachable(address, seconds=3.0 if answer else 0.3) is reachable


def test_a_name_whose_look_up_hangs_is_given_up(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: released.wait(10) or [])
    started = time.monotonic()
    assert data.hub_reachable("http://a.name", seconds=0.3) is False
    assert time.monotonic() - started < 5
    released.set()


def test_offline_mode_is_not_even_probed(monkeypatch):
    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: pytest.fail("probed"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="cannot be reached and mnist .* is not cached here"):
        load_images("mnist")


def test_a_cached_copy_is_used_without_network(monkeypatch, capfd):
    """What `datasets` leaves behind after a download of ylecun/mnist, made from local files, is found by its name."""
    cache = datasets.config.HF_DATASETS_CACHE
    version = cache / "ylecun___mnist" / "mnist" / "0.0.0" / "77f3279092a1c1579b2250db8eafed0ad422088c"
    version.mkdir(parents=True)
    rows = table("fashion_mnist")
    with datasets.arrow_writer.ArrowWriter(path=str(version / "mnist-train.arrow"), features=rows.features) as writer:
        for row in rows.cast_column("image", datasets.Image(decode=False)):
            writer.write(row)
        n, size = writer.finalize()
    split = datasets.SplitInfo("train", num_bytes=size, num_examples=n, dataset_name="mnist")
    info = datasets.DatasetInfo(
        features=rows.features, splits=datasets.SplitDict({"train": split}), builder_name="parquet", dataset_name="mnist", config_name="mnist",
        version=datasets.Version("0.0.0"),
    )  # fmt: skip
    info.write_to_directory(str(version))
    monkeypatch.setattr(data, "hub_reachable", lambda endpoint: False)
    images, labels = load_images("mnist")
    assert images[:, 0, 0, 0].tolist() == GREYS and labels.tolist() == LABELS
    assert len(load_images("mnist", limit=2)[0]) == 2
    assert capfd.readouterr().err == ""
