"""AdamW for large tables of which a step touches few rows: what the others miss is made up when they are read next.

A row without gradient still moves in AdamW, by its decay and by the momentum of its last gradients. After its last
gradient, at step t, its first moment m and its second moment v only shrink, so that step t + j moves it to

    x <- d x - b beta_1^j m / (c beta_2^(j/2) sqrt(v) + eps),

with numbers d, b and c of step t + j that all rows share. These moves are done one after the other, when the row is
read, without reading or writing memory between them: the values are those of the dense AdamW, but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.optim import Optimizer

from baco.errors import SettingError
from baco.losses.loss import Loss
from baco.training.protocol import Protocol

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's
LONG = 250  # steps after a gradient from where its momentum, by then 4e-12 of what it was, moves no row's float32
CHUNK = 128  # rows that a thread takes at a time


def check_lazy_rows(protocol: Protocol, loss: Loss, num_layers: int, device: torch.device) -> None:
    """Refuse a training in which all rows are read, or change in other ways than by AdamW.

    Raises
    ------
    SettingError
    """
    reasons = {
        "is for device=cpu; a GPU updates all rows": device.type != "cpu",
        "is for backbone=mf: propagation reads all rows": num_layers > 0,
        f"does not work with loss={loss.name}, which reads all rows": loss.reads_all,
        "excludes protocol.weight_decay; protocol.decay_per_epoch takes its place": protocol.weight_decay > 0,
    }
    for requirement, violated in reasons.items():
        if violated:
            raise SettingError("lazy_rows", True, requirement)


@dataclass
class Missed:
    """What the rows of a table have missed since all were brought up to date.

    Attributes
    ----------
    since : (num_rows,) int32
        For each row the number of these steps that it has made.
    step, root, shrunk : (n,), (n,) and (n + 1,) float64
        Of each of these steps b, c, and the product of d over the steps before it, and at the end over all.
    """

    since: np.ndarray
    step: np.ndarray = field(default_factory=lambda: np.empty(0))
    root: np.ndarray = field(default_factory=lambda: np.empty(0))
    shrunk: np.ndarray = field(default_factory=lambda: np.ones(1))

    def add(self, decay: float, step: float, root: float) -> None:
        """One more step, with its d, b and c."""
        self.step, self.root = np.append(self.step, step), np.append(self.root, root)
        self.shrunk = np.append(self.shrunk, self.shrunk[-1] * decay)


class LazyAdamW(Optimizer):
    """Takes sparse gradients of matrices on the CPU.

    Whoever reads rows calls `catch_up` before, and `settle` before all are read, a state is saved, or training ends.
    Between `settle` and the next step its `state_dict` is complete.

    Parameters
    ----------
    groups : list of dict
        With `params`, contiguous (num_rows, dim) float32, `lr` and `weight_decay`, as for `torch.optim.AdamW`.
    """

    def __init__(self, groups: list[dict]):
        super().__init__(groups, {})
        self._missed: dict[Tensor, Missed] = {}

    @torch.no_grad()
    def catch_up(self, parameter: Tensor, rows: np.ndarray) -> None:
        """Let some distinct rows, (q,) integers, make the steps that they have missed."""
        if parameter not in self._missed:
            return
        values, first, second = self._arrays(parameter)
        missed = self._missed[parameter]
        _catch_up(rows, values, first, second, missed.since, missed.step, missed.root, missed.shrunk, *BETAS, EPS)

    def settle(self) -> None:
        """Let all rows make the steps that they have missed."""
        for parameter, missed in self._missed.items():
            self.catch_up(parameter, np.arange(len(missed.since)))
        self._missed.clear()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of the rows that have gradients; there is no `closure`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad.coalesce(), group["lr"], group["weight_decay"])

    def _step(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            state |= {"step": 0} | moments
        if parameter not in self._missed:
            self._missed[parameter] = Missed(np.zeros(len(parameter), np.int32))
        rows = gradient.indices()[0].numpy()
        self.catch_up(parameter, rows)
        state["step"] += 1
        first, second = (1 - beta ** state["step"] for beta in BETAS)
        decay, step, root = 1 - lr * weight_decay, lr / first, second**-0.5
        missed = self._missed[parameter]
        missed.add(decay, step, root)
        values, first_moment, second_moment = self._arrays(parameter)
        slopes = gradient.values().numpy()
        _step(rows, slopes, values, first_moment, second_moment, missed.since, *BETAS, EPS, decay, step, root)

    def _arrays(self, parameter: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows and both moments."""
        state = self.state[parameter]
        return parameter.detach().numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()


@njit(parallel=True, cache=True)
def _catch_up(rows, values, first, second, since, step, root, shrunk, beta_1, beta_2, eps):
    dim, now = values.shape[1], len(step)
    for chunk in prange((len(rows) + CHUNK - 1) // CHUNK):
        roots, moved = np.empty(dim, np.float32), np.empty(dim, np.float32)
        for place in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(rows))):
            row = rows[place]
            begin = since[row]
            if begin == now:
                continue
            since[row] = now
            moves = False
            for k in range(dim):
                moves |= first[row, k] != 0
                roots[k] = np.sqrt(second[row, k])
                moved[k] = 0
            end = begin
            if moves:
                end = min(now, begin + LONG)
                _momentum(roots, moved, step[begin:end], root[begin:end], shrunk[begin : end + 1], beta_1, beta_2, eps)
            decay = np.float32(shrunk[now] / shrunk[begin])
            decay_after = np.float32(shrunk[now] / shrunk[end])
            of_first, of_second = np.float32(beta_1 ** (now - begin)), np.float32(beta_2 ** (now - begin))
            for k in range(dim):
                values[row, k] = values[row, k] * decay - first[row, k] * moved[k] * decay_after
                first[row, k] *= of_first
                second[row, k] *= of_second


@njit(cache=True)
def _momentum(roots, moved, step, root, shrunk, beta_1, beta_2, eps):
    """By how much the steps move a row, for a first moment of 1 and roots of its second moment."""
    first, second, least = 1.0, 1.0, np.float32(eps)
    for j in range(len(step)):
        first *= beta_1
        second *= np.sqrt(beta_2)
        decay = np.float32(shrunk[j + 1] / shrunk[j])
        numerator, factor = np.float32(step[j] * first), np.float32(root[j] * second)
        for k in range(len(moved)):
            moved[k] = moved[k] * decay + numerator / (roots[k] * factor + least)


@njit(parallel=True, cache=True)
def _step(rows, gradient, values, first, second, since, beta_1, beta_2, eps, decay, step, root):
    dim = values.shape[1]
    decay, step, root, least = np.float32(decay), np.float32(step), np.float32(root), np.float32(eps)
    keep_1, keep_2 = np.float32(beta_1), np.float32(beta_2)
    add_1, add_2 = np.float32(1 - beta_1), np.float32(1 - beta_2)
    for place in prange(len(rows)):
        row = rows[place]
        since[row] += 1
        for k in range(dim):
            slope = gradient[place, k]
            first[row, k] = keep_1 * first[row, k] + add_1 * slope
            second[row, k] = keep_2 * second[row, k] + add_2 * slope * slope
            values[row, k] = values[row, k] * decay - step * first[row, k] / (np.sqrt(second[row, k]) * root + least)
