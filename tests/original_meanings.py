"""What the YAML files in originals/, written for the original code, mean in our names."""

from typing import NamedTuple

USUAL = {
    "scenario.type": "task",
    "scenario.labels_per_task": 2,
    "scenario.class_order": "natural",
    "train.epochs": 20,
    "train.batch_size": 64,
    "train.experiments": 5,
    "train.optimizer": "adam",
    "train.lr": 0.001,
    "train.device": "auto",
    "train.load": True,
    "train.save": True,
}
"""What every file means, unless it is said below."""

REGULARIZE, WARM_UP = "cl_config.regularize", "train_config.warm_up_epochs"


class Meaning(NamedTuple):
    """What a file resolves to: `USUAL`, these keys, and the defaults for the rest; the keys without effect in it."""

    keys: dict
    ignored: tuple[str, ...] = ()


def method(**options) -> dict:
    return {f"method.{name}": value for name, value in options.items()}


MEANINGS = {
    "naive_mnist": Meaning({"train.save_path": "Results/MNIST/naive"}, (REGULARIZE,)),
    "naive_cifar10": Meaning({"train.optimizer": "sgd", "train.lr": 0.01}, (WARM_UP,)),
    "naive_svhn": Meaning(
        {"scenario.type": "class", "train.device": "cpu", "train.batch_size": 128},
        (REGULARIZE,),
    ),
    "joint_mnist": Meaning({"scenario.type": "class"}, (REGULARIZE,)),
    "joint_cifar10": Meaning({"scenario.class_order": "shuffled"}, (REGULARIZE,)),
    "joint_svhn": Meaning({"train.epochs": 5, "train.experiments": 1, "train.load": False, "train.save": False}),
    "ewc_mnist": Meaning(method(importance=100.0, fisher_samples=500), (REGULARIZE,)),
    "ewc_cifar10": Meaning(method(importance=1000.0), (WARM_UP,)),
    "ewc_svhn": Meaning({"scenario.type": "class"} | method(importance=10.0, fisher_samples=250), (REGULARIZE,)),
    "gem_mnist": Meaning(method(memory_per_task=500, margin=0.5), (REGULARIZE,)),
    "gem_cifar10": Meaning(method(memory_per_task=1000), ("cl_technique_config.sample_size",)),
    "gem_svhn": Meaning(
        {"train.device": "cpu"} | method(memory_per_task=250, margin=0.0),
        ("cl_technique_config.batch_size", REGULARIZE),
    ),
    "er_mnist": Meaning(method(memory_per_task=200, sample_size=50, importance=1.0), (REGULARIZE,)),
    "er_cifar10": Meaning(
        method(memory_per_task=100, sample_size=25, importance=10.0, distance="euclidean", normalize=True),
        ("cl_technique_config.batch_size",),
    ),
    "er_svhn": Meaning(method(memory_per_task=300, distance="cosine", normalize=False), (WARM_UP, REGULARIZE)),
    "lwf_mnist": Meaning(method(alpha=0.5, temperature=1.0), ("cl_technique_config.memory_size", REGULARIZE)),
    "lwf_cifar10": Meaning(method(alpha=0.1)),
    "lwf_svhn": Meaning({"scenario.type": "class"} | method(alpha=1.0, temperature=2.0), (WARM_UP,)),
    "gan_mnist": Meaning({}, (REGULARIZE,)),
    "gan_cifar10": Meaning({}),
    "gan_svhn": Meaning({"scenario.type": "class"}, (WARM_UP,)),
    "prer_mnist": Meaning(
        {
            "train.save_path": "results/mnist/PRER",
            "method.plot": True,
            "method.flow.tolerance": 10,
            "method.autoencoder.epochs": 10,
            "method.autoencoder.lr": 0.001,
            "method.autoencoder.batch_size": 64,
            "method.autoencoder.rec_loss": "bce",
            "method.autoencoder.conditioning.type": "one_hot",
            "method.autoencoder.conditioning.dimension": 10,
            "method.flow.epochs": 20,
            "method.flow.levels": 2,
            "method.flow.blocks": 20,
            "method.flow.hidden_layers": 0,
            "method.flow.hidden_size": 1.0,
            "method.flow.lr": 0.001,
            "method.flow.weight_decay": 1e-5,
            "method.flow.batch_size": 128,
            "method.flow.annealing": True,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.type": "alternation",
            "method.regularization.distance": "cosine",
            "method.regularization.fixed_replay": 10_000,
            "method.regularization.to_sample": 64,
            "method.weights.old_tasks": 0.5,
            "method.weights.er": 1.0,
            "method.weights.l1": 0.0,
        },
        (
            "cl_technique_config.plot_step",
            "cl_technique_config.nf.tolerance_cap",
            "cl_technique_config.weights.ce",
            "cl_technique_config.weights.rec",
            WARM_UP,
            REGULARIZE,
        ),
    ),
    "prer_cifar10": Meaning(
        {
            "method.plot": False,
            "method.autoencoder.epochs": 1,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "none",
            "method.flow.epochs": 10,
            "method.flow.levels": 2,
            "method.flow.blocks": 5,
            "method.flow.conditioning.type": "class_embedding",
            "method.flow.conditioning.dimension": 16,
            "method.regularization.type": "overwrite",
            "method.regularization.distance": "euclidean",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.er": 10.0,
        },
        ("cl_technique_config.autoencoder.conditioning_config.conditioner_fine_tuning", REGULARIZE),
    ),
    "prer_svhn": Meaning(
        {
            "scenario.type": "class",
            "train.device": "cpu",
            "method.autoencoder.epochs": 25,
            "method.autoencoder.rec_loss": "gaussian",
            "method.flow.epochs": 50,
            "method.flow.levels": 2,
            "method.flow.blocks": 1,
            "method.flow.hidden_size": 100,
            "method.flow.annealing": False,
            "method.flow.conditioning.type": "one_hot",
            "method.regularization.type": "concatenation",
            "method.regularization.fixed_replay": 5000,
            "method.weights.er": 10.0,
            "method.weights.replay": 1.0,  # the default of the class scenario; the original's code had no such term
            "method.regularization.noise": 0.15,  # likewise
            "method.weights.l1": 1e-4,
        },
        ("cl_technique_config.autoencoder.softclip",),
    ),
    "prer_mnist_flat": Meaning(
        {
            "method.plot": False,
            "method.autoencoder.epochs": 10,
            "method.autoencoder.rec_loss": "bce",
            "method.flow.epochs": 20,
            "method.flow.dimension": 20,
            "method.flow.levels": 2,
            "method.flow.blocks": 20,
            "method.flow.hidden_layers": 1,
            "method.flow.hidden_size": 1.0,
            "method.flow.batch_size": 128,
            "method.flow.temperature": 1.0,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.fixed_replay": 10_000,
            "method.regularization.to_sample": 32,
            "method.weights.er": 1.0,
            "method.weights.l1": 0.0,
        },
        ("cl_technique_config.model_type", REGULARIZE),
    ),
    "prer_cifar10_flat": Meaning(
        {
            "method.plot": True,
            "method.flow.early_stopping": True,
            "method.flow.tolerance": 10,
            "method.autoencoder.epochs": 1,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "one_hot",
            "method.flow.epochs": 10,
            "method.flow.levels": 2,
            "method.flow.blocks": 5,
            "method.flow.hidden_layers": 0,
            "method.flow.hidden_size": 2.0,
            "method.flow.weight_decay": 1e-5,
            "method.flow.annealing": False,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.type": "alternation",
            "method.regularization.distance": "euclidean",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.old_tasks": 0.5,
            "method.weights.er": 10.0,
            "method.weights.l1": 0.0,
        },
        (
            "cl_technique_config.softclip",
            "cl_technique_config.plot_step",
            "cl_technique_config.tolerance_cap",
            "cl_technique_config.conditioning_config.conditioner_fine_tuning",
            "cl_technique_config.ce",
            "cl_technique_config.rec",
            WARM_UP,
            REGULARIZE,
        ),
    ),
    "prer_svhn_flat": Meaning(
        {
            "method.autoencoder.epochs": 25,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "none",
            "method.flow.epochs": 50,
            "method.flow.levels": 2,
            "method.flow.blocks": 1,
            "method.flow.hidden_size": 100,
            "method.flow.conditioning.type": "class_embedding",
            "method.flow.conditioning.dimension": 8,
            "method.regularization.type": "overwrite",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.er": 10.0,
        },
        ("cl_technique_config.nf.nf_weight_decay", REGULARIZE),
    ),
}
"""File in originals/ -> what it means."""
