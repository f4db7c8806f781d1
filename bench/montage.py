"""Images generated after each task, side by side, from the figures of a finished seed.

python bench/montage.py results/study/mnist_task/prer/exp_0 --tasks 0 2 4 --out docs/samples.png
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
    parser.add_argument("--tasks", type=int, nargs="+", help="only after these (all)")
    parser.add_argument("--width", type=int, default=1600, help="of the picture, in pixels (1600)")
    options = parser.parse_args()
    found = {int(file.stem.rpartition("_")[2]): file for file in options.folder.glob("plots/samples_task_*.png")}
    files = [found[task] for task in sorted(found) if options.tasks is None or task in options.tasks]
    if not files:
        print(
            f"{options.folder}: no such plots/samples_task_*.png; only methods that generate images draw them",
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
