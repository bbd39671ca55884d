"""What embedding tables cost: formats of rows, and the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from baco.embedding.codes import Assignment

FLOAT_BYTES = 4


@dataclass(frozen=True)
class RowFormat:
    """What one codebook costs as it is stored: so much for each of its rows, and so much for the whole.

    Attributes
    ----------
    row_parameters, row_bytes : int
    table_parameters, table_bytes : int
        Whatever the number of rows.
    """

    row_parameters: int
    row_bytes: int
    table_parameters: int = 0
    table_bytes: int = 0

    @classmethod
    def float32(cls, dim: int) -> RowFormat:
        """Rows as they are trained."""
        return cls(dim, FLOAT_BYTES * dim)

    def parameters(self, rows: int) -> int:
        """Of one codebook, by the paper's rule: each stored number is one, however few bits it has."""
        return self.table_parameters + rows * self.row_parameters

    def bytes(self, rows: int) -> int:
        """Of one codebook."""
        return self.table_bytes + rows * self.row_bytes


@dataclass(frozen=True)
class Ledger:
    """What the tables of both sides cost.

    Attributes
    ----------
    parameters : int
        By the paper's rule: trainable floats, plus one for each code of an id after its first and for each pooling
        weight stored per id. The first code of an id is free. Integers that rows are packed into count one each.
    bytes : int
        What a server holds: the length of `export()`, its header aside.
    training_floats : int
        Floats alive in training, without optimizer state.
    user_rows, item_rows : int
        Codebook rows; 0 where a method has no rows. Rows that both sides share are counted as the users'.
    extra_codes : int
        Codes after the first, over all ids; those that rows are packed into do not count.
    counts : int
        Numbers of codes, one for each id of a side where ids have different ones. `bytes` has them. `parameters` has
        not, as it has no first codes: the paper's rule names neither. They are told so that they can be added.
    """

    parameters: int
    bytes: int
    training_floats: int
    user_rows: int = 0
    item_rows: int = 0
    extra_codes: int = 0
    counts: int = 0


def code_ledger(assignment: Assignment, dim: int, row: RowFormat | None = None) -> Ledger:
    """What codebooks of width `dim` under the given codes cost, in float32 or another format of rows."""
    users, items = assignment.users, assignment.items
    row = row or RowFormat.float32(dim)
    sizes = assignment.rows_of_codebooks
    extra_codes = users.extra_codes + items.extra_codes
    return Ledger(
        parameters=sum(map(row.parameters, sizes)) + extra_codes + users.num_stored_weights + items.num_stored_weights,
        bytes=sum(map(row.bytes, sizes)) + users.packed_bytes + items.packed_bytes,
        training_floats=sum(sizes) * dim,
        user_rows=users.num_rows,
        item_rows=0 if assignment.shared else items.num_rows,
        extra_codes=extra_codes,
        counts=sum(side.num_ids for side in (users, items) if side.ends is not None),
    )
