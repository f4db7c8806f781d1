"""Kuzushiji-MNIST: cursive Japanese, 60,000 + 10,000, 28 x 28, grey (Clanuwat et al., arXiv 1812.01718)."""

from datasets.torchvision import loader

load = loader("KMNIST")
