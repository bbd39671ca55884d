"""All quantizers by name: what a codebook becomes when it is stored in fewer bits than float32.

A quantizer packs the (n, dim) rows of one codebook into arrays and unpacks them again, row by row, with every row on
whole bytes of its own, so that a server can read a single one. `HalfQuantizer` stores the upper halves of floats, and
`UniformQuantizer` small integers and one or two numbers per row that scale them. `ProductQuantizer` stores, for parts
of a row, which of a few learned vectors is nearest, `RefinedQuantizer` the same and more for some rows,
`RotatedProductQuantizer` the same after a rotation, and `ResidualQuantizer` of which learned vectors a row is the sum.
None looks at data other than the rows and their weights. `conf/quantize` has the settings of the first three.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from baco.embedding.product_codes import (
    ProductQuantizer,
    RefinedQuantizer,
    ResidualQuantizer,
    RotatedProductQuantizer,
)
from baco.embedding.quantizer import Quantizer
from baco.embedding.rounding import HalfQuantizer, UniformQuantizer
from baco.errors import UserError
from baco.files import from_json_array, json_array

QUANTIZERS: dict[str, type] = {
    cls.name: cls
    for cls in (
        HalfQuantizer,
        UniformQuantizer,
        ProductQuantizer,
        RefinedQuantizer,
        RotatedProductQuantizer,
        ResidualQuantizer,
    )
}


def pack_export(
    arrays: dict[str, np.ndarray], packed: dict[str, dict[str, np.ndarray]], quantizer: Quantizer
) -> dict[str, np.ndarray]:
    """An export of tables with some of its arrays, by their names, in packed form."""
    header = {
        "quantizer": {"name": quantizer.name} | asdict(quantizer),
        "widths": {name: arrays[name].shape[1] for name in packed},
        "header": from_json_array(arrays["header"]),
    }
    rest = {name: array for name, array in arrays.items() if name != "header" and name not in packed}
    parts = {f"{name}.{part}": array for name, own in packed.items() for part, array in own.items()}
    return {"header": json_array(header)} | rest | parts


def unpack_export(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An export with all its rows in float32, as `from_export` of its tables needs it. Without packed rows: itself.

    Raises
    ------
    UserError
        When the quantizer is unknown.
    """
    header = from_json_array(arrays["header"])
    quantizer = quantizer_of(header)
    if quantizer is None:
        return arrays
    unpacked = {name: array for name, array in arrays.items() if name.rpartition(".")[0] not in header["widths"]}
    for name, width in header["widths"].items():
        own = {part.removeprefix(f"{name}."): array for part, array in arrays.items() if part.startswith(f"{name}.")}
        unpacked[name] = quantizer.unpack(own, width)
    return unpacked | {"header": json_array(header["header"])}


def quantizer_of(header: dict) -> Quantizer | None:
    """What packed the rows of an export, from its header; None where they are in float32.

    Raises
    ------
    UserError
        When the quantizer is unknown.
    """
    if "quantizer" not in header:
        return None
    settings = dict(header["quantizer"])
    name = settings.pop("name")
    if name not in QUANTIZERS:
        raise UserError(f"the export uses the quantizer '{name}', which this version does not know")
    return QUANTIZERS[name](**settings)
