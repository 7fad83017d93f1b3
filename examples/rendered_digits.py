"""Digits drawn in the fonts that matplotlib brings, in any colours on any background: labelled images for nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE, WRITTEN = 64, 44  # pixels of an image, and of the handwriting in it
_FAMILIES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
_STYLES = ("", "-Bold", "-Oblique", "-Italic", "-BoldOblique", "-BoldItalic", "Bol", "Italic", "BolIta")
_OTHERS = ("cmr10", "cmb10", "cmss10", "cmtt10")


def fonts() -> list[Path]:
    """Font files that have digits, sorted."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = {f"{family}{style}" for family in _FAMILIES for style in _STYLES} | set(_OTHERS)
    return sorted(folder / f"{name}.ttf" for name in names if (folder / f"{name}.ttf").is_file())


def rendered_digits(count: int, seed: int = 0) -> tuple[list[Image.Image], list[int]]:
    """`count` images (64 x 64, RGB) with their digits, each class equally often."""
    random, faces = np.random.default_rng(seed), fonts()
    labels = [place % 10 for place in range(count)]
    return [_drawn(str(label), faces[random.integers(len(faces))], random) for label in labels], labels


def handwritten_digits() -> tuple[list[Image.Image], list[int]]:
    """scikit-learn's 1,797 scans of handwriting, 8 x 8, enlarged, with a margin: light strokes on black."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    return [_framed(scan) for scan in scans.images], scans.target.tolist()


def _framed(scan: np.ndarray) -> Image.Image:
    """The scans touch their borders, and digits on a page do not."""
    digit = Image.fromarray((scan * 255 / 16).astype(np.uint8)).resize((WRITTEN, WRITTEN), Image.Resampling.BICUBIC)
    page = Image.new("L", (SIZE, SIZE))
    page.paste(digit, ((SIZE - WRITTEN) // 2, (SIZE - WRITTEN) // 2))
    return page.convert("RGB")


def _drawn(digit: str, font: Path, random: np.random.Generator) -> Image.Image:
    mask, grey = _glyph(digit, font, random), random.random() < 0.5
    ground, ink = _background(random, grey), _colour(random, grey)
    while np.abs(np.asarray(ground).mean((0, 1)) - ink).mean() < 60:  # it has to be seen
        ink = _colour(random, grey)
    return Image.composite(Image.new("RGB", (SIZE, SIZE), tuple(int(x) for x in ink)), ground, mask)


def _glyph(digit: str, font: Path, random: np.random.Generator) -> Image.Image:
    """The digit in grey, turned, slanted, moved and blurred a little, as sharp as 8 to 64 points a side are."""
    face = ImageFont.truetype(str(font), int(random.integers(44, 66)))
    image = Image.new("L", (2 * SIZE, 2 * SIZE))
    ImageDraw.Draw(image).text((SIZE, SIZE), digit, fill=255, font=face, anchor="mm")
    turn, slant = math.radians(random.uniform(-15, 15)), random.uniform(-0.25, 0.25)
    cos, sin = math.cos(turn), math.sin(turn)
    across, down = (SIZE + random.uniform(-6, 6) for _ in "xy")
    rows = ((cos, sin + slant), (-sin, cos))
    moved = [
        coefficient
        for row, at in zip(rows, (across, down), strict=True)
        for coefficient in (*row, at - SIZE * sum(row))
    ]
    image = image.transform(image.size, Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.5)))
    points = int(8 * 2 ** random.uniform(0, 3))
    small = image.crop((SIZE // 2, SIZE // 2, SIZE // 2 + SIZE, SIZE // 2 + SIZE)).resize((points, points))
    return small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _background(random: np.random.Generator, grey: bool) -> Image.Image:
    """One colour, or one that goes over into another, with noise of any strength."""
    one, other = _colour(random, grey), _colour(random, grey)
    share = np.linspace(0, random.choice([0.0, 1.0]), SIZE)[None, :, None]
    plain = one * (1 - share) + other * share
    image = np.broadcast_to(plain, (SIZE, SIZE, 3)) + random.normal(0, random.uniform(0, 25), (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def _colour(random: np.random.Generator, grey: bool) -> np.ndarray:
    return np.full(3, random.uniform(0, 255)) if grey else random.uniform(0, 255, 3)
