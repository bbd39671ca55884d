"""Losses: what a training step minimises, from the final embeddings of a batch."""
