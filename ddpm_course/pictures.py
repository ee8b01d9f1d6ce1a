"""One picture of whatever kind, from whomever, as uint8 (lesson 07)."""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")  # no others: EPS, for one, starts a program
TURNS = {  # EXIF's orientation: what shows it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF came with Pillow 11.3


def open_picture(file: io.BytesIO | Path | None, size: int | None) -> np.ndarray:
    """(C, H, W) uint8: one channel for a grey picture of any depth, three for any other; white where transparent."""
    if file is None:
        raise ValueError("no picture")
    with Image.open(file, formats=_formats()) as image:  # refuses more pixels than any camera has
        image.load()
        try:
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        except Exception:  # nonsense beside pixels that are fine
            turn = None
        tiff = image.format == "TIFF"
    image = image if turn is None else image.transpose(turn)
    if size is not None:  # the square alone is resized: 1×1,000,000 pixels would become gigabytes
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.mode.startswith(("I", "F")):
        image = _deep_grey(image, tiff)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("L" if grey else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _deep_grey(image: Image.Image, tiff: bool) -> Image.Image:
    """16 or 32 bits or floats, as 8 bits: Pillow would clip them, not scale them."""
    values = np.asarray(image).astype(np.float32)
    brightest = max(values[np.isfinite(values)].max(initial=0), 1.0)
    if image.mode == "F" or brightest > 65535:
        white = brightest  # none is agreed
    else:
        white = 255.0 if image.mode == "I" and tiff and brightest <= 255 else 65535.0  # TIFF has 8 bits in 32, too
    values = np.nan_to_num(values, nan=0.0, posinf=white, neginf=0.0)
    if "transparency" in image.info:
        values[values == image.info["transparency"]] = white
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))
