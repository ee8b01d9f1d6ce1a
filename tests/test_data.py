"""Reading images: folders and data sets laid out as the hub's, every mode of a picture, accidents, and no network."""

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


def picture(mode="L", size=(12, 12), value=100):
    """One flat picture; `value` of 0…255, or of 0…65535 for a deep mode."""
    if mode == "I;16":
        return Image.fromarray(np.full(size[::-1], value, dtype=np.uint16))
    if mode == "I":
        return Image.fromarray(np.full(size[::-1], value, dtype=np.int32))
    return Image.new("L", size, value).convert(mode)


def save(folder, name, **how):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(**how).save(path)
    return path


# ---- the two ranges ----


def test_ranges_are_inverse_for_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_unit_range(levels)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    assert max(abs(x[i].item() - (2 * i / 255 - 1)) for i in range(256)) < 1e-6
    assert torch.equal(to_uint8(x), levels)
    assert to_uint8(torch.tensor([-3.0, -1.01, 1.01, 7.0, 0.0, 1.0 / 127.5, 0.6 / 127.5 - 1])).tolist() == [
        0, 0, 255, 255, 128, 128, 1,  # clamped, not wrapped; rounded (127.5 to even), not cut off
    ]  # fmt: skip
    with pytest.raises(ValueError, match="images must be uint8, got torch.float32"):
        to_unit_range(x)


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
    assert len(CLASS_NAMES) == 10
    for ours, theirs in zip(CLASS_NAMES, split.features["label"].names, strict=True):
        assert ours.lower().replace("-", "").split()[0][:4] == theirs.lower().replace(" - ", "").split()[0][:4]


def test_the_bundled_photograph():
    photo = load_photo()
    assert photo.dtype == torch.uint8 and photo.shape[0] == 3 and min(photo.shape[1:]) >= 64
    assert photo.float().std() > 20


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
        digest = listed.get(name) or listed.get(file.name)
        assert digest, f"assets/README.md does not list {name} with a hash"
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest(), f"{name} has another hash"


# ---- folders of images ----


def test_a_folder_with_a_subfolder_for_each_class(tmp_path):
    for c, value in (("boot", 10), ("dress", 200)):
        for i in range(3):
            save(tmp_path / c, f"{i}.png", value=value + i)
    images, labels = load_images(tmp_path)
    assert images.shape == (6, 1, 12, 12)
    pairs = sorted(zip(labels.tolist(), images[:, 0, 0, 0].tolist(), strict=True))
    assert pairs == [(0, 10), (0, 11), (0, 12), (1, 200), (1, 201), (1, 202)]


def test_a_folder_without_classes(tmp_path):
    for i in range(3):
        save(tmp_path, f"{i}.png", value=50 * i)
    images, labels = load_images(str(tmp_path))
    assert sorted(images[:, 0, 0, 0].tolist()) == [0, 50, 100] and labels.tolist() == [0, 0, 0]
    assert len(load_images(tmp_path, limit=2)[0]) == 2
    with pytest.raises(ValueError, match="has no split 'test', only: train"):
        load_images(tmp_path, "test")


@pytest.mark.parametrize("classes", [True, False])
def test_folders_for_training_and_testing(tmp_path, classes):
    for split, value in (("train", 10), ("test", 90)):
        for c in ("cat", "dog"):
            save(tmp_path / split / c if classes else tmp_path / split, f"{c}.png", value=value)
    for split, value in (("train", 10), ("test", 90)):
        images, labels = load_images(tmp_path, split)
        assert images[:, 0, 5, 5].tolist() == [value, value]
        assert sorted(labels.tolist()) == ([0, 1] if classes else [0, 0])


@pytest.mark.parametrize(
    "mode, value, expected",
    [
        ("1", 255, [255]),
        ("L", 100, [100]),
        ("LA", 100, [100]),
        ("P", 100, [100] * 3),
        ("RGB", 100, [100] * 3),
        ("RGBA", 100, [100] * 3),
        ("I;16", 25_700, [100]),
        ("I;16", 60_000, [233]),
    ],
)
def test_every_mode_of_a_png(tmp_path, mode, value, expected):
    """Grey gives one channel and anything else three; 16-bit grey is scaled by its range, not by its brightest pixel."""
    save(tmp_path, "a.png", mode=mode, value=value)
    images, _ = load_images(tmp_path)
    assert images.dtype == torch.uint8 and images[0, :, 3, 3].tolist() == expected


@pytest.mark.parametrize(
    "mode, name",
    [("CMYK", "a.jpg"), ("L", "a.jpg"), ("RGB", "a.jpg"), ("F", "a.tiff"), ("I;16", "a.tiff"), ("I", "a.tiff")],
)
def test_other_formats(tmp_path, mode, name):
    save(tmp_path, name, mode=mode, value=25_700 if mode.startswith("I") else 100)
    images, _ = load_images(tmp_path)
    assert images.shape[1] == (3 if mode in ("CMYK", "RGB") else 1)
    expected = 255 if mode == "F" else 100  # floats have no agreed white: the brightest pixel is
    assert (images.int() - expected).abs().max() <= 2  # JPEG rounds


def test_transparent_pixels_are_white(tmp_path):
    for name, mode, invisible in (("rgba", "RGBA", (10, 20, 30, 0)), ("la", "LA", (10, 0))):
        picture = Image.new(mode, (8, 8), invisible)
        picture.putpixel((0, 0), (0,) * (len(invisible) - 1) + (255,))
        picture.save((tmp_path / name).with_suffix(".png"))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([1, 2, 3, 0, 0, 0])
    palette.putpixel((0, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    grey = Image.new("L", (8, 8), 7)
    grey.putpixel((0, 0), 0)
    grey.save(tmp_path / "l.png", transparency=7)
    for name, channels in (("rgba", 3), ("la", 1), ("p", 3), ("l", 1)):
        folder = tmp_path / name
        folder.mkdir()
        (tmp_path / f"{name}.png").rename(folder / f"{name}.png")
        images, _ = load_images(folder)
        assert images.shape[1] == channels, name
        assert images[0, :, 0, 0].max() == 0 and images[0, :, 4, 4].min() == 255, name


def test_sizes_are_cropped_from_the_centre(tmp_path):
    """A 40×20 picture, black but for its middle square: size=10 keeps the square alone; corners of 8×8 are enlarged."""
    wide = Image.new("L", (40, 20), 0)
    wide.paste(200, (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    save(tmp_path, "small.png", size=(8, 8), value=200)
    images, _ = load_images(tmp_path, size=10)
    assert images.shape == (3, 1, 10, 10) and images[:, :, :, 1:-1][:, :, 1:-1].min() == 200
    with pytest.raises(ValueError, match="the images have 3 different sizes; say size=32"):
        load_images(tmp_path)


def test_a_camera_held_upright_is_turned(tmp_path):
    picture = Image.new("L", (16, 8), 0)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert load_images(tmp_path)[0].shape == (1, 1, 16, 8)


def test_one_colour_picture_makes_a_colour_set(tmp_path):
    save(tmp_path, "a.png", value=30)
    save(tmp_path, "b.png", mode="RGB", value=60)
    images, _ = load_images(tmp_path)
    assert images.shape == (2, 3, 12, 12)
    assert sorted(images[:, :, 0, 0].tolist()) == [[30] * 3, [60] * 3]


def test_corrupt_files_are_counted_skipped_and_named(tmp_path, capsys):
    for i in range(4):
        save(tmp_path / "ab"[i % 2], f"good{i}.png", value=10 * i)
    whole = (tmp_path / "a" / "good0.png").read_bytes()
    (tmp_path / "a" / "short.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    (tmp_path / "b" / "text.jpg").write_text("this is no picture")
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    noisy.save(tmp_path / "a" / "cut.jpg")
    (tmp_path / "a" / "cut.jpg").write_bytes((tmp_path / "a" / "cut.jpg").read_bytes()[:900])
    images, labels = load_images(tmp_path)
    out, err = capsys.readouterr()
    assert len(images) == 4 and sorted(labels.tolist()) == [0, 0, 1, 1]
    assert "skipped 4 of 8 files" in out and err == ""
    assert all(name in out for name in ("short.png", "empty.png", "text.jpg", "cut.jpg"))


def test_nothing_readable_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="no images or Parquet files found in"):
        load_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of the files could be read"):
        load_images(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="no column of images was found, only: x, y"):
        load_images(tmp_path / "texts")
    with pytest.raises(ValueError, match="'fashion-mnist' is neither a folder nor one of: bundled, fashion_mnist"):
        load_images("fashion-mnist")


# ---- data sets of the hub: their layouts as local files, and through a stand-in for the network ----


def table(columns, n=6, size=10, colour=False, start=0):
    shape = (size, size, 3) if colour else (size, size)
    pictures = [Image.fromarray(np.full(shape, 10 * i + start, dtype=np.uint8)) for i in range(n)]
    names = datasets.ClassLabel(names=["zero", "one", "two"])
    values = {"image": pictures, "label": [i % 3 for i in range(n)], "other": list("abcdef"[:n])}
    kinds = {"image": datasets.Image(), "label": names, "other": datasets.Value("string")}
    features = datasets.Features({column: kinds[kind] for column, kind in columns.items()})
    return datasets.Dataset.from_dict({column: values[kind] for column, kind in columns.items()}, features=features)


LAYOUTS = {
    "fashion_mnist": {"image": "image", "label": "label"},
    "cifar10": {"img": "image", "label": "label"},
    "celeba": {"image": "image"},
    "label first": {"label": "label", "name": "other", "picture": "image"},
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("subfolder", ["", "data"])
def test_parquet_files_laid_out_as_the_hubs_are(tmp_path, layout, subfolder):
    folder = tmp_path / "set" / subfolder
    folder.mkdir(parents=True)
    for split, start in (("train", 0), ("test", 100)):
        table(LAYOUTS[layout], start=start).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    for split, start in (("train", 0), ("test", 100)):
        images, labels = load_images(tmp_path / "set", split)
        assert images.shape == (6, 1, 10, 10)
        assert images[:, 0, 0, 0].tolist() == [10 * i + start for i in range(6)]
        assert labels.tolist() == ([0] * 6 if layout == "celeba" else [0, 1, 2, 0, 1, 2])


@pytest.fixture
def online(monkeypatch):
    """A hub that answers, with `datasets.load_dataset` replaced by one that records what it was asked."""
    asked = []

    def load_dataset(path, split=None, streaming=False):
        asked.append((path, split, streaming))
        if split not in ("train", "test"):
            raise ValueError(f'Unknown split "{split}". Should be one of train, test.')
        layout = {"uoft-cs/cifar10": "cifar10", "nielsr/CelebA-faces": "celeba"}.get(path, "fashion_mnist")
        rows = table(LAYOUTS[layout], colour="cifar" in path or "Celeb" in path)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(data, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    "name, repository, channels, streamed",
    [
        ("fashion_mnist", "zalando-datasets/fashion_mnist", 1, False),
        ("mnist", "ylecun/mnist", 1, False),
        ("cifar10", "uoft-cs/cifar10", 3, False),
        ("celeba", "nielsr/CelebA-faces", 3, True),
    ],
)
def test_names_of_the_hub(online, name, repository, channels, streamed):
    images, labels = load_images(name)
    assert online == [(repository, "train", streamed)]
    assert images.shape == (6, channels, 10, 10) and images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert labels.tolist() == ([0] * 6 if name == "celeba" else [0, 1, 2, 0, 1, 2])
    few, _ = load_images(name, "test", size=4, limit=2)
    assert online[-1] == (repository, "test", True) and few.shape == (2, channels, 4, 4)
    with pytest.raises(ValueError, match=f"{name} has no split 'validation'"):
        load_images(name, "validation")


def test_a_hub_that_answers_but_does_not_deliver(monkeypatch):
    """A proxy's login page, say: one sentence, with the reason."""

    def load_dataset(*args, **kwargs):
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(data, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ConnectionError, match=r'answers, but mnist .* \(403 Forbidden\): use load_images\("bundled"\)'):
        load_images("mnist")


@pytest.mark.parametrize("name", ["fashion_mnist", "celeba"])
def test_no_network_is_one_sentence_within_seconds(monkeypatch, name):
    """Nobody listens at the hub's address (a closed port of this machine). Five seconds is two more than the probe's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        load_images(name)
    assert time.monotonic() - started < 5
    sentence = str(caught.value)
    assert sentence.startswith(f"The Hugging Face hub cannot be reached and {name} (") and "\n" not in sentence
    assert 'load_images("bundled")' in sentence and datasets.config.HF_HUB_OFFLINE is False


def test_a_hub_that_keeps_silent_is_given_up(monkeypatch):
    """A listener that accepts and never answers, as a firewall does; and a name whose look-up hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert data.hub_reachable(seconds=0.3) is False
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: released.wait(10) or [])
    started = time.monotonic()
    assert data.hub_reachable(seconds=0.3) is False
    assert time.monotonic() - started < 5
    released.set()


@pytest.mark.parametrize(
    "answer, reachable", [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 405 No\r\n\r\n", True), (b"?\r\n", False)]
)
def test_what_counts_as_an_answer(monkeypatch, answer, reachable):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert data.hub_reachable() is reachable
        thread.join()


def test_offline_mode_is_not_even_probed(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: pytest.fail("probed"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert data.hub_reachable() is False


def test_a_cached_copy_is_used_without_network(monkeypatch, capfd):
    """What `datasets` leaves behind after a download of ylecun/mnist, made from local files, is found by its name."""
    cache = datasets.config.HF_DATASETS_CACHE
    version = cache / "ylecun___mnist" / "mnist" / "0.0.0" / "77f3279092a1c1579b2250db8eafed0ad422088c"
    version.mkdir(parents=True)
    rows = table(LAYOUTS["fashion_mnist"])
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
    monkeypatch.setattr(data, "hub_reachable", lambda: False)
    images, labels = load_images("mnist")
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50] and labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(load_images("mnist", limit=2)[0]) == 2
    assert capfd.readouterr().err == ""
