"""Rules: how a server works out codes from ids, from all of them or from a few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from baco.embedding.bits import (
    bits_and_ranks,
    code_bits,
    pack_bits,
    read_bits,
    running_sums,
    unpack_bits,
    values_and_sums,
)

NO_MARKS = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The codes of the ids 0..num_ids-1 by a rule, or of some of them; the fields are those of `Codes`."""

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

    def marks(self) -> np.ndarray:
        """int64: what `at` needs beside `arrays`, so that it reads a few bytes for an id and not those of all before.

        Empty for rules that need nothing. They can always be worked out again; files that are read by memory map have
        them.
        """

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        """The codes of some of the ids 0..num_ids-1, (b,) int64."""


class Computed:
    """What rules by a formula of the id have in common. A subclass gives `at`."""

    def marks(self) -> np.ndarray:
        return NO_MARKS

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        raise NotImplementedError

    def evaluate(self, num_ids: int, num_rows: int) -> Evaluated:
        return self.at(np.arange(num_ids), NO_MARKS, num_ids, num_rows)


@dataclass(frozen=True)
class Identity(Computed):
    """Every id has the row of its own number."""

    name: ClassVar[str] = "identity"

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        return Evaluated(ids.astype(np.int32)[:, None])


@dataclass(frozen=True, eq=False)
class AffineHash(Computed):
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
        multipliers: list[int] = []
        while len(multipliers) < num_hashes:
            candidate = int(rng.integers(1, max(2, num_ids)))
            if math.gcd(candidate, num_ids) == 1:
                multipliers.append(candidate)
        return cls(np.array(multipliers, np.int64), offsets)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"multipliers": self.multipliers, "offsets": self.offsets}

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        return Evaluated(affine(self.multipliers, self.offsets, ids, num_ids, num_rows))


def affine(multipliers: np.ndarray, offsets: np.ndarray, ids: np.ndarray, modulus: int, num_rows: int) -> np.ndarray:
    """(b, s) int32: ((a x + b) mod modulus) mod num_rows of (b,) int64 ids, for s pairs (a, b)."""
    return ((ids[:, None] * multipliers + offsets) % modulus % num_rows).astype(np.int32)


@dataclass(frozen=True, eq=False)
class SaltedHash(Computed):
    """The affine hash of the N users and items together, as the ids of one side have it.

    h(x) = ((a x + b) mod N) mod K. Items are numbered after the users, so that their b is that of the users plus
    a num_users: the salt. In a codebook that both sides share, no two rows differ by more than one user or item.
    """

    multipliers: np.ndarray  # (s,) int64, a in [1, N), coprime with N
    offsets: np.ndarray  # (s,) int64, b in [0, N)
    num_nodes: np.ndarray  # (1,) int64, N
    name: ClassVar[str] = "salted"

    @classmethod
    def draw(
        cls, num_hashes: int, num_users: int, num_items: int, rng: np.random.Generator
    ) -> tuple[SaltedHash, SaltedHash]:
        """Those of users and of items."""
        nodes = num_users + num_items
        joint = AffineHash.draw(num_hashes, nodes, rng)
        salted = (joint.offsets + joint.multipliers * num_users) % nodes
        users, items = (cls(joint.multipliers, offsets, np.array([nodes])) for offsets in (joint.offsets, salted))
        return users, items

    def arrays(self) -> dict[str, np.ndarray]:
        return {"multipliers": self.multipliers, "offsets": self.offsets, "num_nodes": self.num_nodes}

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        return Evaluated(affine(self.multipliers, self.offsets, ids, int(self.num_nodes[0]), num_rows))


@dataclass(frozen=True, eq=False)
class QuotientAndRemainder(SaltedHash):
    """Two codes from the place h(x) = (a x + b) mod N of an id among the N users and items together, or of its side.

    The first half of the rows is for the place modulo their number, the other half for the place divided by the number
    of places that share such a row. No two ids have both rows in common where there are sqrt(N) rows of each kind.
    """

    name: ClassVar[str] = "quotient and remainder"

    @classmethod
    def draw_own(cls, num_ids: int, rng: np.random.Generator) -> QuotientAndRemainder:
        """That of a side by itself."""
        own = AffineHash.draw(1, num_ids, rng)
        return cls(own.multipliers, own.offsets, np.array([num_ids]))

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        nodes, half = int(self.num_nodes[0]), num_rows // 2
        places = affine(self.multipliers, self.offsets, ids, nodes, nodes).astype(np.int64)
        return Evaluated(np.hstack([places % half, half + places * half // nodes]).astype(np.int32))


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
        return self._codes(own, np.cumsum(own) - own, int(np.count_nonzero(own)), np.arange(num_ids), num_ids, num_rows)

    def marks(self) -> np.ndarray:
        """How many ids have an own row, before each block of bytes and in all."""
        return running_sums(np.bitwise_count(self.own))

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        own, before = bits_and_ranks(ids, self.own, marks)
        return self._codes(own, before, int(marks[-1]), ids, num_ids, num_rows)

    def _codes(
        self, own: np.ndarray, own_before: np.ndarray, num_own: int, ids: np.ndarray, num_ids: int, num_rows: int
    ) -> Evaluated:
        """Those of (b,) ids, of each of which is known whether it has an own row, and how many before it have."""
        num_shared = num_rows - num_own
        shared = affine(self.multipliers, self.offsets, ids - own_before, num_ids - num_own, num_shared)
        index = np.where(own[:, None], (num_shared + own_before)[:, None], shared).astype(np.int32)
        if index.shape[1] == 1:
            return Evaluated(index)
        weights = np.ones(index.shape, np.float32)
        weights[own, 1:] = 0
        return Evaluated(index, weights)


@dataclass(frozen=True, eq=False)
class HashAndLabel(Computed):
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

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        hashed = affine(self.multipliers, self.offsets, ids, num_ids, num_rows)
        labels = read_bits(self.labels, code_bits(num_rows), ids)
        return Evaluated(np.column_stack([hashed, labels]).astype(np.int32))


@dataclass(frozen=True, eq=False)
class ManyCodes:
    """As many stored codes as each id needs, repeats included; its embedding is the mean of their rows."""

    counts: np.ndarray  # (n,), the smallest unsigned type that holds them: how many codes each id has, one at least
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

    def marks(self) -> np.ndarray:
        """How many codes there are before each block of ids, and in all."""
        return running_sums(self.counts)

    def at(self, ids: np.ndarray, marks: np.ndarray, num_ids: int, num_rows: int) -> Evaluated:
        counts, before = values_and_sums(ids, self.counts.__getitem__, marks, num_ids)
        ends = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(counts, out=ends[1:])
        places = np.arange(ends[-1]) + np.repeat(before - ends[:-1], counts)
        codes = read_bits(self.codes, code_bits(num_rows), places).astype(np.int32)
        return Evaluated(codes, np.repeat((1 / counts).astype(np.float32), counts), ends)


RULES: dict[str, type] = {
    rule.name: rule
    for rule in (Identity, AffineHash, SaltedHash, QuotientAndRemainder, OwnRows, HashAndLabel, ManyCodes)
}
