"""The names that the original code's YAML files use, translated to ours before anything is validated."""

from collections.abc import Iterable

RENAMED = {
    "cl_technique_config": "method",
    "cl_config": "scenario",
    "train_config": "train",
    "method.autoencoder_epochs": "method.autoencoder.epochs",
    "method.generator_epochs": "method.flow.epochs",
    "method.nf": "method.flow",
    "method.autoencoder.conditioning_config": "method.autoencoder.conditioning",
    "method.flow.conditioning_config": "method.flow.conditioning",
    "method.flow.n_hiddens": "method.flow.hidden_layers",
    "scenario.cl_problem": "scenario.type",
    "scenario.label_per_task": "scenario.labels_per_task",
    "train.cuda": "train.device",
}
"""Dotted key, or its beginning -> ours, from the outside in: `cl_technique_config.nf.lr` -> `method.flow.lr`."""

VALUES = {
    "scenario.type": {"mt": "task", "sit": "class"},
    "train.device": {True: "auto", False: "cpu"},
}
"""Our dotted key -> the original's value -> ours."""


def translate_key(key: str) -> str:
    """A dotted key in our names."""
    parts = key.split(".")
    done: list[str] = []
    for part in parts:
        done.append(part)
        done = RENAMED.get(".".join(done), ".".join(done)).split(".")
    return ".".join(done)


def translate_value(key: str, value: object) -> object:
    """The value of one of our dotted keys, in our words."""
    words = VALUES.get(key, {})
    for word, ours in words.items():
        same_word = isinstance(word, str) and isinstance(value, str) and value.lower() == word
        if same_word or (isinstance(word, bool) and value is word):
            return ours
    return value


def known_names(prefix: str) -> Iterable[str]:
    """The original's names of the keys directly under our section `prefix` (empty: of the sections)."""
    for old in RENAMED:
        parent, _, name = old.rpartition(".")
        if parent == prefix:
            yield name
