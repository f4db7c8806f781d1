"""Fashion-MNIST: clothes, 60,000 + 10,000, 28 x 28, grey (Xiao et al., arXiv 1708.07747)."""

from datasets.torchvision import loader

load = loader("FashionMNIST")
