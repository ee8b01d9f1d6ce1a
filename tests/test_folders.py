"""Folders, tables and pictures that others made: what they mean, what is left out and said, and what they may cost."""

import io
import os
import random
import re
import struct
import subprocess
import sys
import zlib

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm_course.data import load_images
from ddpm_course.pictures import open_picture
from ddpm_course.training.__main__ import main


def png(grey=100, size=(8, 8), form="PNG", mode="L", **options):
    file = io.BytesIO()
    Image.new("L", size, grey).convert(mode).save(file, form, **options)
    return file.getvalue()


def write(folder, files):
    """Bytes, or flat pictures of a grey, under their names; returns the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(content) if isinstance(content, int) else content)
    return folder


def read(folder, split="train", **options):
    """{grey: label} of what is read."""
    images, labels = load_images(folder, split, **options)
    greys = images[:, 0, 0, 0].tolist()
    assert len(set(greys)) == len(greys)
    return dict(zip(greys, [None] * len(greys) if labels is None else labels.tolist(), strict=True))


def numbered(*names):
    return {name: 10 * i for i, name in enumerate(names, 1)}


TREES = {
    "a class called train": (
        numbered("train/bus/a.png", "train/train/b.png", "test/bus/c.png", "test/train/d.png"),
        {"train": {10: 0, 20: 1}, "test": {30: 0, 40: 1}},
    ),
    "a class called test bench": (
        numbered("train/test bench/a.png", "test/test bench/b.png"),
        {"train": {10: 0}, "test": {20: 0}},
    ),
    "dev beside ops": (numbered("dev/a.png", "ops/b.png"), {"train": {10: 0, 20: 1}}),
    "car, plane, train": (numbered("car/a.png", "plane/b.png", "train/c.png"), {"train": {10: 0, 20: 1, 30: 2}}),
    "train in a name": (numbered("car 0.png", "steam train 1.png"), {"train": {10: None, 20: None}}),
    "a stray beside classes": (numbered("car/a.png", "bus/b.png", "stray.png"), {"train": {10: 1, 20: 0}}),
    "unequal depth": (numbered("a/cat/x.png", "dog/y.png", "b/cat/z.png"), {"train": {10: 0, 20: 1, 30: 0}}),
    "hidden": (numbered("car/a.png", "car/.b.png", "__MACOSX/car/._a.png", ".git/c.png"), {"train": {10: 0}}),
    "suffixes": ({"a.Png": 10, "b.JPEG": 20, "c.avif": png(30, form="PNG")}, {"train": {10: None, 20: None, 30: None}}),
    "other names of splits": (
        numbered("Training/a/1.png", "testing/a/2.png", "val/b/3.png"),
        {"train": {10: 0}, "test": {20: 0}, "validation": {30: 1}},
    ),
    "one class in each split": (
        numbered("train/bus/a.png", "train/car/b.png", "test/car/c.png"),
        {"train": {10: 0, 20: 1}, "test": {30: 1}},
    ),
    "beside the splits": (numbered("train/a/1.png", "test/a/2.png", "docs/3.png"), {"train": {10: 0}, "test": {20: 0}}),
    "a folder around it all": (
        numbered("cifar/train/cat/a.png", "cifar/train/dog/b.png", "cifar/test/cat/c.png"),
        {"train": {10: 0, 20: 1}, "test": {30: 0}},
    ),
    "a folder around classes": (numbered("pets/cat/a.png", "pets/dog/b.png"), {"train": {10: 0, 20: 1}}),
    "training pictures alone": (numbered("train/cat/a.png", "train/dog/b.png"), {"train": {10: 0, 20: 1}}),
    "texts beside": (
        numbered("a/1.png", "b/2.png") | {"a/1.txt": b"x", "b/2.xml": b"x", "c.json": b"{}", "d.csv": b"x\n1\n"},
        {"train": {10: 0, 20: 1}},
    ),
    "metadata": (
        numbered("a.png", "b.png", "c.png", "d.png")
        | {"metadata.csv": b"file_name,label\na.png,3\nb.png,0\nd.png,\n../../x.png,1\n/dev/zero,1\n"},
        {"train": {10: 3, 20: 0}},
    ),
    "metadata in texts": (
        numbered("train/a.png", "train/b.png", "test/c.png")
        | {"train/metadata.csv": b"file_name,label\na.png,cat\nb.png,ape\n", "test/metadata.csv": b"file_name,label\nc.png,cat"},
        {"train": {10: 1, 20: 0}, "test": {30: 1}},
    ),
    "metadata in lines": (
        numbered("a.png", "b.png")
        | {"metadata.jsonl": b'{"file_name": "a.png", "label": 2}\n{"file_name": "b.png", "label": 1.7}\n'},
        {"train": {10: 2}},
    ),
    "a picture beside the folder around it all": (
        numbered("logo.png", "cifar/train/cat/a.png", "cifar/test/cat/b.png", "cifar/c.png"),
        {"train": {20: 0}, "test": {30: 0}},
    ),
    "a class with a folder of a split's name": (numbered("cat/test/a.png", "cat/b.png"), {"train": {10: 1, 20: 0}}),
    "accents in one piece and in two": (
        numbered("train/caf\u00e9/a.png", "train/zoo/b.png", "test/cafe\u0301/c.png"),
        {"train": {10: 0, 20: 1}, "test": {30: 0}},
    ),
    "metadata of a spreadsheet": (
        numbered("\u00e9.png", "b.png", "c.png")
        | {"metadata.csv": "\ufeffFile_Name; Label\r\ne\u0301.png; cat\r\nb.png;ape\r\nc.png;cat \r\n".encode()},
        {"train": {10: 1, 20: 0, 30: 1}},
    ),
    "metadata between tabs": (
        numbered("a.png", "b.png") | {"metadata.csv": b"file_name\tlabel\na.png\t1\nb.png\t0\n"},
        {"train": {10: 1, 20: 0}},
    ),
    "metadata without labels": (
        numbered("cat/a.png", "dog/b.png") | {"metadata.csv": b"file_name,text\ncat/a.png,hello\n"},
        {"train": {10: 0, 20: 1}},
    ),
    "metadata that is none": (
        numbered("cat/a.png", "dog/b.png") | {"metadata.csv": b"\xff\xfe\x00"},
        {"train": {10: 0, 20: 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("files, expected", TREES.values(), ids=TREES)
def test_what_a_folder_means(tmp_path, capsys, files, expected):
    write(tmp_path, files)
    for split, labels in expected.items():
        assert read(tmp_path, split) == labels
        assert capsys.readouterr().out.count("\n") == 1
    if "test" not in expected:
        with pytest.raises(ValueError, match="has no split 'test', only: train"):
            load_images(tmp_path, "test")


@pytest.mark.parametrize("split, words", [("test", ("testing", "TEST")), ("validation", ("val", "Validation"))])
def test_other_words_for_a_split_count_as_it(tmp_path, capsys, split, words):
    write(tmp_path, numbered("train/1.png", "Test/2.png", "val/3.png"))
    found = read(tmp_path, split), capsys.readouterr().out
    for word in words:
        assert (read(tmp_path, word), capsys.readouterr().out) == found


def test_one_line_says_what_was_read_and_what_not(tmp_path, capsys):
    write(tmp_path, numbered("train/bus/a.png", "train/car/b.png", "train/stray.png", "test/c.png", "out.png"))
    write(tmp_path, {"train/bus/bad.png": b"no", "notes.txt": b"", ".hidden": b"", "train/car/x.heic": b""})
    load_images(tmp_path, "train")
    assert capsys.readouterr().out == (
        f"{tmp_path}: 2 pictures of 'train' (of 4), 2 classes (bus, car); other splits: test (1); not read: "
        "hidden: 1 (.hidden); outside the splits' folders: 1 (out.png); .txt files: 1 (notes.txt); "
        ".heic files: 1 (train/car/x.heic); could not be read as images: 1 (train/bus/bad.png); "
        "without a class: 1 (train/stray.png)\n"
    )
    load_images(limit=1)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need rights on Windows")
def test_links_are_followed_once_and_pipes_and_devices_never_opened(tmp_path, capsys):
    pool = write(tmp_path / "pool", {"1.png": 10, "2.png": 20})
    folder = write(tmp_path / "set", {"cat/3.png": 30})
    (folder / "dog").symlink_to(pool)
    (folder / "dog again").symlink_to(pool)
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / "4.png").symlink_to("/dev/zero")
    (folder / "cat" / "5.png").symlink_to("nowhere")
    (folder / "cat" / "6.png").symlink_to(pool / "gone")
    os.mkfifo(folder / "cat" / "7.png")
    assert set(read(folder)) == {10, 20, 30}
    out = capsys.readouterr().out
    assert "neither file nor folder: 2 (cat/4.png, cat/7.png)" in out
    assert "a link that leads nowhere: 2 (cat/5.png, cat/6.png)" in out
    assert "a link to a folder that was read already: 2 (" in out


@pytest.mark.parametrize("name", [".", "a[1]b", "a::b", "~", "~/x", "ü 猫"])
def test_names_of_folders(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = tmp_path if name in (".", "~") else tmp_path / name.removeprefix("~/")
    write(folder, numbered("a/1.png", "b/2.png"))
    monkeypatch.chdir(tmp_path)
    assert read(name) == {10: 0, 20: 1}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the system takes no such names")
def test_names_that_are_not_utf8_or_move_the_cursor(tmp_path, capsys):
    folder = os.fsencode(tmp_path)
    for name, content in ((b"\xff", png(10)), (b"\xe9", b"no"), (b"\x1b[2Ja\nb", b"no")):
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name, name + b".png"), "wb") as file:
            file.write(content)
    assert read(tmp_path) == {10: 2}
    out = capsys.readouterr().out
    assert out.encode().isascii() and out.count("\n") == 1 and "\x1b" not in out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (dict(size=0), "size must be a whole number"),
        (dict(size=2.5), "size must be a whole number"),
        (dict(size=10**6), "size must be a whole number"),
        (dict(limit=0), "limit must be a whole number"),
        (dict(name=""), "'' is neither a folder"),
        (dict(name="a\0b"), "is neither a folder"),
        (dict(name="~nobody/x"), "is neither a folder"),
        (dict(name=None), "name must be text or a path"),
        (dict(split=None), 'split must be "train", "test" or "validation", got None'),
        (dict(split=["train"]), 'split must be "train"'),
        (dict(name=__file__), "is a file: give the folder"),
    ],
)
def test_arguments_are_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_images(**arguments)


# ---- tables ----

CELLS = {
    "bytes": lambda grey: png(grey),
    "struct": lambda grey: {"bytes": png(grey), "path": None},
    "in the folder": lambda grey: {"bytes": None, "path": f"{grey}.png"},
    "name": lambda grey: f"{grey}.png",
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "digit", "Class", None])
def test_tables_that_pyarrow_wrote(tmp_path, cell, column):
    rows = {"id": ["a", "b"], "image": [CELLS[cell](10), CELLS[cell](20)]} | ({column: [4, 0]} if column else {})
    pq.write_table(pa.table(rows), write(tmp_path, {"10.png": 10, "20.png": 20}) / "set.parquet")
    assert read(tmp_path) == ({10: 4, 20: 0} if column else {10: None, 20: None})


@pytest.mark.parametrize(
    "labels, expected",
    [
        ([1, None, 0], {10: 1, 30: 0}),
        ([1.0, 1.7, 0.0], {10: 1, 30: 0}),
        ([1, -1, 0], {10: 1, 30: 0}),
        ([1, 2**60, 0], {10: 1, 30: 0}),
        (["dog", "cat", "dog"], {10: 1, 20: 0, 30: 1}),
        (["2", "", "1"], {10: 2, 30: 1}),
        ([None, None, None], {10: None, 20: None, 30: None}),
        ([-1, -1, -1], {10: None, 20: None, 30: None}),
        ([[1], [2], [3]], {10: None, 20: None, 30: None}),
        ([float("nan"), float("inf"), 3.0], {30: 3}),
    ],
)
def test_labels_in_tables(tmp_path, capsys, labels, expected):
    """What is no class is named and left out; where nothing is one, there are no labels."""
    pq.write_table(pa.table({"image": [png(grey) for grey in (10, 20, 30)], "label": labels}), tmp_path / "a.parquet")
    assert read(tmp_path) == expected
    out = capsys.readouterr().out
    assert ("without a class: " in out) == (len(expected) < 3) and ("no labels" in out) == (None in expected.values())


def test_texts_are_numbered_over_all_splits_and_columns_may_be_called_classes(tmp_path):
    for split, grey, text in (("train", 10, "b"), ("test", 20, "a")):
        pq.write_table(pa.table({"image": [png(grey)], "label": [text]}), tmp_path / f"my_{split}.parquet")
    assert (read(tmp_path), read(tmp_path, "test")) == ({10: 1}, {20: 0})
    kinds = datasets.Features({"garment": datasets.ClassLabel(names=["x", "y"]), "image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"garment": [1], "image": [Image.new("L", (8, 8), 30)]}, features=kinds)
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    assert read(tmp_path / "hub") == {30: 1}


def test_bad_rows_and_paths_out_of_the_folder_cost_themselves(tmp_path, capsys):
    write(tmp_path, {"secret.png": 90})
    cells = [
        *({"bytes": png(10), "path": "a.png"}, None, {"bytes": b"", "path": None}, {"bytes": b"no", "path": "b.png"}),
        *({"bytes": None, "path": "../secret.png"}, {"bytes": None, "path": str(tmp_path / "secret.png")}),
        *({"bytes": None, "path": "/dev/zero"}, {"bytes": png(20), "path": "/etc/passwd"}),
    ]
    folder = write(tmp_path / "set", {"broken.parquet": b"PAR1 no", "more.txt": b""})
    pq.write_table(pa.table({"image": cells, "label": [0] * 8}), folder / "a.parquet")
    assert read(folder) == {10: 0, 20: 0}
    out = capsys.readouterr().out
    assert "could not be read as images: 6 (row 1 of a.parquet" in out
    assert "no Parquet that can be read: 1 (broken.parquet)" in out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_the_bundled_pictures_need_no_cache_and_no_writable_disk():
    """Read in a process that may write no file of any size, and whose cache cannot be made."""
    script = (
        "import resource, sys\nfrom ddpm_course.data import load_images\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "images, labels = load_images(limit=10)\nassert len(images) == len(labels) == 10 and 'datasets' not in sys.modules"
    )
    environment = os.environ | {"HF_HOME": "/dev/null/x", "HF_DATASETS_CACHE": "/dev/null/x", "HOME": "/dev/null"}
    done = subprocess.run([sys.executable, "-Bc", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- pictures ----


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_orientation_is_read_alone_and_nonsense_costs_nothing(tmp_path):
    corner = np.full((8, 16), 200, np.uint8)
    corner[:4, :4] = 0
    for orientation, dark in enumerate(("tl", "tl", "tr", "br", "bl", "tl", "tr", "br", "bl")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(corner).save(tmp_path / "a.png", exif=exif)
        pixels = open_picture(tmp_path / "a.png", None)[0]
        assert pixels.shape == ((16, 8) if orientation > 4 else (8, 16))
        row, column = np.argwhere(pixels == 0).mean(0) > [side / 2 for side in pixels.shape]
        assert f"{'tb'[int(row)]}{'lr'[int(column)]}" == dark
    entries = b"\x01\x12\0\3\0\0\0\1\0\6\0\0" + b"\x01\x11\0\2\0\0\0\2n\xe6\x80\xd0"  # turned; offsets that are text
    for nonsense, shape in (
        (b"MM\0*\0\0\0\x08\0\2" + entries + b"\0\0\0\0", (1, 16, 8)),  # cannot be written back
        (b"MM\0*\0\0\0\x08\xff\xff", (1, 8, 16)),
        (bytes(range(200)), (1, 8, 16)),
    ):
        Image.fromarray(corner).save(tmp_path / "b.jpg", exif=b"Exif\0\0" + nonsense)
        assert open_picture(tmp_path / "b.jpg", None).shape == shape


def test_deep_grey_with_gaps(tmp_path):
    values = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0, -3.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert open_picture(tmp_path / "a.tiff", None).tolist() == [[[0, 255, 0, 128, 255, 0]]]
    deep = Image.fromarray(np.array([[1000, 25_700, 65_535]], np.uint16))
    deep.save(tmp_path / "b.png", transparency=1000)
    assert open_picture(tmp_path / "b.png", None).tolist() == [[[255, 100, 255]]]


def test_only_the_formats_that_the_course_names(tmp_path, capsys, monkeypatch):
    """An EPS under another name would start Ghostscript with the stranger's program."""
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("a program was started"))
    eps = io.BytesIO()
    Image.new("L", (8, 8)).save(eps, "EPS")
    files = {f"{form}.png": png(form=form) for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")}
    files |= {f"bad {form}.png": png(form=form) for form in ("TGA", "ICO", "PCX", "SGI")} | {
        "bad EPS.png": eps.getvalue()
    }
    images, _ = load_images(write(tmp_path, files), size=8)
    assert len(images) == 7 and "could not be read as images: 5 (bad EPS.png, bad ICO.png" in capsys.readouterr().out


COSTS = """
import resource
from ddpm_course.data import load_images
def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
load_images(limit=1)
before = megabytes()
assert load_images("strip", size=28)[0].shape == (2, 1, 28, 28)
assert len(load_images("claim")[0]) == 1
assert megabytes() - before < 50, megabytes() - before
assert len(load_images("table", limit=40)[0]) == 40
assert len(load_images("table", limit=100, size=8)[0]) == 100
try:
    load_images("table")
except ValueError as problem:
    print(problem)
assert megabytes() - before < 400, megabytes() - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_strangers_pictures_cost_little(tmp_path):
    """Long strips, claims of billions of pixels, sets of many gigabytes, and a table that unpacks to them."""
    write(tmp_path / "strip", {"a.png": png(size=(1_000_000, 1)), "b.png": png(size=(1, 100_000))})
    squeezed = zlib.compressobj()
    rows = b"".join([squeezed.compress(bytes(20_001)) for _ in range(20_000)]) + squeezed.flush()  # 400 MB of black
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    claim = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        claim += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    write(tmp_path / "claim", {"a.png": claim, "b.png": 50})
    often = pa.DictionaryArray.from_arrays(pa.array([0] * 7000, pa.int32()), [png(size=(1000, 1000), form="BMP")])
    table = write(tmp_path / "table", {"notes.txt": b""}) / "a.parquet"
    pq.write_table(pa.table({"image": often}), table, store_schema=False)
    assert table.stat().st_size < 1_100_000
    done = subprocess.run([sys.executable, "-c", COSTS], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sentence = r"7,000 pictures of 1000×1000 take 6\.5 GB of memory: say size=64, .* or limit=2147 "
    assert re.search(sentence, done.stdout)


# ---- whatever comes ----

FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "parquet", "metadata")


def damaged(form, draw):
    """A file of this form, with bytes changed, cut off, doubled or put in."""
    if form == "parquet":
        file = io.BytesIO()
        pq.write_table(pa.table({"image": [png(), png(20)], "label": [0, 1]}), file)
        content = bytearray(file.getvalue())
    elif form == "metadata":
        content = bytearray(b"file_name,label\na.png,1\nb.png,2\n")
    else:
        content = bytearray(png(draw.randrange(256), form=form, mode=draw.choice(["L", "RGB"])))
    for _ in range(draw.choice([0, 1, 1, 3, 30])):
        at = draw.randrange(len(content))
        change = draw.randrange(4)
        if change == 0:
            content[at] = draw.randrange(256)
        elif change == 1:
            content[at:] = content[at : at + draw.randrange(1, 50)]
        elif change == 2:
            content[at:at] = draw.randbytes(draw.randrange(1, 20))
        else:
            content[at : at + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    return bytes(content)


def count(text, why):
    """Of what was not read for a reason, in the line that was printed."""
    return sum(int(n.replace(",", "")) for n in re.findall(rf"{why}: ([\d,]+) \(", text))


OUR_SENTENCES = re.compile(r"(none of the files could be read|no images or Parquet|[\d,]+ pictures of).*\Z")


def test_damaged_files_never_end_in_a_traceback(tmp_path, capsys):
    """Ten forms; DDPM_COURSE_FUZZ=100 times as many. Each is read or named, and the good picture always comes."""
    draw, rounds = random.Random(0), 6 * int(os.environ.get("DDPM_COURSE_FUZZ", "1"))
    read_of = dict.fromkeys(FORMS, 0)
    for turn in range(rounds):
        for form in FORMS:
            folder = tmp_path / f"{turn}-{form}"
            name = {"metadata": "metadata.csv", "parquet": "x.parquet"}.get(form, f"x.{form.lower()}")
            write(folder, {name: damaged(form, draw), "a.png": 10, "b.png": 20})
            try:
                images, labels = load_images(folder, size=8)
            except ValueError as problem:
                assert form in ("metadata", "parquet") and OUR_SENTENCES.match(str(problem))
                continue
            out = capsys.readouterr().out
            assert out.count("\n") == 1 and (labels is None or len(labels) == len(images))
            if form not in ("metadata", "parquet"):
                assert labels is None and len(images) + count(out, "could not be read as images") == 3
            read_of[form] += len(images) > (form not in ("metadata", "parquet")) * 2
    assert all(read_of.values()), read_of


def test_folder_trees_keep_their_splits_and_counts(tmp_path, capsys):
    """Random trees of awkward names: no picture changes its split or class, and all files are accounted for."""
    draw = random.Random(1)
    words = ["train", "test", "val", "Train", "dev", "cat", "train 2", "test bench", "steam.train", "a[1]", "x::y", "ß"]
    for turn in range(20 * int(os.environ.get("DDPM_COURSE_FUZZ", "1"))):
        folder, files = tmp_path / str(turn), {}
        laid_out = draw.random() < 0.5
        for grey in range(draw.randrange(1, 30)):
            above = [draw.choice(words) for _ in range(draw.randrange(4))]
            above = [draw.choice(["train", "test"]), *above] if laid_out else above
            name = "/".join([*above, f"{draw.choice(words)}{grey}{draw.choice(['.png', '.PNG', '.txt', '.heic'])}"])
            files[name] = grey if name.lower().endswith("png") else b""
        write(folder, files)
        pictures = {name: grey for name, grey in files.items() if isinstance(grey, int)}
        seen, known, said = {}, {}, ""
        for split in ("train", "test", "validation"):
            try:
                found = read(folder, split)
            except ValueError as problem:
                assert "has no split" in str(problem) or "no images" in str(problem)
                continue
            out = capsys.readouterr().out
            said += out
            assert not set(found) & set(seen), "a picture is in two splits"
            seen |= dict.fromkeys(found, split)
            labels = {name: found[grey] for name, grey in pictures.items() if grey in found}
            for name, label in labels.items():
                above = name.split("/")[:-1]
                assert label is None or known.setdefault(above[-1], label) == label, "a class has two numbers"
                if laid_out:
                    assert above[0] == split
            others = sum(int(n) for n in re.findall(r" \((\d+)\)", out.split("not read")[0]))
            left = count(out.partition("; not read")[2], "")
            assert len(found) + others + left == len(files), out
        splits = {name: seen[grey] for name, grey in pictures.items() if grey in seen}
        for name, split in splits.items() if {"train"} < {"train", *seen.values()} else ():
            above = name.split("/")[:-1]
            around = ["/".join([*above[:i], ""]) for i in range(len(above))]  # "", "a/", "a/b/"
            inside = [n for n in pictures if "/" in n]  # pictures beside the outer folder are named and left out
            tops = [top for top, path in zip(above, around, strict=True) if all(n.startswith(path) for n in inside)]
            assert any(top.casefold() == split[: len(top)] for top in tops), "a split that no folder says"
        assert not laid_out or len(seen) + count(said, "without a class") == len(pictures)
        assert len(set(known.values())) == len(known)


def test_the_command_line_says_that_it_trains_without_labels(tmp_path, monkeypatch, capsys):
    write(tmp_path / "set", {f"{i}.png": i for i in range(8)})
    out = str(tmp_path / "net")
    command = [
        "train",
        "--data",
        str(tmp_path / "set"),
        "--steps",
        "1",
        "--widths",
        "8",
        "--batch-size",
        "4",
        "--out",
        out,
    ]
    monkeypatch.setattr(sys, "argv", command)
    main()
    said = capsys.readouterr().out
    assert "8 pictures of 'train' (of 8), no labels\ntraining without labels: the data has none\n" in said
