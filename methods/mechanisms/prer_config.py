"""The YAML sections of PRER's methods; those of the generators are read from the options of the models."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

import flows
from methods import MethodConfig
from methods.mechanisms.distance import Distance
from models.autoencoder import Autoencoder
from models.class_flows import ClassFlows
from models.code_flow import CodeFlow, Condition, Density
from models.learner import Scenario
from utils.settings import AnyCase, BadInput, Chosen, Settings, configured, options_of

ConditioningConfig: Any = options_of(Condition)
FlowOptions: Any = options_of(CodeFlow)
AutoencoderOptions: Any = options_of(Autoencoder)


class FlowConditioningConfig(ConditioningConfig):
    """How the flow is conditioned on the class."""

    type: Annotated[Literal["none", "one_hot", "class_embedding", "separate"] | None, AnyCase] = None
    """none: no condition; one_hot; class_embedding: a learned vector per class; separate: a flow for each class, by
    default of 20 epochs; the flow's epochs and steps are per class. prer_features fits it once, to real codes alone;
    prer, whose codes change, fits it to its own samples again after every task. By default separate for prer_features
    with predict: flow, else one_hot"""


def one_length(section: Any) -> Any:
    """An unvalidated section with one of `steps` and `epochs`.

    Where both are given, it is steps: older versions wrote both into config.yml, and fitted for the steps.
    """
    if not isinstance(section, dict) or section.get("epochs") is None:
        return section
    return {**section, ("steps" if section.get("steps") is None else "epochs"): None}


class FlowConfig(FlowOptions):
    """Which flow, and how it is fitted and sampled."""

    _one_length = model_validator(mode="before")(one_length)

    type: str = "realnvp"
    """which flow: the name of a file in flows/"""
    dimension: int = Field(32, ge=2)
    """size of the codes, where they are a projection (all but prer with target: flow)"""
    conditioning: FlowConditioningConfig = FlowConditioningConfig()
    """how the flow is conditioned on the class"""


class AutoencoderConfig(AutoencoderOptions):
    """The decoder and its fit."""

    _one_length = model_validator(mode="before")(one_length)
    conditioning: ConditioningConfig = ConditioningConfig()
    """how the decoder is conditioned on the class"""


class RegularizationConfig(Settings):
    """The generated samples, and the distance of their embeddings."""

    distance: Distance = "cosine"
    """between an embedding and its target: 1 - cos(a, b), or |a - b|"""
    fixed_replay: int | None = Field(None, ge=1)
    """samples generated per task, when it begins; dropped when it ends; by default as many as the task has images, and
    at least one of each past class"""
    to_sample: int | None = Field(None, ge=1)
    """generated samples per step; by default as many as real ones"""
    rejection: bool = False
    """generate again what the classifier does not assign to the class asked for"""


class ReplayConfig(Settings):
    """What the heads learn from generated samples."""

    targets: Annotated[Literal["labels", "logits", "both"], AnyCase] = "labels"
    """labels: the classes asked for; logits: those of the heads when the last task ended; both: the sum"""
    temperature: float = Field(2.0, gt=0)
    """of the distillation (targets: logits, both)"""
    current: Annotated[Literal["all", "task"], AnyCase] = "all"
    """class scenario: classes in the softmax by which the encoder learns the current batch. all: those seen so far;
    task: the task's; the heads alone learn to tell the batch from old classes (after Smith et al. 2021)"""


class WeightsConfig(Settings):
    """The weights of the terms of the loss."""

    er: float | None = Field(None, ge=0)
    """of the distance between embeddings and their targets; by default 1, but 0 for prer_features with predict: flow"""
    replay: float | None = Field(None, ge=0)
    """of the heads' loss on generated samples; by default 0 in the task scenario and where the flow classifies, else 1.
    If it is not 0, the cross-entropy of the current batch is weighted by the share of its classes among all classes
    seen, and replay by the rest (with replay.current: task, not the task's own softmax, but the heads' loss on the
    current batch)"""
    l1: float = Field(0.0, ge=0)
    """of the L1 norm of the encoder's trainable parameters, from the first task on"""
    old_tasks: float | None = Field(None, ge=0, le=1)
    """w: weigh the current batch by 1 - w and all generated samples by w, whatever the numbers of classes"""


FLOW = Chosen(flows, "type", FlowConfig, "build")


class RehearsingConfig(MethodConfig):
    """The options that `prer` and `prer_features` share."""

    flow: Annotated[FlowConfig, FLOW] = Field({}, validate_default=True)
    """the normalizing flow; `dimension` is the size of the codes"""
    regularization: RegularizationConfig = RegularizationConfig()
    """the generated samples, and how they hold the embeddings"""
    replay: ReplayConfig = ReplayConfig()
    """what the heads learn from generated samples, if weights.replay is not 0"""
    weights: WeightsConfig = WeightsConfig()
    """of the loss: cross-entropy + er * distance + replay * replay's loss + l1 * |encoder|"""
    predict: Annotated[Literal["head", "flow", "both"], AnyCase] = "head"
    """what classifies: the heads; the flow, by Bayes' rule from its density of each class; or both, by the product of
    their probabilities"""

    def in_scenario(self, scenario: Scenario) -> Self:
        kind = self.flow.conditioning.type or ("separate" if self.generative else "one_hot")
        changes: dict[str, Any] = {"conditioning": self.flow.conditioning.model_copy(update={"type": kind})}
        if kind == "separate" and not {"steps", "epochs"} & self.flow.model_fields_set:
            changes |= {"steps": None, "epochs": 20}  # many steps on the few samples of a class are too many
        flow = self.flow.model_copy(update=changes)
        # a flow without condition cannot say which class a sample is; where it classifies, no head does
        replays = scenario != "task" and kind != "none" and self.predict != "flow"
        weights = {"er": float(not self.generative), "replay": float(replays)}
        unset = {key: value for key, value in weights.items() if getattr(self.weights, key) is None}
        return self.model_copy(update={"flow": flow, "weights": self.weights.model_copy(update=unset)})

    @property
    def generative(self) -> bool:
        """Whether the flow is all that is needed to classify."""
        return False


def build_flow(section: FlowConfig, dimension: int, classes: int) -> Density:
    """The flow on codes (B, dimension) of K classes that a section describes; BadInput if there are too few."""
    make, build = configured(CodeFlow, section), FLOW.builder_of(section)
    try:
        if section.conditioning.type == "separate":
            return ClassFlows(dimension, classes, lambda: make(dimension, Condition(1, type="none"), build))
        return make(dimension, configured(Condition, section.conditioning)(classes), build)
    except ValueError as error:
        raise BadInput(f"method.flow: {error}") from error
