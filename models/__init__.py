"""Encoders, decoders, heads, the Learner that joins encoder and heads, and the generators for replay."""
