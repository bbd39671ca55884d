"""The assignment cache: codes on disk, named by what decides them.

Clustering done on one machine can be trained on another, and a sweep over backbones clusters once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

from baco.coclustering.statistics import cluster_statistics
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import Assignment
from baco.files import from_json_array, json_array, read_arrays, write_arrays
from baco.graph import Biadjacency
from baco.rng import stream
from baco.runs.provenance import processor

log = logging.getLogger(__name__)

ASSIGNMENTS_VERSION = 1  # raised when the codes of some method change on purpose


def cached_assignment(
    compressor: CodeCompressor, train: Biadjacency, budget: Budget, seed: int, folder: Path, afresh: bool = False
) -> tuple[Assignment, float]:
    """The compressor's codes and the seconds it took to compute them, then or now.

    Its details are those of `describe_assignment`, whose seconds are not counted.

    Parameters
    ----------
    afresh : bool
        Compute them although they are in the cache, and replace them there.
    """
    identity = {
        "version": ASSIGNMENTS_VERSION,
        "method": compressor.name,
        "settings": asdict(compressor.config),
        "budget": budget.as_dict() if compressor.has_budget else None,
        "seed": seed,
        "graph": train.fingerprint,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{compressor.name}-{key}.npz"
    if path.exists() and not afresh:
        try:
            arrays = read_arrays(path)
            header = from_json_array(arrays.pop("header"))
            return Assignment.unpack(header, arrays), header["seconds"]
        except Exception as error:  # the codes can be computed again
            log.warning("%s cannot be read (%s); the codes are computed again", path, error)
    compressor.warm_up()
    start = time.perf_counter()
    assignment = compressor.assign(train, budget, stream(seed, "assign"))
    seconds = time.perf_counter() - start
    assignment = replace(assignment, details=describe_assignment(assignment, train))
    header, arrays = assignment.pack()
    header |= {"seconds": seconds, "decides": identity}
    write_arrays(path, {"header": json_array(header)} | arrays | assignment.clusters())
    return assignment, seconds


def describe_assignment(assignment: Assignment, train: Biadjacency) -> dict:
    """What a record says of codes that have just been computed: their details, and two more.

    `computed_on` is this machine. Where there are joint clusters, `clusters` describes them (`cluster_statistics`).
    """
    details = assignment.details | {"computed_on": processor()}
    if assignment.labels is not None:
        details["clusters"] = cluster_statistics(train, assignment.labels)
    return details
