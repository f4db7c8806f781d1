"""What was chosen for speed on CPU, compared with the alternatives: `python bench/choices.py`.

Of each choice the first way is the program's. All ways of one choice are checked to give the same numbers, and take
turns, so that a drift of the machine affects all equally; the table gives medians and their ratio to the first.
"""

import argparse
import functools
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # in the place of bench/, whose profile.py is not the library's
    sys.path[0] = str(Path(__file__).parent.parent)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.ideas import GREY, Ways, convolutions, couplings, gem
from bench.measuring import machine, markdown
from datasets.data import as_floats, laid_out
from datasets.tasks import permute
from methods.mechanisms.gradients import gradient_of
from models.autoencoder import pixel_cross_entropy
from models.encoders import paper
from models.encoders.paper import BlockwiseTranspose
from utils.run.allocator import keep_freed_memory

COLOUR = (3, 32, 32)


def evaluation(shape: tuple[int, int, int]) -> Ways:
    """2,000 images (C, H, W) through the paper's encoder without gradients, so many at a time."""
    encoder, images = paper.build(shape, None), torch.randint(256, (2000, *shape), dtype=torch.uint8)

    @torch.inference_mode()
    def by(size: int) -> Tensor:
        return torch.cat([encoder(as_floats(part)) for part in images.split(size)])

    return {f"{size} images at once": functools.partial(by, size) for size in (128, 64, 256, 1000)}


@functools.cache
def colour_step() -> Callable[[], Tensor]:
    """What computes the gradient (P,) of 64 colour images; made once a process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder, images = paper.build(COLOUR, None), torch.randint(256, (64, *COLOUR), dtype=torch.uint8)
    return lambda: gradient_of(encoder(as_floats(images)).square().mean(), encoder.parameters())


def colour_gradient_norm() -> Tensor:
    """Of that gradient: all that has to leave the process."""
    return colour_step()().norm()


def allocator() -> Ways:
    """The same step in two processes, since how memory is given is a matter of the whole process."""

    def process(*initializer: Callable[[], None]) -> Callable[[], Tensor]:
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), *initializer)
        return lambda: pool.submit(colour_gradient_norm).result()

    return {"freed memory is kept": process(keep_freed_memory), "glibc as it is": process()}


def last_decoder_layer() -> Ways:
    """Forward and backward pass of the grey decoder's last layer, on 128 codes."""
    ours, usual = (kind(12, 1, 4, 2, 1) for kind in (BlockwiseTranspose, nn.ConvTranspose2d))
    usual.load_state_dict(ours.state_dict())
    x = laid_out(torch.rand(128, 12, 14, 14))

    def step(layer: nn.Module) -> Tensor:
        return gradient_of(layer(x).square().mean(), layer.parameters())

    return {"block by block": lambda: step(ours), "transposed convolution": lambda: step(usual)}


def reconstruction() -> Ways:
    """Gradient (128, 1, 28, 28) of the binary cross-entropy of pixels."""
    logits, x = laid_out(torch.randn(128, *GREY)).requires_grad_(), laid_out(torch.rand(128, *GREY))

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(loss(logits, x).mean(), logits)[0]

    return {
        "-log sigmoid": lambda: step(pixel_cross_entropy),
        "torch's": lambda: step(F.binary_cross_entropy_with_logits),
    }


def permuted() -> Ways:
    """10,000 grey images with their pixels in another order."""
    images = torch.randint(256, (10_000, *GREY), dtype=torch.uint8)
    order = torch.randperm(images[0].numel())
    return {
        "NumPy's take": lambda: permute(order, images),
        "indexing": lambda: images.flatten(2)[:, :, order].view_as(images),
    }


CHOICES: dict[str, tuple[str, Callable[[bool], Ways]]] = {
    "evaluation-grey": ("2,000 grey images through the paper's encoder", lambda _: evaluation(GREY)),
    "evaluation-colour": ("2,000 colour images through the paper's encoder", lambda _: evaluation(COLOUR)),
    "allocator": ("gradient of 64 colour images, the paper's encoder", lambda _: allocator()),
    "decoder": ("gradient of the last layer of the grey decoder, 128 codes", lambda _: last_decoder_layer()),
    "reconstruction": ("gradient of the binary cross-entropy of 128 grey images", lambda _: reconstruction()),
    "convolutions": ("gradient of 64 grey images, the paper's encoder", convolutions),
    "couplings": ("gradient of 256 codes of 100 dimensions, 20 couplings", couplings),
    "permuted": ("10,000 grey images with their pixels in another order", lambda _: permuted()),
    "gem": ("products of a direction with the gradients of four memories of 200 grey images", lambda _: gem()),
}
"""What is measured, and what makes the ways (with those of torch.compile or not)."""


def measure(ways: Ways, rounds: int) -> list[list[str]]:
    """Rows of the table.

    Raises:
        AssertionError: two ways do not give the same numbers.
    """
    expected = next(iter(ways.values()))()
    first_s, seconds = {}, defaultdict(list)
    for name, way in ways.items():
        begin = time.perf_counter()
        got = way()
        first_s[name] = time.perf_counter() - begin
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    usual = median(next(iter(seconds.values())))
    late = {name: f" (the first time {s:.0f} s)" if s > 1 else "" for name, s in first_s.items()}
    return [[n + late[n], f"{median(s) * 1e3:.2f}", f"{median(s) / usual:.2f}"] for n, s in seconds.items()]


def main() -> int:
    """Measure the choices that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choices", nargs="*", metavar="choice", help=f"of {', '.join(CHOICES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=25, help="measurements of each way (default 25)")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which needs a C++ compiler")
    options = parser.parse_args()
    if unknown := set(options.choices) - set(CHOICES):
        parser.error(f"no choice {', '.join(sorted(unknown))}: one of {', '.join(CHOICES)}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    print(f"{machine()}, one thread, medians of {options.rounds}\n")
    for name in options.choices or CHOICES:
        what, make = CHOICES[name]
        print(f"{markdown([f'{name}: {what}', 'ms', 'ratio'], measure(make(options.compile), options.rounds))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
