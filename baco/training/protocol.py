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
    decay_per_epoch : float
        The part of its value that a row loses in an epoch at the full learning rate (AdamW's decoupled decay), for a
        backbone without propagation; LightGCN with L layers takes 1 / (L + 1) of it, which is the row's share of its
        final embedding. Counted per epoch, one value serves datasets and batches of any size; decoupled, it serves
        rows with few interactions and rows with many, whether they stand for one id or for a cluster.
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
    decay_per_epoch: float
    loss_epsilon: float
    max_epochs: int
    eval_every: int
    patience: int

    def __post_init__(self):
        for key in ("init_std", "learning_rate", "batch_size", "max_epochs", "eval_every", "patience"):
            if not getattr(self, key) > 0:
                raise UserError(f"protocol.{key}={getattr(self, key)} must be positive")
        for key in ("weight_decay", "decay_per_epoch", "loss_epsilon"):
            if not getattr(self, key) >= 0:
                raise UserError(f"protocol.{key}={getattr(self, key)} must be 0 or more")
        if self.weight_decay > 0 and self.decay_per_epoch > 0:
            raise UserError(
                "protocol.weight_decay and protocol.decay_per_epoch exclude each other; set one of them to 0"
            )
        if self.schedule not in ("constant", "linear"):
            raise UserError(f"protocol.schedule={self.schedule} must be constant or linear")

    def rate_factor(self, num_steps: int) -> Callable[[int], float]:
        """From the number of steps done to the factor on the learning rate, for a training of `num_steps` at most."""
        if self.schedule == "constant":
            return lambda step: 1.0
        return lambda step: max(0.0, 1 - step / num_steps)
