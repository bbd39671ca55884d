"""Codes: which codebook rows stand for which user or item."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from baco.errors import UserError

SIDES = ("users", "items")


class Evaluated(NamedTuple):
    """The codes of the ids 0..num_ids-1 by a rule; the fields are those of `Codes`."""

    index: np.ndarray
    weights: np.ndarray | None = None
    ends: np.ndarray | None = None


class Rule(Protocol):
    """How a server works out codes from ids, so that it need not store them.

    `arrays` are what it stores instead, its dataclass fields, from which it is rebuilt.
    """

    name: ClassVar[str]

    def arrays(self) -> dict[str, np.ndarray]: ...

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated: ...


@dataclass(frozen=True)
class Identity:
    """Every id has the row of its own number."""

    name: ClassVar[str] = "identity"

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        return Evaluated(np.arange(num_ids, dtype=np.int32)[:, None])


@dataclass(frozen=True, eq=False)
class AffineHash:
    """h(x) = ((a x + b) mod n) mod K with a and n coprime: a permutation of the n ids, then K rows in turn.

    No two rows differ by more than one id. One hash for each entry of `multipliers` and `offsets`.
    """

    multipliers: np.ndarray  # (s,) int64, a in [1, n), coprime with n
    offsets: np.ndarray  # (s,) int64, b in [0, n)
    name: ClassVar[str] = "affine"

    @classmethod
    def draw(cls, num_hashes: int, num_ids: int, rng: np.random.Generator) -> AffineHash:
        """Hashes for ids 0..num_ids-1, drawn one by one; with few rows two may merge the same ids."""
        offsets = rng.integers(num_ids, size=num_hashes)
        multipliers = []
        while len(multipliers) < num_hashes:
            candidate = int(rng.integers(1, max(2, num_ids)))
            if math.gcd(candidate, num_ids) == 1:
                multipliers.append(candidate)
        return cls(np.array(multipliers, np.int64), offsets)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"multipliers": self.multipliers, "offsets": self.offsets}

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        ids = np.arange(num_ids, dtype=np.int64)[:, None]
        return Evaluated(((ids * self.multipliers + self.offsets) % num_ids % num_rows).astype(np.int32))


@dataclass(frozen=True, eq=False)
class OwnRows:
    """Some ids have a row each, the last rows; all others share the first ones by affine hashes of their rank.

    With two hashes or more, an id with an own row gives its first code the weight 1 and the others none; an id that
    shares gives every code the weight 1.
    """

    own: np.ndarray  # (ceil(n / 8),) uint8, one bit per id: whether it has an own row
    multipliers: np.ndarray  # (s,) int64, the affine hashes of those that share
    offsets: np.ndarray  # (s,) int64
    name: ClassVar[str] = "own rows"

    @classmethod
    def draw(cls, own: np.ndarray, num_hashes: int, rng: np.random.Generator) -> OwnRows:
        """From an (n,) bool array, not all true, of the ids that have an own row."""
        shared = AffineHash.draw(num_hashes, int(np.count_nonzero(~own)), rng)
        return cls(np.packbits(own), shared.multipliers, shared.offsets)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"own": self.own, "multipliers": self.multipliers, "offsets": self.offsets}

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        own = np.unpackbits(self.own, count=num_ids).astype(bool)
        num_own = int(np.count_nonzero(own))
        num_shared = num_rows - num_own
        index = np.empty((num_ids, len(self.multipliers)), np.int32)
        index[own] = np.arange(num_shared, num_rows)[:, None]
        index[~own] = AffineHash(self.multipliers, self.offsets).evaluate(num_ids - num_own, num_shared).index
        if index.shape[1] == 1:
            return Evaluated(index)
        weights = np.ones(index.shape, np.float32)
        weights[own, 1:] = 0
        return Evaluated(index, weights)


@dataclass(frozen=True, eq=False)
class HashAndLabel:
    """Two codes: an affine hash of the id, and a stored label."""

    multipliers: np.ndarray  # (1,) int64
    offsets: np.ndarray  # (1,) int64
    labels: np.ndarray  # uint8, the labels at ceil(log2 num_rows) bits each
    name: ClassVar[str] = "hash and label"

    @classmethod
    def of(cls, hashed: AffineHash, labels: np.ndarray, num_rows: int) -> HashAndLabel:
        """From one hash, and the (n,) labels of all ids, integers of [0, num_rows)."""
        return cls(hashed.multipliers, hashed.offsets, pack_bits(labels, code_bits(num_rows)))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"multipliers": self.multipliers, "offsets": self.offsets, "labels": self.labels}

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        hashed = AffineHash(self.multipliers, self.offsets).evaluate(num_ids, num_rows).index
        labels = unpack_bits(self.labels, code_bits(num_rows), num_ids)
        return Evaluated(np.column_stack([hashed, labels]).astype(np.int32))


@dataclass(frozen=True, eq=False)
class ManyCodes:
    """As many stored codes as each id needs, repeats included; its embedding is the mean of their rows."""

    counts: np.ndarray  # (n,), the smallest unsigned type that does: how many codes each id has, one at least
    codes: np.ndarray  # uint8, those of all ids, one id after the other, at ceil(log2 num_rows) bits each
    name: ClassVar[str] = "many codes"

    @classmethod
    def of(cls, ends: np.ndarray, codes: np.ndarray, num_rows: int) -> ManyCodes:
        """From the codes of all ids, integers of [0, num_rows); those of id x are `codes[ends[x]:ends[x + 1]]`."""
        counts = np.diff(ends)
        return cls(counts.astype(np.min_scalar_type(counts.max())), pack_bits(codes, code_bits(num_rows)))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts, "codes": self.codes}

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        ends = np.zeros(num_ids + 1, np.int64)
        np.cumsum(self.counts, out=ends[1:])
        codes = unpack_bits(self.codes, code_bits(num_rows), int(ends[-1])).astype(np.int32)
        return Evaluated(codes, np.repeat((1 / self.counts).astype(np.float32), self.counts), ends)


RULES: dict[str, type] = {rule.name: rule for rule in (Identity, AffineHash, OwnRows, HashAndLabel, ManyCodes)}


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of one side.

    An id's embedding is the mean of its rows, or their sum weighted by `weights`; then it is multiplied by its `scale`.
    Under the mean an id with fewer codes than s repeats one: a user with the codes (3, 3) has row 3, in value and in
    gradient.

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
        codes come of a rule, with a weight each.
    """

    index: np.ndarray
    num_rows: int
    weights: np.ndarray | None = None
    rule: Rule | None = None
    scale: np.ndarray | None = None
    ends: np.ndarray | None = None

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

    @classmethod
    def from_rule(cls, rule: Rule, num_ids: int, num_rows: int, weights: np.ndarray | None = None) -> Codes:
        """Evaluate a rule; `weights` (s,) pools its codes unless the rule brings weights of its own."""
        index, own_weights, ends = rule.evaluate(num_ids, num_rows)
        return cls(index, num_rows, weights if own_weights is None else own_weights, rule, ends=ends)

    @classmethod
    def from_labels(cls, *labels: np.ndarray) -> Codes:
        """Number the distinct labels 0..num_rows-1 in ascending order; one (n,) array per code of an id."""
        stacked = np.stack(labels, axis=1)
        distinct, index = np.unique(stacked, return_inverse=True)
        return cls(index.reshape(stacked.shape).astype(np.int32), len(distinct))

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
        return {"codes": pack_bits(self.index, code_bits(self.num_rows))} | self._stored_weights()

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
        return replace(codes, scale=arrays.get("scale"))


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
        are not packed.
    """

    users: Codes
    items: Codes
    details: dict = field(default_factory=dict)
    labels: np.ndarray | None = None

    @classmethod
    def of_own_rows(cls, num_users: int, num_items: int) -> Assignment:
        """A row for every id."""
        return cls(*(Codes.from_rule(Identity(), size, size) for size in (num_users, num_items)))

    def pack(self) -> tuple[dict, dict[str, np.ndarray]]:
        """A header of plain values, and the packed arrays of both sides under 'users.' and 'items.' names."""
        header = {side: getattr(self, side).header() for side in SIDES} | {"details": self.details}
        arrays = {f"{side}.{name}": array for side in SIDES for name, array in getattr(self, side).pack().items()}
        return header, arrays

    @classmethod
    def unpack(cls, header: dict, arrays: dict[str, np.ndarray]) -> Assignment:
        """The inverse of `pack`; arrays of other names are ignored."""
        codes = {}
        for side in SIDES:
            own = {name.removeprefix(f"{side}."): a for name, a in arrays.items() if name.startswith(f"{side}.")}
            codes[side] = Codes.unpack(header[side], own)
        return cls(**codes, details=header["details"])


def code_bits(num_rows: int) -> int:
    """Bits of one stored code: ceil(log2 num_rows)."""
    return (num_rows - 1).bit_length()


def packed_code_bytes(num_codes: int, num_rows: int) -> int:
    """Bytes of `num_codes` codes into `num_rows` rows, packed without gaps."""
    return -(-num_codes * code_bits(num_rows) // 8)


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """(ceil(values.size * bits / 8),) uint8: non-negative integers at `bits` bits each, the highest bit first."""
    digits = np.empty((values.size, bits), np.uint8)
    for place in range(bits):
        digits[:, place] = (values.ravel() >> (bits - 1 - place)) & 1
    return np.packbits(digits)


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: (count,) int64."""
    digits = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    values = np.zeros(count, np.int64)
    for place in range(bits):
        values = 2 * values + digits[:, place]
    return values
