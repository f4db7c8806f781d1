"""Fine-tuning: each task is learned as if there were no other. The lower reference of every comparison."""

from methods import Method


class Naive(Method):
    """Nothing is done against forgetting."""

    title = "Naive"
    static = True
