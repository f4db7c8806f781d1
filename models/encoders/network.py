"""Encoders made of networks that others wrote: yours, those of a package, torchvision's, timm's."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets.data import reason
from models.encoders import Encoder, ImageShape
from models.encoders.paper import decoder

MAX_NAMED = 3  # keys of a state dictionary in a message


class Colour(nn.Module):
    """Grey images (B, 1, H, W) as colour images (B, 3, H, W); colour images as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def around(network: nn.Module, image_shape: ImageShape, embedding: int | None) -> Encoder:
    """The encoder whose features are a network's outputs (B, F); with `embedding`, a linear layer follows."""
    encoder = Encoder(network, nn.Identity(), image_shape, decoder)
    if embedding is None:
        return encoder
    return Encoder(network, nn.Linear(encoder.feature_dim, embedding), image_shape, decoder)


def check_known(package: str, name: str, known: Sequence[str]) -> None:
    """Raise ValueError with similar names if a package has no network of this name."""
    if name not in known:
        near = ", ".join(get_close_matches(name, known)) or f"{', '.join(known[:MAX_NAMED])}, ..."
        raise ValueError(f"{package} has no network {name!r}; known: {near}")


def read_weights(file: str) -> dict[str, Tensor]:
    """The state dictionary in a file, on CPU; code in it does not run. Raises ValueError if there is none."""
    try:
        state = torch.load(Path(file).expanduser(), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many types
        raise ValueError(f"weights: {file} cannot be read as a state dictionary ({reason(error)})") from error
    for wrapper in ("state_dict", "model"):  # around the dictionary in checkpoints of other programs
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"weights: {file} holds no state dictionary; write it with torch.save(model.state_dict(), ...)"
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(network: nn.Module, file: str, without: str | tuple[str, ...] = ()) -> None:
    """Load the state dictionary in a file; keys that begin with one of `without` are left out.

    Raises ValueError that names the first keys that do not fit.
    """
    state, own = read_weights(file), network.state_dict()
    state, own = ({k: v for k, v in one.items() if not k.startswith(without)} for one in (state, own))
    shaped = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    odd = {
        "missing": [name for name in own if name not in state],
        "unknown": [name for name in state if name not in own],
        "other shapes": shaped,
    }
    if lines := [f"{what}: {_first(names)}" for what, names in odd.items() if names]:
        raise ValueError(f"weights: {file} does not fit the network; {'; '.join(lines)}")
    network.load_state_dict(state, strict=False)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
