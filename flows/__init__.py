"""Invertible transforms and the conditional flow composed of them. Imports nothing of the project."""

from flows.flow import Flow, realnvp
from flows.named import FLOWS

__all__ = ["FLOWS", "Flow", "realnvp"]
