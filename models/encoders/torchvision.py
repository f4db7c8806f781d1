"""A classification network of torchvision without its last layer: `encoder: torchvision:resnet18`."""

from pathlib import Path

from torch import nn

from datasets.data import reason
from models.encoders import Encoder, ImageShape
from models.encoders.network import Colour, around, check_known, load_weights


def build(image_shape: ImageShape, embedding: int | None = None, *, model: str, weights: str = "none") -> Encoder:
    """The inputs of the network's last linear layer are the features; grey images are repeated in three channels.

    Args:
        model: a name in torchvision.models, e.g. resnet18
        weights: none; DEFAULT or the name of other weights of torchvision, which are downloaded; or a file with a state
            dictionary in torchvision's layout, with the last layer or without it
    """
    import torchvision.models as zoo

    check_known("torchvision", model, zoo.list_models(module=zoo))
    is_file = weights not in ("none", "DEFAULT") and weights not in zoo.get_model_weights(model).__members__
    if is_file and not Path(weights).expanduser().is_file():
        names = ", ".join(zoo.get_model_weights(model).__members__)
        raise ValueError(f"weights: {weights} is no file, nor a name of weights of {model}: none, DEFAULT, {names}")
    try:
        network = zoo.get_model(model, weights=None if is_file or weights == "none" else weights)
    except (OSError, RuntimeError) as error:  # no network, a full disk, a download that breaks off
        raise ValueError(
            f"the weights {weights} of {model} cannot be downloaded ({reason(error)}); "
            "download them elsewhere, and give the file as weights"
        ) from error
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"{model} does not end in a linear layer; choose another network")
    last = linear[-1]
    network.set_submodule(last, nn.Identity())
    if hasattr(network, "aux_logits"):  # classifiers of inner layers, which the training mode adds to the output
        network.aux_logits = False
    if is_file:
        load_weights(network, weights, without=f"{last}.")
    return around(nn.Sequential(Colour(), network) if image_shape[0] == 1 else network, image_shape, embedding)
