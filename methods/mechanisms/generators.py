"""The YAML sections of PRER's generators, read from the options of the models, and the generators built from them."""

from typing import Annotated, Any

from pydantic import Field

import flows
from models.autoencoder import Autoencoder
from models.code_flow import CodeFlow, Condition
from utils.settings import BadInput, Chosen, Settings, configured, options_of

ConditioningConfig: Any = options_of(Condition)


class FlowConfig(options_of(CodeFlow)):
    """The normalizing flow and its fit."""

    type: str = "realnvp"
    """which flow: the name of a file in flows/"""
    dimension: int = Field(32, ge=2)
    """size of the codes, where they are a projection (all but prer with target: flow)"""
    conditioning: ConditioningConfig = ConditioningConfig()
    """how the flow is conditioned on the class"""


class AutoencoderConfig(options_of(Autoencoder)):
    """The decoder, and the projection of the encoder's features to the codes that the flow models."""

    conditioning: ConditioningConfig = ConditioningConfig()
    """how the decoder is conditioned on the class"""


FLOW = Chosen(flows, "type", FlowConfig, "build")
FlowSection = Annotated[FlowConfig, FLOW]
"""`method.flow`, with the options of the flow that its `type` names."""


def build_condition(section: Settings, classes: int) -> Condition:
    """The condition that a section's `conditioning` describes, for K classes."""
    return configured(Condition, section.conditioning)(classes)


def build_flow(section: FlowConfig, dimension: int, classes: int) -> CodeFlow:
    """The flow on codes (B, dimension) that a section describes.

    Raises:
        BadInput: the dimension is too small for it.
    """
    condition = build_condition(section, classes)
    try:
        return configured(CodeFlow, section)(dimension, condition, FLOW.builder_of(section))
    except ValueError as error:
        raise BadInput(f"method.flow: {error}") from error
