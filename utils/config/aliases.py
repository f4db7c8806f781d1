"""The names in YAML files of the original code and of older versions, translated to ours before validation."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from utils.config.yaml_text import Pair
from utils.settings import BadInput

SECTIONS = {"cl_technique_config": "method", "cl_config": "scenario", "train_config": "train"}
"""The original's sections -> ours."""

METHODS = {"gan": "gfr", "prer_proj": "prer"}
"""The original's methods -> ours, if the names differ."""

FLAT = {
    "autoencoder": "rec_loss softclip",
    "flow": "blocks levels hidden_size n_hiddens weight_decay annealing conditioning_config "
    "tolerance tolerance_training tolerance_cap",
    "regularization": "type distance fixed_replay to_sample",
    "weights": "old_tasks er l1 ce rec",
}
"""Options of prer that older files write directly under `cl_technique_config`, by our section."""

KEYS: dict[str, dict[str, str]] = {
    "scenario": {"cl_problem": "type", "label_per_task": "labels_per_task", "shuffle_labels": "class_order"},
    "train": {"cuda": "device"},
    "ewc": {"penalty_importance": "importance", "task_size": "fisher_samples", "sample_size": "fisher_samples"},
    "gem": {"task_memory_size": "memory_per_task"},
    "er": {"task_memory_size": "memory_per_task", "penalty_importance": "importance"},
    "prer": {
        "autoencoder_epochs": "autoencoder.epochs",
        "generator_epochs": "flow.epochs",
        "reset_nf": "flow.reset",
        "reset_decoder": "autoencoder.reset",
        "nf": "flow",
        "flow.tolerance_training": "flow.early_stopping",
        "flow.n_hiddens": "flow.hidden_layers",
        "flow.conditioning_config": "flow.conditioning",
        "autoencoder.conditioning_config": "autoencoder.conditioning",
        "n_levels": "flow.levels",
        "n_hidden": "flow.hidden_layers",
        "z_dim": "flow.dimension",
        "prior_std": "flow.temperature",
        "train_batch_size": "flow.batch_size",
        "ae_conditioned": "autoencoder.conditioning.type",
        **{name: f"{section}.{name}" for section, names in FLAT.items() for name in names.split()},
    },
}
"""Our section, or the method for its own options -> dotted key or prefix -> ours, applied from the left:
`nf.conditioning_config.type` -> `flow.conditioning_config.type` -> `flow.conditioning.type`."""

VALUES: dict[str, Mapping[Any, str]] = {
    "method": METHODS,
    "method.name": METHODS,
    "scenario.type": {"mt": "task", "sit": "class"},
    "scenario.class_order": {True: "shuffled", False: "natural"},
    "train.device": {True: "auto", False: "cpu"},
    # The original's flow was unconditional, and a classifier of embeddings labelled its samples; ours is conditional.
    "prer.flow.conditioning.type": {"autoencoder": "one_hot"},
    "prer.autoencoder.conditioning.type": {True: "one_hot", False: "none"},
}
"""Our key (a method's own: under its name) -> the original's value, in any case -> ours."""

WITHOUT_EFFECT = {
    "scenario.regularize": "it had none in the original",
    "train.warm_up_epochs": "it had none in the original",
    "er.batch_size": "it had none in the original",
    "gem.batch_size": "all stored images are used at each step, as in the original",
    "gem.sample_size": "all stored images are used at each step, as in the original",
    "lwf.memory_size": "it had none in the original; nothing is stored",
    "prer.model_type": "flow.type names the flow",
    "prer.plot_step": "figures are drawn after each task",
    "prer.replay.space": "generated images are replayed; the method prer_features replays features",
    "prer.autoencoder.softclip": "the deviation of rec_loss: gaussian is always bounded below by e^-6",
    "prer.autoencoder.conditioning.conditioner_fine_tuning": "there is no classifier besides the decoder",
    "prer.flow.conditioning.conditioner_fine_tuning": "there is no classifier besides the decoder",
    "prer.flow.nf_weight_decay": "it had none in the original; use weight_decay",
    "prer.flow.tolerance_cap": "the number of epochs is the cap",
    "prer.weights.ce": "the decoder is trained on reconstructions alone",
    "prer.weights.rec": "the decoder is trained on reconstructions alone",
}
"""Our key (a method's own: under its name) that is accepted and ignored -> why."""


SHORT = {"scenario.datasets": "scenario.dataset"}
"""Short forms of ours: a list there is the option `datasets` of the data set `sequence`."""
NULLS = {"scenario.dataset.path", "scenario.dataset.image_size", "scenario.dataset.channels"}
"""Options of some data sets, for which older versions wrote null where the data set has none."""


def translate(written: Sequence[Pair], method: str) -> tuple[list[Pair], dict[str, str]]:
    """Dotted keys and values as written -> ours, for an experiment with this method; and ignored keys -> why."""
    ours, ignored = list[Pair](), dict[str, str]()
    for name, value in written:
        key = translate_key(name, method)
        own = _in_tables(key, method)
        word = value.lower() if isinstance(value, str) else value
        if (own, word) == ("prer.replay.space", "embedding"):
            raise BadInput(f"{key}: embedding is the method prer_features now; name that one")
        if isinstance(word, str | bool):  # 1 is not `yes`
            value = VALUES.get(key, VALUES.get(own, {})).get(word, value)
        if key == "scenario.dataset" and isinstance(value, list):
            value = {"name": "sequence", "datasets": value}
        if own in WITHOUT_EFFECT:
            ignored[name] = WITHOUT_EFFECT[own]
        else:
            ours.append((key, value))
    return ours, ignored


def translate_key(key: str, method: str) -> str:
    """A dotted key in our names, for an experiment with this method; lower case, as in the original."""
    section, *parts = key.lower().split(".")
    section = SECTIONS.get(section, section)
    names = KEYS.get(_in_tables(section, method), {})
    done = ""
    for part in parts:
        done = f"{done}.{part}" if done else part
        while done in names:
            done = names[done]
    key = f"{section}.{done}" if parts else section
    return SHORT.get(key, key)


def named_method(written: Sequence[Pair]) -> str:
    """Our name of the method that is named last, or empty."""
    of_method = [value for key, value in written if translate_key(key, "") in ("method", "method.name")]
    name = next((value.lower() for value in reversed(of_method) if isinstance(value, str)), "")
    return METHODS.get(name, name)


def known_names(prefix: str, method: str) -> list[str]:
    """The original's names of the keys directly under our section `prefix`; of the sections, if it is empty."""
    old = [*SECTIONS, *WITHOUT_EFFECT, *(f"{owner}.{key}" for owner, names in KEYS.items() for key in names)]
    parted = [key.rpartition(".") for key in old]
    return [name for section, _, name in parted if section == _in_tables(prefix, method)]


def doubles(keys: Sequence[tuple[str, str]]) -> list[str]:
    """Errors about keys, each as written and in our names: a file may set a key, or one above it, only once."""
    first = {ours: number for number, (_, ours) in reversed(list(enumerate(keys)))}
    lines = []
    for number, (_, ours) in enumerate(keys):
        for above in accumulate(ours.split("."), lambda one, part: f"{one}.{part}"):
            if (other := first.get(above, number)) != number:
                one, two = (keys[i][0] for i in sorted((other, number)))
                lines.append(f"{one} and {two} both set {above}; keep one of them")
    return lines


def _in_tables(key: str, method: str) -> str:
    """A key as the tables have it, a method's own under its name; what is none of theirs begins with a dot."""
    section, dot, rest = key.partition(".")
    return f"{method if section == 'method' else section if section in ('scenario', 'train') else ''}{dot}{rest}"
