"""Interactions: who interacted with what, split three ways over one fixed id space."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd

from baco.errors import UserError
from baco.files import from_json_array, json_array, read_arrays, write_arrays
from baco.graph import Biadjacency, Neighbors

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataReport:
    """What was found when the interactions were checked; zero everywhere for clean data.

    Attributes
    ----------
    duplicates : int
        Repeated pairs within a split; each was kept once.
    overlaps : int
        Held-out pairs that an earlier split (train before val before test) holds too; they were dropped from the later
        one, since the ranking hides what a user already has.
    users_without_training, items_without_training : int
        Ids that no training interaction mentions. They are kept.
    """

    duplicates: int
    overlaps: int
    users_without_training: int
    items_without_training: int


REPORTED = {
    "duplicates": "interactions were repeated and kept once",
    "overlaps": "held-out interactions stand in an earlier split too and were dropped",
    "users_without_training": "users have no training interactions",
    "items_without_training": "items have no training interactions",
}


@dataclass(frozen=True)
class ImportReport:
    """What became of the rows of a log: `rows` is the sum of the other counts.

    Attributes
    ----------
    source : str
        The name of the file, and the format that it was read as.
    rows : int
        Records read.
    missing_ids, below_min_rating, outside_core : int
        Rows that each filter dropped, in this order; the core is taken after repeated pairs were merged.
    repeated : int
        Rows whose pair an earlier row has; of each pair the earliest counts.
    overlapping : int
        Of a split that was given: rows whose pair stands in an earlier split (train before val before test).
    kept : int
    """

    source: str
    rows: int
    missing_ids: int
    below_min_rating: int
    repeated: int
    overlapping: int
    outside_core: int
    kept: int

    def __str__(self) -> str:
        dropped = [f"{getattr(self, name):,} {words}" for name, words in DROPPED.items() if getattr(self, name)]
        return f"{self.source}: {', '.join([f'{self.rows:,} rows', *dropped, f'{self.kept:,} interactions kept'])}"


DROPPED = {
    "missing_ids": "without an id dropped",
    "below_min_rating": "below min_rating dropped",
    "repeated": "repeated and merged",
    "overlapping": "of an earlier split dropped",
    "outside_core": "outside the k-core dropped",
}


@dataclass(frozen=True, eq=False)
class Interactions:
    """A dataset.

    Attributes
    ----------
    name : str
    train, val, test : Biadjacency
        Disjoint, and of one shape.
    report : DataReport
    user_ids, item_ids : (num_users,) and (num_items,) arrays, or None
        The ids of the source, position by position, where the source had ids of its own: integers or text.
    import_report : ImportReport or None
        What became of the rows of the log that the data were imported from.
    """

    name: str
    train: Biadjacency
    val: Biadjacency
    test: Biadjacency
    report: DataReport
    user_ids: np.ndarray | None = None
    item_ids: np.ndarray | None = None
    import_report: ImportReport | None = None

    @classmethod
    def from_pairs(
        cls,
        name: str,
        splits: dict[str, np.ndarray],
        num_users: int,
        num_items: int,
        user_ids: np.ndarray | None = None,
        item_ids: np.ndarray | None = None,
        import_report: ImportReport | None = None,
    ) -> Interactions:
        """Check the three splits, each an integer array (2, E) of users and items, and build the dataset.

        Raises
        ------
        UserError
            When a split is empty, has another shape or type, or holds ids outside the declared numbers, or the ids of
            the source are not one for each user and item.
        """
        if (user_ids is None) != (item_ids is None):
            given = "user_ids" if item_ids is None else "item_ids"
            raise UserError(f"dataset '{name}': {given} must come with those of the other side")
        for key, ids, size in (("user_ids", user_ids, num_users), ("item_ids", item_ids, num_items)):
            if ids is not None and (ids.shape != (size,) or not pd.Index(ids).is_unique):
                raise UserError(f"dataset '{name}': {key} must be {size} different ids, one for each position")
        graphs: dict[str, Biadjacency] = {}
        duplicates, overlaps = 0, 0
        for split in SPLITS:
            pairs = np.asarray(splits[split])
            _check_shape(name, split, pairs)
            users, items = pairs
            if pairs.shape[1] == 0:
                raise UserError(f"dataset '{name}': the {split} split is empty")
            try:
                graph = Biadjacency.from_pairs(users, items, num_users, num_items)
            except UserError as error:
                raise UserError(f"dataset '{name}', {split} split: {error}") from None
            duplicates += pairs.shape[1] - graph.num_edges
            fresh = ~_are_in(graph, graphs.values())
            if not fresh.all():
                overlaps += int(np.count_nonzero(~fresh))
                graph = Biadjacency.from_sorted(graph.users[fresh], graph.items[fresh], num_users, num_items)
                if graph.num_edges == 0:
                    raise UserError(f"dataset '{name}': every pair of the {split} split stands in an earlier split")
            graphs[split] = graph
        report = DataReport(
            duplicates,
            overlaps,
            int(np.count_nonzero(graphs["train"].user_degrees == 0)),
            int(np.count_nonzero(graphs["train"].item_degrees == 0)),
        )
        return cls(name, **graphs, report=report, user_ids=user_ids, item_ids=item_ids, import_report=import_report)

    @classmethod
    def from_arrays(cls, name: str, arrays: dict[str, np.ndarray], val_share: float = 0.1) -> Interactions:
        """Check the arrays of a prepared file, see `load_interactions`; raises `UserError` as `from_pairs`."""
        if "val" not in arrays:
            arrays = arrays | _carve_validation(name, arrays["train"], val_share)
        return cls.from_pairs(
            name,
            {split: arrays[split] for split in SPLITS},
            int(arrays["num_users"]),
            int(arrays["num_items"]),
            _as_text(arrays.get("user_ids")),
            _as_text(arrays.get("item_ids")),
            ImportReport(**from_json_array(arrays["import_report"])) if "import_report" in arrays else None,
        )

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    def union(self, splits: Iterable[str]) -> Biadjacency:
        """The interactions of several splits together."""
        matrix = reduce(add, (getattr(self, split).to_matrix() for split in splits))
        by_user = Neighbors(matrix.indptr.astype(np.int64), matrix.indices)
        return Biadjacency(self.num_users, self.num_items, by_user)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the three splits: two files with one fingerprint are one experiment's data."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(getattr(self, split).fingerprint.encode())
        return digest.hexdigest()

    def log_summary(self) -> None:
        """Log the counts, and a warning for everything that had to be mended."""
        sizes = " / ".join(f"{getattr(self, split).num_edges:,}" for split in SPLITS)
        log.info(
            "%s: %d users, %d items, %s interactions (train / val / test)",
            self.name,
            self.num_users,
            self.num_items,
            sizes,
        )
        for what, count in asdict(self.report).items():
            if count:
                level = logging.WARNING if what in ("duplicates", "overlaps") else logging.INFO
                log.log(level, "%s: %d %s", self.name, count, REPORTED[what])


def load_interactions(path: Path, name: str, val_share: float = 0.1) -> Interactions:
    """Read a prepared file: `train`, `val`, `test` (2, E) integers, `num_users`, `num_items`; ids are optional.

    A file without `val` (a published split of two parts) gets one: `val_share` of its training pairs, chosen by a
    fixed seed, so that no setting is ever chosen on the test split.

    Raises
    ------
    UserError
        When the file is missing, is no such archive, or fails a check of `Interactions.from_pairs`.
    """
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise UserError(f"dataset '{name}': there is no file {path}") from None
    except Exception as error:
        raise UserError(
            f"dataset '{name}': {path} cannot be read ({error}); delete it if it was downloaded or imported, else "
            "write it again, of integers and ids of fixed-width text"
        ) from None
    missing = {"train", "test", "num_users", "num_items"} - arrays.keys()
    if missing:
        raise UserError(f"dataset '{name}': {path} lacks the array '{sorted(missing)[0]}'")
    for size in ("num_users", "num_items"):
        if arrays[size].shape != () or arrays[size].dtype.kind not in "iu":
            found = f"{arrays[size].dtype} of the shape {arrays[size].shape}"
            raise UserError(f"dataset '{name}': {size} must be a single integer, not {found} (file {path})")
    try:
        return Interactions.from_arrays(name, arrays, val_share)
    except UserError as error:
        raise UserError(f"{error} (file {path})") from None


def save_interactions(data: Interactions, path: Path) -> None:
    """Write a prepared file, all of it or nothing."""
    arrays = interaction_arrays(data)
    if data.user_ids is not None and data.item_ids is not None:
        arrays |= {"user_ids": data.user_ids, "item_ids": data.item_ids}
    if data.import_report is not None:
        arrays["import_report"] = json_array(asdict(data.import_report))
    write_arrays(path, arrays)


def interaction_arrays(data: Interactions) -> dict[str, np.ndarray]:
    """Those of a prepared file that it must have."""
    pairs = {split: np.stack([getattr(data, split).users, getattr(data, split).items]) for split in SPLITS}
    return pairs | {"num_users": np.array(data.num_users, np.int32), "num_items": np.array(data.num_items, np.int32)}


def _carve_validation(name: str, train: np.ndarray, share: float) -> dict[str, np.ndarray]:
    _check_shape(name, "train", train)
    order = np.random.default_rng(0).permutation(train.shape[1])
    held_out = int(share * train.shape[1])
    if held_out == 0:
        raise UserError(f"dataset '{name}': val_share={share} of {train.shape[1]} training pairs is none at all")
    return {"val": train[:, order[:held_out]], "train": train[:, order[held_out:]]}


def _as_text(ids: np.ndarray | None) -> np.ndarray | None:
    """Ids that NumPy stores as bytes are text in UTF-8."""
    if ids is None or ids.dtype.kind != "S":
        return ids
    return np.array([one.decode(errors="backslashreplace") for one in ids.tolist()], np.dtypes.StringDType())


def _are_in(graph: Biadjacency, earlier: Iterable[Biadjacency]) -> np.ndarray:
    """(E,) bool, which pairs of a graph others have; all are sorted, so that nothing large is made."""
    keys = graph.keys()
    found = np.zeros(len(keys), bool)
    for other in earlier:
        theirs = other.keys()
        places = np.searchsorted(theirs, keys)
        found |= theirs[np.minimum(places, len(theirs) - 1)] == keys
    return found


def _check_shape(name: str, split: str, pairs: np.ndarray) -> None:
    if pairs.ndim != 2 or len(pairs) != 2:
        raise UserError(f"dataset '{name}': {split} must have the shape (2, E), not {pairs.shape}")
