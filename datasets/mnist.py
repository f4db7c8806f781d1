"""MNIST: handwritten digits, 60,000 + 10,000, 28 x 28, grey (LeCun et al. 1998)."""

from datasets.torchvision import loader

load = loader("MNIST")
