"""SVHN: house numbers, 73,257 + 26,032, 32 x 32, colour (Netzer et al. 2011)."""

from datasets.torchvision import loader

load = loader("SVHN")
