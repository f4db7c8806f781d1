"""CIFAR-10: 50,000 + 10,000 colour images, 32 x 32 (Krizhevsky 2009)."""

from datasets.torchvision import loader

load = loader("CIFAR10")
