"""One seed: the story of a run, training, evaluation, checkpoints, random streams, figures."""
