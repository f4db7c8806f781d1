"""What the lowest layers share with the highest: validated settings, and the error for bad input."""

from pydantic import BaseModel, BeforeValidator, ConfigDict


class BadInput(Exception):
    """The user's input is at fault: reported in its own words, without a traceback, exit code 2, nothing run."""


class Settings(BaseModel):
    """A frozen section of the configuration: unknown keys and wrong types are errors; fields are the documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Annotates a choice of names that match without regard to case: `Annotated[Literal["mnist"], AnyCase]`."""
