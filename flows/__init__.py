"""Invertible transforms and the conditional flow composed of them. Imports nothing of the project."""

from flows.flow import Flow, realnvp

__all__ = ["Flow", "realnvp"]
