"""Fine-tuning on a sequence of tasks, written by hand without any framework: what ours is measured against.

python bench/bare_loop.py data.npz --epochs 2      prints seconds and accuracies as one line of JSON

The paper's network for grey images, a head per task, Adam 1e-3, batches of 64, the images in memory as floats, batches
by indexing with a permutation, and after each task the accuracy on the test images of all tasks.
"""

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES_PER_TASK = 2
LEARNING_RATE = 1e-3
EVALUATION_BATCH = 1000
Part = tuple[Tensor, Tensor]
"""Images (N, 1, 28, 28), floats in [0, 1], and their labels (N,)."""


def options_of(parser: ArgumentParser) -> Namespace:
    """What the scripts that are measured have in common; threads are set here."""
    parser.add_argument("data", type=Path, help=".npz with x_train, y_train, x_test, y_test: uint8 images, class ids")
    parser.add_argument("--epochs", type=int, default=2, help="passes over each task")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    return options


def images_of(path: Path, part: str) -> Part:
    """All images of the train or test part."""
    with np.load(path) as arrays:
        return torch.from_numpy(arrays[f"x_{part}"]).float() / 255, torch.from_numpy(arrays[f"y_{part}"])


def tasks_of(x: Tensor, y: Tensor) -> list[Part]:
    """Classes 0 and 1, 2 and 3, ..., their labels counted from 0 in each."""
    masks = [y // CLASSES_PER_TASK == task for task in range((int(y.max()) + 1) // CLASSES_PER_TASK)]
    return [(x[mask], y[mask] % CLASSES_PER_TASK) for mask in masks]


def encoder() -> nn.Sequential:
    """Images (B, 1, 28, 28) -> embeddings (B, 100)."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 4, stride=2),
        nn.Flatten(),
        nn.Linear(24 * 6 * 6, 100),
    )


def head() -> nn.Sequential:
    """Embeddings (B, 100) -> logits (B, 2)."""
    return nn.Sequential(
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(100, 25),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(25, CLASSES_PER_TASK),
    )


def train(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, options: Namespace) -> None:
    """The epochs of one task."""
    network.train()
    for _ in range(options.epochs):
        for index in torch.randperm(len(y)).split(options.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images that are classified right."""
    network.eval()
    batches = zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True)
    return float(sum((network(images).argmax(dim=1) == labels).sum() for images, labels in batches)) / len(y)


def main() -> int:
    """Learn the tasks one after the other and print what came of it."""
    options = options_of(ArgumentParser(description=__doc__.partition("\n")[0]))
    tasks, tests = (tasks_of(*images_of(options.data, part)) for part in ("train", "test"))
    embed, heads = encoder(), nn.ModuleList(head() for _ in tasks)
    optimizer = torch.optim.Adam([*embed.parameters(), *heads.parameters()], LEARNING_RATE)
    seconds = {"train_s": 0.0, "eval_s": 0.0}
    for own_head, task in zip(heads, tasks, strict=True):
        begin = time.perf_counter()
        train(nn.Sequential(embed, own_head), optimizer, *task, options)
        learned = time.perf_counter()
        scores = [accuracy(nn.Sequential(embed, other), *test) for other, test in zip(heads, tests, strict=True)]
        seconds["train_s"] += learned - begin
        seconds["eval_s"] += time.perf_counter() - learned
    print(json.dumps({**seconds, "accuracies": scores, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
