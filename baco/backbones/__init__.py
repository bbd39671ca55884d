"""Backbones: from layer-0 embeddings to final ones."""
