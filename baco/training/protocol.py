"""How a model is trained: the settings of a protocol, and its schedule of learning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from baco.errors import SettingError
from baco.validation import Validated, setting


@dataclass(frozen=True)
class Protocol(Validated):
    """Settings of the trainer; conf/protocol/*.yaml hold those of the paper and ours.

    Attributes
    ----------
    name : str
        What records call it.
    init_std : float
        Standard deviation of the rows' first values.
    batch_size : int, optional
        Positive interactions in a step; None: as `steps_per_epoch` says.
    steps_per_epoch : int, optional
        Steps of an epoch where there is no batch size: one number serves datasets of any size.
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
    max_epochs : int
        Most passes over the training interactions.
    eval_every : int
        Epochs between validations. The first validation follows epoch 1.
    patience : int
        Validations without a better recall@20 after which training stops.
    """

    name: str
    init_std: float = setting(above=0)
    learning_rate: float = setting(above=0)
    schedule: str = setting(one_of=("constant", "linear"))
    weight_decay: float = setting(at_least=0)
    decay_per_epoch: float = setting(at_least=0)
    max_epochs: int = setting(at_least=1)
    eval_every: int = setting(at_least=1)
    patience: int = setting(at_least=1)
    batch_size: int | None = setting(None, at_least=1)
    steps_per_epoch: int | None = setting(None, at_least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.weight_decay > 0 and self.decay_per_epoch > 0:
            mend = f"excludes decay_per_epoch={self.decay_per_epoch}; set one of them to 0"
            raise SettingError("weight_decay", self.weight_decay, mend)
        if self.batch_size is None and self.steps_per_epoch is None:
            raise SettingError("batch_size", None, "must be given, or steps_per_epoch")

    def pairs_per_step(self, num_interactions: int) -> int:
        """The batch size for so many training interactions."""
        if self.batch_size is not None:
            return self.batch_size
        return max(1, -(-num_interactions // (self.steps_per_epoch or 1)))

    def rate_factor(self, num_steps: int) -> Callable[[int], float]:
        """From the number of steps done to the factor on the learning rate, for a training of `num_steps` at most."""
        if self.schedule == "constant":
            return lambda step: 1.0
        return lambda step: max(0.0, 1 - step / num_steps)
