"""How long a run will take, judged by the records of earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median


def expected_seconds(records: Iterable[dict], identity: dict, device: str, assign_only: bool) -> float:
    """Estimate how long a run takes, from records on the same dataset.

    The estimate is the sum of two parts. The first is the longest clustering of the method on any device, with its
    search. The second is the longest time of training, validation and test of the method on this type of device, with
    the same backbone, protocol and dimension. If the method has no such run, the median over other methods takes its
    place. A part of which nothing is known counts as 0.

    Parameters
    ----------
    records : iterable of dict
        Records of earlier runs.
    identity : dict
        What decides the result of the run, like ``config`` in its record.
    device : str
        The type of device, such as "cpu" or "cuda".
    assign_only : bool
        Whether the run only computes an assignment: then only clustering counts, without the search.

    Returns
    -------
    float
    """
    own: list[float] = []
    others: list[float] = []
    clustering: list[float] = []
    for record in records:
        config, seconds = record["config"], record["seconds"]
        if config["dataset"] != identity["dataset"]:
            continue
        same_method = config["method"]["name"] == identity["method"]["name"]
        if same_method:
            clustering.append(seconds["clustering"] + (0.0 if assign_only else seconds["search"]))
        same_training = all(config[key] == identity[key] for key in ("backbone", "protocol", "dim"))
        if same_training and record["environment"]["device"] == device:
            trained = sum(seconds[phase] for phase in ("training", "validation", "test"))
            (own if same_method else others).append(trained)
    clustered = max(clustering, default=0.0)
    if assign_only:
        return clustered
    return clustered + (max(own) if own else median(others or [0.0]))
