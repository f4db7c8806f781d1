"""What a generator made up after each task, side by side, from the figures of a finished seed.

python bench/montage.py results/mnist/prer/exp_0 --out docs/samples.png
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from PIL import Image


def main() -> int:
    """Write the picture that the command line asks for."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="exp_<seed> of a results folder")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--width", type=int, default=1600, help="of the picture, in pixels (1600)")
    options = parser.parse_args()
    files = sorted(options.folder.glob("plots/samples_task_*.png"), key=lambda file: int(file.stem.rpartition("_")[2]))
    if not files:
        print(
            f"{options.folder}: no plots/samples_task_*.png; only methods that make up images draw them",
            file=sys.stderr,
        )
        return 2
    side_by_side([Image.open(file).convert("RGB") for file in files], options.width).save(options.out, optimize=True)
    print(options.out)
    return 0


def side_by_side(images: list[Image.Image], width: int) -> Image.Image:
    """All of them from left to right, aligned at the top, in a picture of this width."""
    whole = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    return whole.resize((width, round(whole.height * width / whole.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(main())
