"""Packed tables read where they lie in their file, with NumPy alone: without torch, and without reading all of it.

    tables = PackedTables.open("tables.npz")
    tables.lookup("items", [3, 17])  # (2, dim) float32

docs/serving.md has the format of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from baco.embedding.bits import code_bits, read_bits
from baco.embedding.codes import SIDES
from baco.embedding.quantizers import quantizer_of
from baco.embedding.rules import RULES, Evaluated, Rule
from baco.errors import UserError
from baco.files import OFFSETS, decode_texts, from_json_array, map_arrays, read_given
from baco.validation import Limits

FORMAT = 2  # of files; 1, from before this number was written, is compressed and has no marks
KIND = "CodebookTables"  # the tables of all methods whose ids have codes into rows
SCALED = "ScaledTables"  # other tables, and a scale for each item
ITEM_SCALE = "item_scale"  # as in baco.embedding.scaled, which needs torch

Rows = Callable[[np.ndarray], np.ndarray]  # from (k,) numbers to the (k, dim) float32 rows


class PackedTables:
    """The tables of both sides, of a file that `export=` or `Compression.save` wrote.

    A lookup reads the codes of the ids and the rows that they name. The operating system keeps what was read in
    memory as long as there is room, once for all processes.

    Attributes
    ----------
    users, items : PackedSide
    dim : int
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays
        model = from_json_array(arrays["model"])
        header, packing = unwrapped(model["tables"], from_json_array(arrays["header"]))
        padding = model.get("padding", {})
        self.users, self.items = (
            PackedSide(
                PackedCodes.of(header[side], side, arrays),
                packed_rows("rows" if header.get("shared", False) else f"{side}/rows", packing, arrays),
                padding.get(side),
            )
            for side in SIDES
        )
        self.dim = self.users.lookup(np.zeros(0, np.int64)).shape[1]

    @classmethod
    def open(cls, path: str | Path) -> PackedTables:
        """Map a file into memory.

        Raises
        ------
        UserError
            When there is no such file, it is none of ours, of a newer format, or of tables without codes and rows.
        """
        arrays = read_given(path, "it must be what export= or Compression.save wrote", map_arrays)
        if not {"model", "header"} <= arrays.keys():
            raise UserError(f"{path} holds no tables; it must be the export of a model")
        model = from_json_array(arrays["model"])
        if model.get("format", 1) > FORMAT:
            raise UserError(
                f"{path} has the format {model['format']}, this version reads {FORMAT} at most; update baco"
            )
        try:
            return cls(arrays)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except KeyError as error:
            raise UserError(f"{path} lacks {error}; write it again") from None

    def lookup(self, side: str, ids: ArrayLike) -> np.ndarray:
        """(b, dim) float32: the embeddings of (b,) ids, positions from 0, of 'users' or 'items'.

        Raises
        ------
        UserError
            For another side, or for ids that are no whole numbers or outside the table.
        """
        Limits(one_of=SIDES).check("side", side)
        return getattr(self, side).lookup(ids)

    def names(self, side: str) -> np.ndarray | None:
        """The ids of the log by position; None where the data had no ids of their own."""
        Limits(one_of=SIDES).check("side", side)
        name = f"{side.removesuffix('s')}_ids"
        if name + OFFSETS in self._arrays:
            return decode_texts(self._arrays[name], self._arrays[name + OFFSETS])
        return self._arrays.get(name)


@dataclass(frozen=True, eq=False)
class PackedCodes:
    """The codes of one side as they are stored; the attributes are those of `Codes`, its arrays unread."""

    num_ids: int
    codes_per_id: int
    num_rows: int
    constant: np.ndarray | None
    rule: Rule | None
    marks: np.ndarray
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, header: dict, side: str, arrays: dict[str, np.ndarray]) -> PackedCodes:
        """From `Codes.header` and what an export has of a side."""
        own = {name.removeprefix(f"{side}."): array for name, array in arrays.items() if name.startswith(f"{side}.")}
        if side == "items" and ITEM_SCALE in arrays:
            own["scale"] = arrays[ITEM_SCALE]
        rule, marks = None, np.zeros(0, np.int64)
        if header["rule"] is not None:
            if header["rule"] not in RULES:
                raise UserError(f"the export uses the code rule '{header['rule']}', which this version does not know")
            kind = RULES[header["rule"]]
            rule = kind(**{field.name: own[field.name] for field in fields(kind)})
            marks = own["marks"] if "marks" in own else rule.marks()
        constant = None if header["weights"] is None else np.array(header["weights"], np.float32)
        num_ids, codes_per_id = header["shape"]
        return cls(num_ids, codes_per_id, header["num_rows"], constant, rule, marks, own)

    def at(self, ids: np.ndarray) -> Evaluated:
        """Those of some ids, (b,) int64."""
        if self.rule is not None:
            found = self.rule.at(ids, self.marks, self.num_ids, self.num_rows)
            return Evaluated(found.index, self.constant if found.weights is None else found.weights, found.ends)
        places = ids[:, None] * self.codes_per_id + np.arange(self.codes_per_id)
        weights = self.arrays["weights"][ids] if "weights" in self.arrays else self.constant
        return Evaluated(read_bits(self.arrays["codes"], code_bits(self.num_rows), places), weights)


@dataclass(frozen=True, eq=False)
class PackedSide:
    """Users or items.

    Attributes
    ----------
    codes : PackedCodes
    rows : callable
    padding : int or None
        An id without codes, whose embedding is zero; ids after it have the codes of the one before.
    """

    codes: PackedCodes
    rows: Rows
    padding: int | None = None

    @property
    def num_ids(self) -> int:
        return self.codes.num_ids + (self.padding is not None)

    def lookup(self, ids: ArrayLike) -> np.ndarray:
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise UserError(f"ids must be a list of whole numbers; got {ids.dtype} of shape {ids.shape}")
        if ids.size and (ids.min() < 0 or ids.max() >= self.num_ids):
            wrong = ids[(ids < 0) | (ids >= self.num_ids)][0]
            raise UserError(f"id {wrong} lies outside 0..{self.num_ids - 1}")
        ids = ids.astype(np.int64)
        if self.padding is None:
            return self._pooled(ids)
        padded = ids == self.padding
        found = self._pooled(np.where(padded, 0, ids - (ids > self.padding)))
        found[padded] = 0
        return found

    def _pooled(self, ids: np.ndarray) -> np.ndarray:
        codes = self.codes.at(ids)
        rows = self.rows(codes.index.ravel())
        if codes.ends is not None:
            assert codes.weights is not None  # see `Codes.ends`
            pooled = np.add.reduceat(rows * codes.weights[:, None], codes.ends[:-1]) if len(ids) else rows
        else:
            rows = rows.reshape(*codes.index.shape, rows.shape[1])
            if codes.weights is None:
                pooled = rows.mean(1) if rows.shape[1] > 1 else rows[:, 0]
            else:
                pooled = (rows * np.broadcast_to(codes.weights, codes.index.shape)[..., None]).sum(1)
        if "scale" in self.codes.arrays:
            pooled *= self.codes.arrays["scale"][ids, None].astype(np.float32)
        return pooled


def unwrapped(kind: str, header: dict) -> tuple[dict, dict | None]:
    """What an export says of codes, and what of packed rows, from its kind of tables and its header.

    Raises
    ------
    UserError
        For tables without codes and rows.
    """
    packing = None
    while "quantizer" in header or kind == SCALED:
        if "quantizer" in header:
            packing, header = header, header["header"]
        else:
            kind, header = header["tables"], header["header"]
    if kind != KIND:
        raise UserError(
            f"{kind} cannot be read by memory map, as their ids have no codes into rows; "
            "baco.serving.export.load_tables reads them"
        )
    return header, packing


def packed_rows(name: str, packing: dict | None, arrays: dict[str, np.ndarray]) -> Rows:
    """The rows of an array of an export, packed or not, each of which is read when it is asked for."""
    if packing is None:
        return arrays[name].__getitem__
    parts = {part.removeprefix(f"{name}."): array for part, array in arrays.items() if part.startswith(f"{name}.")}
    quantizer = quantizer_of(packing)
    assert quantizer is not None
    return quantizer.reader(parts, packing["widths"][name])
