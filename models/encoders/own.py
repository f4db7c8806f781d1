"""Your own network: a function in a file or in an installed package that returns any `nn.Module`."""

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from datasets.data import reason
from models.encoders import Encoder, ImageShape
from models.encoders.network import around, load_weights


def build(
    image_shape: ImageShape,
    embedding: int | None = None,
    *,
    file: str | None = None,
    build: str = "build",
    module: str | None = None,
    options: dict[str, Any] | None = None,
    weights: str | None = None,
) -> Encoder:
    """A network from images (B, C, H, W) in [0, 1] to features (B, F); with `embedding`, a linear layer follows.

    Args:
        file: a Python file, relative to the working directory
        build: the function in it that returns the network
        module: instead of a file, package:function of what is installed
        options: arguments of the function
        weights: a file with the network's state dictionary
    """
    if (file is None) == (module is None):
        raise ValueError(
            "expected one of file and module, e.g. {file: my_nets.py, build: lenet} or {module: package:f}"
        )
    function, where = _in_file(file, build) if file else _in_module(str(module))
    try:
        network = function(**(options or {}))
    except Exception as error:  # the user's code
        raise ValueError(f"{where} failed ({type(error).__name__}: {reason(error)})") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{where} returned {type(network).__name__}; expected a torch.nn.Module")
    if weights:
        load_weights(network, weights)
    try:
        return around(network, image_shape, embedding)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _in_file(file: str, name: str) -> tuple[Callable[..., Any], str]:
    """The function of a file, and what to call it in messages."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"file: {file} does not exist (looked for in {Path.cwd()})")
    spec = importlib.util.spec_from_file_location(f"own_encoder_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"file: {file} is not a Python file; expected a name that ends in .py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # classes of it can be copied and pickled
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # the user's code
        raise ValueError(f"file: {file} cannot be imported ({type(error).__name__}: {reason(error)})") from error
    return _function(loaded, name, file), f"{name} in {file}"


def _in_module(name: str) -> tuple[Callable[..., Any], str]:
    package, _, function = name.partition(":")
    if not function:
        raise ValueError(f"module: got {name!r}; expected package:function")
    try:
        loaded = import_module(package)
    except Exception as error:  # the package's code
        raise ValueError(f"module: {package} cannot be imported ({type(error).__name__}: {reason(error)})") from error
    return _function(loaded, function, package), name


def _function(loaded: Any, name: str, where: str) -> Callable[..., Any]:
    for part in name.split("."):
        loaded = getattr(loaded, part, None)
    if not callable(loaded):
        raise ValueError(f"{where} has no function {name}")
    return loaded
