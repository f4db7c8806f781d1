"""When a step is captured as a CUDA graph and when it runs eagerly, with a stand-in for the graph on CPU."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from conftest import CPU, method_settings

from methods import find
from models import captured
from models.captured import WARM_UP, Captured, capturing
from models.fitting import Objective, fit
from utils.config.schema import Config
from utils.run.runner import Run

COUNTS: Counter[str] = Counter()


class StandIn:
    """In place of a CUDA graph; `replay` calls the function again."""

    def __init__(self, *streams) -> None:
        self.streams, self.outputs = streams, dict[str, torch.Tensor]()

    def warm_up(self, function: Callable[[], dict]) -> dict:
        COUNTS["warm-up"] += 1
        return function()

    def capture(self, function: Callable[[], dict]) -> dict:
        COUNTS["capture"] += 1
        self.function = function
        return self.outputs

    def replay(self) -> None:
        COUNTS["replay"] += 1
        self.outputs.update(self.function() or {})


class Refusing(StandIn):
    def capture(self, function: Callable[[], dict]) -> dict:
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def log(caplog, monkeypatch) -> pytest.LogCaptureFixture:
    """Its `messages` are what is logged about eager steps."""
    monkeypatch.setattr(captured.log, "propagate", True)
    caplog.set_level("INFO", logger=captured.log.name)
    return caplog


@pytest.fixture
def graphs(monkeypatch):
    """graphs(kind): let steps on CPU be captured by it; returns the counts of what was called."""

    def use(kind: type = StandIn) -> Counter[str]:
        COUNTS.clear()
        monkeypatch.setitem(captured.GRAPHS, "cpu", kind)
        return COUNTS

    return use


def make_step(size: int = 4, why_not: str | None = None, lr: float = 0.5):
    """A step of SGD that adds the sum of the indices, times the learning rate, to one weight."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=lr, fused=True)

    def step(index: torch.Tensor) -> dict[str, torch.Tensor]:
        optimizer.zero_grad()
        loss = -weight * index.sum()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return weight, optimizer, Captured(step, optimizer, size, torch.Generator(), why_not)


def test_full_batches_are_replayed_after_the_warm_up_and_others_run_eagerly(graphs):
    counts = graphs()
    with capturing(True):
        weight, _, step = make_step()
        for n in range(1, 11):
            step(torch.full((4 if n != 6 else 3,), n))
    assert counts == {"warm-up": WARM_UP, "capture": 1, "replay": 9 - WARM_UP}
    assert weight.item() == 0.5 * (4 * sum(range(1, 11)) - 6)


def test_a_replay_returns_the_outputs_of_its_own_step(graphs):
    graphs()
    with capturing(True):
        weight, _, step = make_step()
        for n in range(8):
            before = weight.item()
            assert float(step(torch.full((4,), n))["loss"]) == -before * 4 * n


def test_the_learning_rate_of_the_schedule_reaches_the_graph(graphs):
    graphs()
    with capturing(True):
        weight, optimizer, step = make_step()
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        for _ in range(8):
            step(torch.ones(4))
            schedule.step()
    assert weight.item() == sum(4 * 0.5 * 0.5**n for n in range(8))
    assert isinstance(optimizer.param_groups[0]["lr"], float)


@pytest.mark.parametrize("allowed, why_not", [(False, None), (True, "it reads from the device")])
def test_nothing_is_captured_where_it_is_not_allowed_or_not_static(graphs, log, allowed, why_not):
    counts = graphs()
    with capturing(allowed):
        for _ in range(2):  # of two tasks
            weight, _, step = make_step(why_not=why_not)
            for _ in range(6):
                step(torch.ones(4))
    assert not counts and weight.item() == 12
    assert log.messages.count(f"steps run eagerly, not as CUDA graphs: {why_not}") == (why_not is not None)


def test_a_refused_capture_is_told_once_and_the_step_runs(graphs, log):
    graphs(Refusing)
    with capturing(True):
        for _ in range(2):
            weight, optimizer, step = make_step()
            for _ in range(6):
                step(torch.ones(4))
    assert weight.item() == 12 and optimizer.param_groups[0]["lr"] == 0.5
    assert [line for line in log.messages if "eagerly" in line] == [
        "steps run eagerly, not as CUDA graphs: operation not permitted when stream is capturing"
    ]


def test_every_task_and_every_fit_is_captured_anew(graphs, small, data, tmp_path):
    counts = graphs()
    small["train"] |= {"epochs": 3, "save": False}  # 3 batches of 16 per epoch
    methods = {name: method_settings(name) for name in ("naive", "gem")}
    _run(small, methods["naive"], data)
    assert counts == {"warm-up": 3 * WARM_UP, "capture": 3, "replay": 3 * (9 - WARM_UP)}
    counts.clear()
    _run(small, methods["gem"], data)
    assert not counts, "its step is not static"


def test_a_step_that_augments_draws_from_two_streams(graphs, small, data, monkeypatch):
    made = []
    graphs(
        type("Seen", (StandIn,), {"__init__": lambda self, *streams: (made.append(streams), StandIn.__init__(self))[0]})
    )
    small["train"] |= {"epochs": 1, "save": False, "augment": "crop_flip"}
    _run(small, method_settings("naive"), data)
    assert [len(streams) for streams in made] == [2, 2, 2]
    assert len({id(stream) for stream in made[0]}) == 2


def _run(tree: dict, method: dict, data) -> None:
    tree = tree | {"method": find(method["name"])[1].model_validate(method)}
    run = Run(Config.model_validate(tree), data, 0, CPU)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    run()


def test_a_fit_captures_the_step_of_each_objective(graphs):
    counts = graphs()
    modules = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    objectives = [
        Objective(modules[0], lambda index: modules[0](index[:, None].float()).square().mean()),
        Objective(modules[1], lambda index: modules[1](index[:, None].float()).square().mean(), every=2),
    ]
    with capturing(True):
        fit(objectives, torch.ones(64), torch.Generator().manual_seed(0), epochs=2, batch_size=4, lr=0.1)
    assert counts == {"warm-up": 2 * WARM_UP, "capture": 2, "replay": 32 + 16 - 2 * WARM_UP}
