"""Re-create the clip-art image set that ships in ``src/neurenix/demos/clipart``.

The drawings come from Debian's package ``openclipart-png`` (about 130 MB, public domain). Only the curated
list ``tools/clipart.tsv`` decides which drawings are used and which split they belong to; nothing is drawn
at random here, so the same package and the same Pillow release give the same bytes.

Get the package and run the script from the root of the repository::

    apt-get download openclipart-png
    dpkg -x openclipart-png_*_all.deb /tmp/openclipart
    python tools/make_clipart.py --source /tmp/openclipart

The set in the repository was made from version 1:0.18+dfsg-19, whose .deb file has the SHA-256
f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02, with Pillow 13.0.0.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

REPOSITORY = Path(__file__).resolve().parent.parent
SELECTION_FILE = Path(__file__).resolve().with_name("clipart.tsv")
DEFAULT_TARGET = REPOSITORY / "src" / "neurenix" / "demos" / "clipart"

IMAGE_SIZE = 160
MARGIN = 6
WEBP_QUALITY = 80
BYTES_LIMIT = 1_500_000
SPLITS = ("train", "test")
# Anti-aliased edges fade to almost white; anything closer to white than this counts as background.
BACKGROUND_TOLERANCE = 8


@dataclass(frozen=True)
class Choice:
    """One line of the curated list: a drawing and the place it gets in the image set."""

    label: str
    split: str
    source: str
    title: str
    author: str

    @property
    def file(self) -> str:
        """Path of the finished image below the target folder."""
        return f"{self.split}/{self.label}/{Path(self.source).stem.lower()}.webp"


def read_selection(path: Path) -> list[Choice]:
    """Read the curated list and refuse one that would write two drawings to one file."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        choices = [Choice(row["class"], row["split"], row["source"], row["title"], row["author"]) for row in rows]
    unknown = sorted({choice.split for choice in choices} - set(SPLITS))
    if unknown:
        raise ValueError(f"{path} names the splits {unknown}; possible are {list(SPLITS)}")
    if len({choice.file for choice in choices}) != len(choices):
        raise ValueError(f"{path} leads to the same output file more than once")
    return choices


def flatten(path: Path) -> Image.Image:
    """Open a drawing and compose its transparent parts over white."""
    with Image.open(path) as opened:
        drawing = opened.convert("RGBA")
    background = Image.new("RGBA", drawing.size, "white")
    background.alpha_composite(drawing)
    return background.convert("RGB")


def trim(image: Image.Image) -> Image.Image:
    """Cut away the white surroundings: many drawings fill only a corner of their page."""
    difference = ImageChops.difference(image, Image.new("RGB", image.size, "white")).convert("L")
    box = difference.point(lambda value: 255 if value > BACKGROUND_TOLERANCE else 0).getbbox()
    if box is None:
        raise ValueError("the drawing is entirely white")
    return image.crop(box)


def fit_square(image: Image.Image) -> Image.Image:
    """Scale the longest side to the image size less its margin, and centre the result on white."""
    available = IMAGE_SIZE - 2 * MARGIN
    scale = available / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    square.paste(resized, ((IMAGE_SIZE - width) // 2, (IMAGE_SIZE - height) // 2))
    return square


def write_images(choices: list[Choice], source: Path, target: Path) -> None:
    """Write every chosen drawing, after removing the images of an earlier run."""
    missing = [choice.source for choice in choices if not (source / choice.source).is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} drawings are not below {source}, the first is {missing[0]}")
    for split in SPLITS:
        shutil.rmtree(target / split, ignore_errors=True)
    for choice in choices:
        path = target / choice.file
        path.parent.mkdir(parents=True, exist_ok=True)
        image = fit_square(trim(flatten(source / choice.source)))
        image.save(path, "WEBP", quality=WEBP_QUALITY, method=6)


def write_sources(choices: list[Choice], target: Path) -> None:
    """Write SOURCES.tsv, which says for every image where it comes from and who drew it."""
    lines = ["class\tsplit\tfile\tsource\ttitle\tauthor"]
    for choice in choices:
        fields = (choice.label, choice.split, choice.file, choice.source, choice.title, choice.author)
        lines.append("\t".join(fields))
    (target / "SOURCES.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def summarise(choices: list[Choice], target: Path) -> tuple[int, str]:
    """Return the total size in bytes and one digest over all images in the order of the list."""
    digest = hashlib.sha256()
    total = 0
    for choice in choices:
        content = (target / choice.file).read_bytes()
        digest.update(content)
        total += len(content)
    return total, digest.hexdigest()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Re-create the clip-art image set of neurenix.demos.")
    parser.add_argument("--source", type=Path, required=True, help="folder of the unpacked openclipart-png package")
    parser.add_argument("--target", type=Path, default=DEFAULT_TARGET, help="folder to write the set to")
    return parser.parse_args()


def main() -> None:
    """Make the image set and say how large it became."""
    arguments = parse_arguments()
    choices = read_selection(SELECTION_FILE)
    write_images(choices, arguments.source, arguments.target)
    write_sources(choices, arguments.target)
    total, digest = summarise(choices, arguments.target)
    print(f"{len(choices)} images, {total} bytes, SHA-256 over all images {digest}")
    if total > BYTES_LIMIT:
        raise SystemExit(f"the images take {total} bytes; at most {BYTES_LIMIT} may ship in the package")


if __name__ == "__main__":
    main()
