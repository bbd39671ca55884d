"""What the methods whose embeddings are sums of rows share."""

from __future__ import annotations

from dataclasses import dataclass

from baco.compressors.compressor import CodeCompressor
from baco.validation import Validated


class SumCompressor(CodeCompressor):
    """A method whose ids have the sum of several rows."""

    @dataclass(frozen=True)
    class Config(Validated):
        """scaled : embeddings begin as wide as single rows; else their rows do, and s of them are wider by sqrt(s)."""

        scaled: bool = True

    config: Config

    def __init__(self, config: Config | None = None):
        super().__init__(config)
        self.scaled = self.config.scaled
