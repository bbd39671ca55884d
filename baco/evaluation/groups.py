"""Groups of users by activity: whom does compression hurt?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # whoever only reads records needs no torch
    from baco.evaluation.evaluator import RankingReport

QUARTILES = ("0-25%", "25-50%", "50-75%", "75-100%")


def activity_quartiles(degrees: np.ndarray) -> np.ndarray:
    """(m,) int64 in 0..3: the quartile of each user's number of training interactions, among the users given.

    Users with equally many are in one group, so groups need not be equally large.
    """
    return np.searchsorted(np.quantile(degrees, [0.25, 0.5, 0.75]), degrees, side="left")


def means_by_activity(report: RankingReport, degrees: np.ndarray, k: int) -> dict[str, dict[str, float]]:
    """Mean of each metric at cut-off k per quartile (the paper's Figure 5), with the number of users as `users`.

    Parameters
    ----------
    degrees : (num_users,) integers
        Training interactions of every user.
    """
    group = activity_quartiles(degrees[report.users])
    values = report.per_user(k)
    means = {}
    for number, name in enumerate(QUARTILES):
        chosen = group == number
        if chosen.any():
            means[name] = {f"{metric}@{k}": float(of_user[chosen].mean()) for metric, of_user in values.items()}
            means[name]["users"] = int(chosen.sum())
    return means
