"""Conditional normalizing flows, one file per family: its name is a `flow.type`. Imports nothing of the project.

A file defines `build(width, context=0, *, own options) -> Flow` for vectors of `width` dimensions under a condition of
`context` dimensions (0: none).
"""

from flows.flow import Flow

__all__ = ["Flow"]
