"""The settings of a stream of tasks: the section `scenario`."""

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Field, ValidationInfo, field_validator

from datasets import DATASET, DatasetConfig
from models.learner import Scenario
from utils.settings import AnyCase, Settings


class ScenarioConfig(Settings):
    """The data set and how it is split into tasks."""

    dataset: Annotated[DatasetConfig, DATASET]
    """the name of a file in datasets/, or a mapping with its options, e.g. {name: npz, path: my.npz};
    `datasets: [mnist, digits]` instead: several in a row, see sequence"""
    stream: Annotated[Literal["split", "permuted", "rotated"], AnyCase] = "split"
    """split: each task has some of the classes; permuted: each has all, their pixels in another order, drawn from the
    seed; rotated: each has all, task t turned by 180 t / tasks degrees"""
    tasks: int | None = Field(None, ge=2, validate_default=True)
    """permuted and rotated: the number of tasks; the first has the images as they are"""
    type: Annotated[Scenario, AnyCase] = "task"
    """task: one head per task; class: one head for all classes; domain: one head for the positions inside a task"""
    labels_per_task: Annotated[int, Ge(1)] | list[Annotated[int, Ge(1)]] | None = Field(None, validate_default=True)
    """split: classes per task, 2 by default, a single last class joins the task before; or a list with the number of
    classes of each task, e.g. [50, 10, 10, 10, 10, 10]; by default each of several data sets in a row is a task"""
    active_classes: Annotated[Literal["seen", "all"], AnyCase] = "seen"
    """class scenario: the softmax is over the classes of the tasks so far, or over all classes from the first task on
    (as in the code of van de Ven et al. and in Mammoth)"""
    class_order: Annotated[Literal["natural", "shuffled"] | list[int], AnyCase] = "natural"
    """the order in which classes are assigned to tasks: by their ids, shuffled by the seed, or a list of all ids"""
    class_order_seed: int | None = Field(None, ge=0, validate_default=True)
    """shuffled: the seed of the order, which is then the same in all runs; by default, that of the run"""
    dev_split: float = Field(0.0, ge=0, lt=1)
    """share of the training data held out as dev set, equal for all classes"""
    fingerprint: str | None = None
    """of the data set's classes and contents, written by the program into config.yml; other data are refused"""
    data_root: str | None = None
    """directory of the data sets; --data-root and $DATA_ROOT come first, ./data last"""

    @field_validator("tasks")
    @classmethod
    def _tasks_belong_to_the_stream(cls, tasks: int | None, info: ValidationInfo) -> int | None:
        stream = info.data.get("stream", "split")
        if stream == "split" and tasks is not None:
            raise ValueError(
                "is for stream: permuted and rotated; remove it: labels_per_task decides how many there are"
            )
        if stream != "split" and tasks is None:
            raise ValueError(f"missing; add the number of {stream} tasks, e.g. tasks: 10")
        return tasks

    @field_validator("labels_per_task")
    @classmethod
    def _labels_belong_to_the_stream(
        cls, labels: int | list[int] | None, info: ValidationInfo
    ) -> int | list[int] | None:
        stream, dataset = info.data.get("stream", "split"), info.data.get("dataset")
        if stream != "split" and labels is not None:
            raise ValueError(f"is for stream: split; remove it: each {stream} task has all classes")
        several = stream != "split" or getattr(dataset, "name", "") == "sequence"
        return 2 if labels is None and not several else labels

    @field_validator("class_order_seed")
    @classmethod
    def _seed_belongs_to_the_order(cls, seed: int | None, info: ValidationInfo) -> int | None:
        if seed is not None and info.data.get("class_order", "shuffled") != "shuffled":
            raise ValueError("is for class_order: shuffled; set that, or remove it")
        return seed
