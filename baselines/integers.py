"""The full model with rows in few bits: post-training quantization."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizer import Quantizer
from baco.embedding.rounding import HalfQuantizer, UniformQuantizer
from baco.graph import Biadjacency
from baco.registry import register_method
from baselines.full import full_tables


class Rounded(Compressor):
    """The full model, trained in float32, its rows then stored in another format.

    The same as `method=full quantize=<name>`. What it saves is bytes: each number that is stored is a parameter.
    """

    has_budget = False
    has_start = True
    quantizer: ClassVar[Quantizer]

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> QuantizedTables:
        return QuantizedTables(full_tables(train, budget.dim), self.quantizer, seed=0)


@register_method("bf16")
class Bf16(Rounded):
    """16 bits per entry (`HalfQuantizer`): half of the bytes. Parameters: dim * (num_users + num_items)."""

    label = "Full, bf16"
    quantizer = HalfQuantizer()


class Integers(Rounded):
    """Rows of integers with a scale each (`UniformQuantizer`). An integer is a parameter, and so are scales."""

    quantizer: ClassVar[UniformQuantizer]


@register_method("int8")
class Int8(Integers):
    """8 bits per entry and a scale per row: a quarter of the bytes. Parameters: (dim + 1) * (num_users + num_items)."""

    label = "Full, int8"
    quantizer = UniformQuantizer(bits=8, symmetric=True, fitted=False)


@register_method("int4")
class Int4(Integers):
    """4 bits per entry, and a scale and an offset per row, fitted to it: a seventh of the bytes.

    Parameters: (dim + 2) * (num_users + num_items).
    """

    label = "Full, int4"
    quantizer = UniformQuantizer(bits=4, symmetric=False, fitted=True)


@register_method("int2")
class Int2(Integers):
    """2 bits per entry, and a scale and an offset per row, fitted to it: a thirteenth of the bytes.

    Parameters: (dim + 2) * (num_users + num_items).
    """

    label = "Full, int2"
    quantizer = UniformQuantizer(bits=2, symmetric=False, fitted=True)
