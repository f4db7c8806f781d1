"""The same work as bare_loop.py done by Avalanche with one of its strategies, in an environment that has Avalanche.

python bench/avalanche_run.py data.npz --epochs 2 --method ewc --settings '{"importance": 1000}'

As lean as Avalanche allows: its own tensors in memory, no loggers, accuracy its only metric.
"""

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import EWC, GEM, LwF, Naive, Replay
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bench.bare_loop import CLASSES_PER_TASK, EVALUATION_BATCH, LEARNING_RATE, encoder, head, images_of, options_of


class MultiHead(MultiTaskModule):
    """The paper's network with a head per task."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.encoder, self.heads = encoder(), nn.ModuleList(head() for _ in range(tasks))

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """Images (B, C, H, W) of one task -> logits (B, k) of its head."""
        return self.heads[task_label](self.encoder(x))


def strategy_of(method: str, settings: dict[str, Any], tasks: int) -> tuple[type, dict[str, Any]]:
    """Avalanche's strategy and its options that mean what our settings mean.

    EWC: our penalty is half of the importance. Its importances are squares of gradients of batches, ours of samples.
    LwF: our loss is the mean over old heads, with the factor temperature^2; Avalanche's the sum, without it.
    """
    if method == "ewc":
        return EWC, {"ewc_lambda": settings["importance"] / 2, "mode": "separate"}
    if method == "lwf":
        factor = settings["alpha"] * settings["temperature"] ** 2
        alphas = [factor / max(old, 1) for old in range(tasks)]
        return LwF, {"alpha": alphas, "temperature": settings["temperature"]}
    if method == "replay":
        return Replay, {"mem_size": settings["memory_size"]}
    if method == "gem":
        return GEM, {"patterns_per_exp": settings["memory_per_task"], "memory_strength": settings["margin"]}
    return Naive, {}


def main() -> int:
    """Learn the tasks one after the other and print what came of it."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", default="naive", choices=["naive", "ewc", "lwf", "replay", "gem"])
    parser.add_argument("--settings", type=json.loads, default={}, help="of the method, under our names, as JSON")
    options = options_of(parser)
    train, test = (TensorDataset(*images_of(options.data, part)) for part in ("train", "test"))
    classes = int(train.tensors[1].max()) + 1
    tasks = classes // CLASSES_PER_TASK
    order = {"fixed_class_order": list(range(classes)), "class_ids_from_zero_in_each_exp": True}
    benchmark = nc_benchmark(train, test, tasks, task_labels=True, **order)
    network = MultiHead(tasks)
    strategy, own = strategy_of(options.method, options.settings, tasks)
    learner = strategy(
        model=network,
        optimizer=torch.optim.Adam(network.parameters(), LEARNING_RATE),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=options.batch_size,
        train_epochs=options.epochs,
        eval_mb_size=EVALUATION_BATCH,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True)),
        **own,
    )
    seconds, results = {"train_s": 0.0, "eval_s": 0.0}, {}
    for experience in benchmark.train_stream:
        begin = time.perf_counter()
        learner.train(experience)
        learned = time.perf_counter()
        results = learner.eval(benchmark.test_stream)
        seconds["train_s"] += learned - begin
        seconds["eval_s"] += time.perf_counter() - learned
    scores = [results[name] for name in sorted(results) if name.startswith("Top1_Acc_Exp/eval_phase/test_stream")]
    print(json.dumps({**seconds, "accuracies": scores, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
