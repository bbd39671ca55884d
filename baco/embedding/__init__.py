"""Embedding tables: codes, codebooks, their cost, and formats of rows."""
