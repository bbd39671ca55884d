"""Codes: which codebook rows stand for which user or item."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from baco.embedding.bits import code_bits, pack_bits, packed_code_bytes, unpack_bits
from baco.embedding.rules import RULES, Identity, Rule
from baco.errors import UserError

SIDES = ("users", "items")


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of one side.

    An id's embedding is the mean of its rows, or their sum weighted by `weights`; then it is multiplied by its `scale`.
    Under the mean an id with fewer codes than s repeats one: a user with the codes (3, 3) has row 3, in value and in
    gradient.

    Codes have one of two shapes. With s codes for each id, a batch of ids is one gather of known size; where the
    numbers differ, `ends` bound the codes of each id, a lookup of 4,096 ids takes 8 times as long on a CPU, and a GPU
    has to tell the CPU how many codes the batch has. Only methods that need different numbers pay for that.

    Attributes
    ----------
    index : (n, s) int32
        Row numbers in [0, num_rows). Where ids have different numbers of codes, those of all ids, one after the other.
    num_rows : int
    weights : None, (s,) or of the shape of `index`, float32
        None: the mean. One weight per position, the same for all ids (ones: the sum), or one for each code.
    rule : Rule or None
        How to compute `index` from ids; None when the codes themselves have to be stored.
    scale : None or (n,) float16
        Stored, one for each id; None: ones.
    ends : None or (n + 1,) int64
        Where ids have different numbers of codes, one at least: those of id x are `index[ends[x]:ends[x + 1]]`. Such
        codes come from a rule and have a weight each.
    names : None or (num_rows,) integers
        What each row stands for, such as the label of a co-cluster, where an update may number rows anew. Codes do not
        need them: they are not packed.
    """

    index: np.ndarray
    num_rows: int
    weights: np.ndarray | None = None
    rule: Rule | None = None
    scale: np.ndarray | None = None
    ends: np.ndarray | None = None
    names: np.ndarray | None = None

    def __post_init__(self):
        index, ends = self.index, self.ends
        if index.dtype != np.int32 or index.ndim != (2 if ends is None else 1) or min(index.shape) < 1:
            raise ValueError(f"codes must be a non-empty int32 array (n, s); got {index.dtype} {index.shape}")
        if ends is not None and (
            self.rule is None or ends[0] != 0 or ends[-1] != len(index) or np.diff(ends).min() < 1
        ):
            raise ValueError(f"ends must come of a rule and rise from 0 to the number of codes, {len(index)}")
        if index.min() < 0 or index.max() >= self.num_rows:
            raise ValueError(f"codes run from {index.min()} to {index.max()}, outside 0..{self.num_rows - 1}")
        shape = None if self.weights is None else self.weights.shape
        if shape not in ((None, index.shape, index.shape[1:]) if ends is None else (index.shape,)):
            raise ValueError(f"weights of shape {shape} do not fit codes of shape {index.shape}")
        if self.scale is not None and self.scale.shape != (self.num_ids,):
            raise ValueError(f"a scale of shape {self.scale.shape} does not fit {self.num_ids} ids")
        if self.names is not None and self.names.shape != (self.num_rows,):
            raise ValueError(f"names of shape {self.names.shape} do not fit {self.num_rows} rows")

    @classmethod
    def from_rule(
        cls,
        rule: Rule,
        num_ids: int,
        num_rows: int,
        weights: np.ndarray | None = None,
        names: np.ndarray | None = None,
    ) -> Codes:
        """Evaluate a rule; `weights` (s,) pools its codes unless the rule brings weights of its own."""
        found = rule.evaluate(num_ids, num_rows)
        weights = weights if found.weights is None else found.weights
        return cls(found.index, num_rows, weights, rule, ends=found.ends, names=names)

    @classmethod
    def from_labels(cls, *labels: np.ndarray) -> Codes:
        """Number the distinct labels, which name the rows, in ascending order; one (n,) array per code of an id."""
        stacked = np.stack(labels, axis=1)
        distinct, index = np.unique(stacked, return_inverse=True)
        return cls(index.reshape(stacked.shape).astype(np.int32), len(distinct), names=distinct)

    @property
    def num_ids(self) -> int:
        return len(self.index) if self.ends is None else len(self.ends) - 1

    @property
    def codes_per_id(self) -> int:
        """s, or the most codes that an id has."""
        return self.index.shape[1] if self.ends is None else int(np.diff(self.ends).max())

    @property
    def first(self) -> np.ndarray:
        """(n,) int32: the first code of each id."""
        return self.index[:, 0] if self.ends is None else self.index[self.ends[:-1]]

    @property
    def row_names(self) -> np.ndarray:
        """(num_rows,): the names of rows, or their numbers where they have none."""
        return np.arange(self.num_rows) if self.names is None else self.names

    @property
    def bounds(self) -> np.ndarray:
        """(n + 1,) int64: `ends`, or what they would be."""
        return np.arange(self.num_ids + 1) * self.codes_per_id if self.ends is None else self.ends

    @property
    def extra_codes(self) -> int:
        """Codes beyond the first, over all ids. Under the mean only distinct ones count."""
        if self.weights is not None:
            weights = np.broadcast_to(self.weights, self.index.shape)
            return int(np.count_nonzero(weights)) - self.num_ids
        ordered = np.sort(self.index, axis=1)
        return int(np.count_nonzero(ordered[:, 1:] != ordered[:, :-1]))

    @property
    def num_stored_weights(self) -> int:
        """Pooling weights that a server has to store: those given per id, unless a rule yields them, and scales."""
        return sum(array.size for array in self._stored_weights().values())

    def _stored_weights(self) -> dict[str, np.ndarray]:
        stored = {}
        if self.weights is not None and self.weights.shape == self.index.shape and self.rule is None:
            stored["weights"] = self.weights
        if self.scale is not None:
            stored["scale"] = self.scale
        return stored

    def pack(self) -> dict[str, np.ndarray]:
        """What a server stores of the codes: the rule's arrays, or the codes at ceil(log2 num_rows) bits each."""
        if self.rule is not None:
            return self.rule.arrays() | self._stored_weights()
        return {"codes": pack_bits(self.index.ravel(), code_bits(self.num_rows))} | self._stored_weights()

    @property
    def packed_bytes(self) -> int:
        """Length of `pack()` in bytes, without packing."""
        weights = sum(array.nbytes for array in self._stored_weights().values())
        if self.rule is not None:
            return weights + sum(array.nbytes for array in self.rule.arrays().values())
        return weights + packed_code_bytes(self.index.size, self.num_rows)

    def header(self) -> dict:
        """What `unpack` needs to know beside the arrays; a few plain values."""
        constant = self.weights.tolist() if self.weights is not None and self.weights.ndim < self.index.ndim else None
        return {
            "shape": [self.num_ids, self.codes_per_id],
            "num_rows": self.num_rows,
            "weights": constant,
            "rule": self.rule.name if self.rule is not None else None,
        }

    @classmethod
    def unpack(cls, header: dict, arrays: dict[str, np.ndarray]) -> Codes:
        """The inverse of `pack`, from the arrays that it returned and the `header`."""
        (num_ids, codes_per_id), num_rows = header["shape"], header["num_rows"]
        weights = None if header["weights"] is None else np.array(header["weights"], np.float32)
        if header["rule"] is not None:
            if header["rule"] not in RULES:
                raise UserError(f"the export uses the code rule '{header['rule']}', which this version does not know")
            rule = RULES[header["rule"]]
            own = {field.name: arrays[field.name] for field in fields(rule)}
            codes = cls.from_rule(rule(**own), num_ids, num_rows, weights)
        else:
            index = unpack_bits(arrays["codes"], code_bits(num_rows), num_ids * codes_per_id)
            index = index.reshape(num_ids, codes_per_id).astype(np.int32)
            codes = cls(index, num_rows, arrays.get("weights", weights))
        return replace(codes, scale=arrays.get("scale"), names=arrays.get("names"))


@dataclass(frozen=True, eq=False)
class Assignment:
    """The codes of both sides, and what the method wants the record to say about them.

    Attributes
    ----------
    users, items : Codes
    details : dict
        Plain values, such as the resolution that a search found.
    labels : (num_nodes,) integers or None
        The joint clusters of users and items, users first, where codes come from such. Codes do not need them: they
        are not packed, but an update does, and gets them by `clusters`.
    shared : bool
        Whether the codes of both sides name rows of one codebook, instead of one for each side.
    """

    users: Codes
    items: Codes
    details: dict = field(default_factory=dict)
    labels: np.ndarray | None = None
    shared: bool = False

    def __post_init__(self):
        if self.shared and self.users.num_rows != self.items.num_rows:
            raise ValueError(f"one codebook cannot have {self.users.num_rows} rows and {self.items.num_rows}")

    @classmethod
    def of_own_rows(cls, num_users: int, num_items: int) -> Assignment:
        """A row for every id."""
        users, items = (Codes.from_rule(Identity(), size, size) for size in (num_users, num_items))
        return cls(users, items)

    @property
    def rows_of_codebooks(self) -> tuple[int, ...]:
        """How many rows each codebook has: that of the users and that of the items, or the one that they share."""
        return (self.users.num_rows,) if self.shared else (self.users.num_rows, self.items.num_rows)

    def pack(self) -> tuple[dict, dict[str, np.ndarray]]:
        """A header of plain values, and the packed arrays of both sides under 'users.' and 'items.' names."""
        header = {side: getattr(self, side).header() for side in SIDES}
        header |= {"details": self.details, "shared": self.shared}
        arrays = {f"{side}.{name}": array for side in SIDES for name, array in getattr(self, side).pack().items()}
        return header, arrays

    def clusters(self) -> dict[str, np.ndarray]:
        """The labels and the names of rows, from which `unpack` has them if they lie beside what `pack` returned."""
        found = {"labels": self.labels} | {f"{side}.names": getattr(self, side).names for side in SIDES}
        return {} if self.labels is None else {name: array for name, array in found.items() if array is not None}

    @classmethod
    def unpack(cls, header: dict, arrays: dict[str, np.ndarray]) -> Assignment:
        """The inverse of `pack`, and of `clusters`; arrays of other names are ignored."""
        codes = {}
        for side in SIDES:
            own = {name.removeprefix(f"{side}."): a for name, a in arrays.items() if name.startswith(f"{side}.")}
            codes[side] = Codes.unpack(header[side], own)
        shared = header.get("shared", False)  # not in exports from before it could be
        return cls(codes["users"], codes["items"], header["details"], arrays.get("labels"), shared)
