"""Encoders, decoders, heads, the Learner that joins encoder and heads, and the generator that replays the past."""
