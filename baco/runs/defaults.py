"""What a run uses where conf/config.yaml says null: its dataset's budget, its method's popularity scale and start."""

from __future__ import annotations

from baco.errors import UserError


def filled(scalars: dict, dataset: dict, backbone: dict, method: dict) -> dict:
    """The scalars of conf/config.yaml without nulls in what datasets and methods have a word in.

    Takes the method's word, `mf_popularity` and `start`, out of its section: it describes the run, not the method. Its
    popularity scale is for backbones that do not propagate.

    Raises
    ------
    UserError
        When there is no budget.
    """
    mf_popularity = method.pop("mf_popularity", 0.0)
    own = {
        "budget": dataset.get("budget"),
        "popularity": 0.0 if backbone.get("num_layers", 0) > 0 else mf_popularity,
        "start": method.pop("start", "normal"),
    }
    if scalars["budget"] is None and own["budget"] is None:
        raise UserError("this dataset has no budget of its own; give one, such as budget=0.25")
    return scalars | {key: value for key, value in own.items() if scalars[key] is None}
