"""How a model is trained: the settings of a protocol, and its schedule of learning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from baco.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """Settings of the trainer; conf/protocol/*.yaml hold those of the paper and ours.

    Attributes
    ----------
    name : str
        What records call it.
    init_std : float
        Standard deviation of the rows' first values.
    batch_size : int
        Positive interactions in a step.
    learning_rate : float
        Of Adam.
    schedule : str
        'constant', or 'linear': the learning rate falls linearly to zero over `max_epochs`.
    weight_decay : float
        Added to the gradient of every row, times the row (Adam's coupled decay, as the authors').
    prior : float
        x
    l2 : float
        Weight of the squared layer-0 embeddings of a batch, half their sum over the batch size (LightGCN's regulariser).
    loss_epsilon : float
        See `loss.bpr_loss`.
    max_epochs : int
        Most passes over the training interactions.
    eval_every : int
        Epochs between validations. The first validation follows epoch 1.
    patience : int
        Validations without a better recall@20 after which training stops.
    """

    name: str
    init_std: float
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    prior: float
    l2: float
    loss_epsilon: float
    max_epochs: int
    eval_every: int
    patience: int

    def __post_init__(self):
        for key in ("init_std", "learning_rate", "batch_size", "max_epochs", "eval_every", "patience"):
            if not getattr(self, key) > 0:
                raise UserError(f"protocol.{key}={getattr(self, key)} must be positive")
        for key in ("weight_decay", "l2", "loss_epsilon"):
            if not getattr(self, key) >= 0:
                raise UserError(f"protocol.{key}={getattr(self, key)} must be 0 or more")
        if self.schedule not in ("constant", "linear"):
            raise UserError(f"protocol.schedule={self.schedule} must be constant or linear")

    def rate_factor(self, num_steps: int) -> Callable[[int], float]:
        """From the number of steps done to the factor on the learning rate, for a training of `num_steps` at most."""
        if self.schedule == "constant":
            return lambda step: 1.0
        return lambda step: max(0.0, 1 - step / num_steps)
