"""The budget: the most that the embedding tables of both sides may cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from baco.embedding.bits import packed_code_bytes
from baco.embedding.cost import FLOAT_BYTES, Ledger, RowFormat
from baco.errors import SettingError, UserError
from baco.validation import Limits

if TYPE_CHECKING:  # whoever only reads records needs no compiler
    from baco.embedding.quantizer import Quantizer

UNITS = ("parameters", "bytes")


@dataclass(frozen=True)
class Budget:
    """A limit on a ledger.

    Attributes
    ----------
    limit : int
        Parameters by the paper's rule, or bytes at inference.
    unit : str
        'parameters' or 'bytes'.
    dim : int
        Embedding width.
    quantizer : Quantizer or None
        What the rows that it buys are stored with after training; None: in float32. It has no part in the limit.
    """

    limit: int
    unit: str
    dim: int
    quantizer: Quantizer | None = None

    @classmethod
    def parse(
        cls,
        value: float | None,
        unit: str,
        num_users: int,
        num_items: int,
        dim: int,
        quantizer: Quantizer | None = None,
    ) -> Budget:
        """Resolve what the user asked for.

        Parameters
        ----------
        value : float or int
            A ratio of the full model in (0, 1], or a whole number of codebook rows above 1. None: no limit but the
            full model's size.
        unit : str
            In 'bytes', a ratio is one of the full model's bytes, and a number of rows stands for the bytes that a
            method of so many float32 rows and one stored code per id takes.

        Raises
        ------
        SettingError
            When the value is neither, or the unit is unknown.
        """
        Limits(one_of=UNITS).check("budget_unit", unit)
        nodes = num_users + num_items
        full = nodes * dim * (FLOAT_BYTES if unit == "bytes" else 1)
        if value is None or value == 1:
            return cls(full, unit, dim, quantizer)
        if not value > 0:
            raise SettingError(
                "budget", value, "must be a ratio in (0, 1] or a whole number of rows, as in 0.25 or 12000"
            )
        if value < 1:
            return cls(int(value * full), unit, dim, quantizer)
        if not float(value).is_integer():
            raise SettingError("budget", value, "is no ratio (at most 1) and no whole number of rows")
        rows = int(value)
        if rows > nodes:
            mend = f"rows is more than the {nodes} rows of the full model; take at most {nodes}"
            raise SettingError("budget", rows, mend)
        if unit == "parameters":
            return cls(rows * dim, unit, dim, quantizer)
        user_rows, item_rows = split_rows(rows, num_users, num_items)
        codes = packed_code_bytes(num_users, user_rows) + packed_code_bytes(num_items, item_rows)
        return cls(FLOAT_BYTES * rows * dim + codes, unit, dim, quantizer)

    def row_format(self, width: int | None = None) -> RowFormat:
        """What rows of a width, most often `dim`, cost as they are stored."""
        width = self.dim if width is None else width
        return RowFormat.float32(width) if self.quantizer is None else self.quantizer.format(width)

    @property
    def row_cost(self) -> int:
        """What one row of width `dim` costs as it is stored."""
        row = self.row_format()
        return row.row_parameters if self.unit == "parameters" else row.row_bytes

    def amount(self, ledger: Ledger) -> int:
        """The part of a ledger that the limit is about."""
        return ledger.parameters if self.unit == "parameters" else ledger.bytes

    def share(self, ledger: Ledger) -> float:
        """The part of the budget that is used."""
        return self.amount(ledger) / self.limit

    def check(self, ledger: Ledger, method: str) -> None:
        """Refuse tables that cost more than the budget. Every method passes here, once, before training."""
        if self.amount(ledger) > self.limit:
            raise UserError(
                f"method '{method}' needs {self.amount(ledger):,} {self.unit}, over the budget of {self.limit:,}; "
                "raise the budget or change the method's settings"
            )

    def rows(self, *, extra_parameters: int = 0, extra_bytes: int = 0, codebooks: int = 2) -> int:
        """The number of rows, in so many codebooks, that the limit buys beside what else a method stores."""
        row = self.row_format()
        if self.unit == "parameters":
            left = self.limit - extra_parameters - codebooks * row.table_parameters
            return max(0, left) // max(1, row.row_parameters)
        return max(0, self.limit - extra_bytes - codebooks * row.table_bytes) // row.row_bytes

    def as_dict(self) -> dict:
        """Plain values for records and caches, which know nothing of row formats where rows are in float32."""
        plain = {"limit": self.limit, "unit": self.unit, "dim": self.dim}
        return plain if self.quantizer is None else plain | {"row": asdict(self.row_format())}


def split_rows(rows: int, num_users: int, num_items: int) -> tuple[int, int]:
    """Share rows between users and items in proportion to their numbers, one each at least.

    Raises
    ------
    UserError
        When there are fewer than two rows.
    """
    if rows < 2:
        raise UserError(f"the budget buys {rows} codebook rows, but users and items need one each; raise the budget")
    user_rows = round(rows * num_users / (num_users + num_items))
    user_rows = min(max(user_rows, 1), rows - 1)
    return user_rows, rows - user_rows
