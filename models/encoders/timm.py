"""A network of timm without its classifier: `encoder: timm:vit_tiny_patch16_224` (pip install timm)."""

from datasets.data import reason
from models.encoders import Encoder, ImageShape
from models.encoders.network import around, check_known, load_weights


def build(image_shape: ImageShape, embedding: int | None = None, *, model: str, weights: str = "none") -> Encoder:
    """The pooled output of the network is the embedding; grey images have a first layer of one channel.

    Args:
        model: a name in timm.list_models()
        weights: none; DEFAULT, timm's pretrained ones, which are downloaded; or a file with a state dictionary in
            timm's layout, with the classifier or without it
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"the package timm is not there ({reason(error)}); pip install timm") from error
    check_known("timm", model.partition(".")[0], timm.list_models())  # a name may end in ".<weights>"
    options = {"num_classes": 0, "in_chans": image_shape[0]}
    try:
        network = timm.create_model(model, pretrained=weights == "DEFAULT", **options)
    except (OSError, RuntimeError) as error:  # no network, a full disk, a download that breaks off
        raise ValueError(
            f"{model} cannot be made ({reason(error)}); weights may be a file that was downloaded elsewhere"
        ) from error
    if weights not in ("none", "DEFAULT"):
        names = network.default_cfg.get("classifier", ())
        load_weights(
            network, weights, without=tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        )
    return around(network, image_shape, embedding)
