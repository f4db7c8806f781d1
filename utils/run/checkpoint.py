"""The checkpoint of a run: everything that a resumed run needs to give the same bits."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from utils.settings import BadInput

Snapshot = dict[str, dict[str, Any]]
"""`state_dict()` of the learner, the method, the optimizer and the random streams."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and plain data, as `torch.load(weights_only=True)` reads them."""

    phase: Literal["pretraining", "between", "training", "consolidation"]
    """in the steps that train an encoder to freeze, between two tasks, in the steps of a task, or in its `end_task`"""
    tasks_done: int
    before: Snapshot = field(default_factory=dict)
    """when the current task began: a resumed run calls `begin_task` again from here"""
    training: Snapshot = field(default_factory=dict)
    """in training: now; in consolidation: after the last step, where a resumed run calls `end_task` again"""
    position: dict[str, Any] = field(default_factory=dict)
    """of the training, `Training.state_dict()`, together with `training`"""
    fits: dict[str, Any] | None = None
    """in consolidation: progress of the generator's fits, `Journal.state()`"""
    features: dict[str, Any] = field(default_factory=dict)
    """weights of the encoder's features, if they were trained on the first task and then frozen"""
    results: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    """of the tasks done"""
    seconds: dict[str, float] = field(default_factory=dict)
    """of the stopwatch"""

    def to_dict(self) -> dict[str, Any]:
        """The fields, which are not copied."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Checkpoint":
        """Raises BadInput for a checkpoint of another version of the program."""
        if state.keys() != {one.name for one in fields(cls)}:
            raise BadInput("the checkpoint was written by another version of the program; start again with --restart")
        return cls(**state)
