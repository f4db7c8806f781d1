"""Time and peak memory of reading a folder of 100,000 JPEG images, 32 x 32 in colour, which it makes and removes.

python bench/folder.py                                  1 and 2 threads: some minutes
python bench/folder.py --images 10000 --threads 4       a choice
"""

import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np
from PIL import Image

from bench.measuring import ROOT

CLASSES, SIZE = 100, 32
READ = """
import resource, sys, time
from pathlib import Path
import torch
from datasets import DATASET, load

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
config, before = DATASET.validate({"name": "folder", "path": str(folder)}), peak()
start, cpu = time.perf_counter(), time.process_time()
data = load(config, folder)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
pixels = sum(split.x.numel() for split in (data.train, data.test)) / 2**20
print(f"{len(data.train) + len(data.test):,} images, {threads} threads: {seconds:.0f} s, {cpu:.0f} s of CPU time; "
      f"peak memory {peak() - before:.0f} MiB above the start, of which the images are {pixels:.0f} MiB")
"""
"""Run in a process of its own, whose peak memory is that of reading."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.images)
        for threads in options.threads:
            subprocess.run([sys.executable, "-c", READ, folder, str(threads)], cwd=ROOT, check=True)
    return 0


def make(folder: Path, images: int) -> None:
    """Smooth random images of about 1 kB, every tenth in test/, the others in train/."""
    stream = np.random.default_rng(0)
    for index in range(images):
        of_class = folder / ("test" if index % 10 == 9 else "train") / f"class{index // 10 % CLASSES}"
        of_class.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(stream.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(of_class / f"{index}.jpg", quality=90)


if __name__ == "__main__":
    raise SystemExit(main())
