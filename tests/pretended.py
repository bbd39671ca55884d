"""A device that is none: tensors that claim to lie on it and are worked on by the CPU.

What would mix devices on a GPU, or read on the host what lies there, fails here as it does there. Importing
this tells torch of the device, which it must know before the first gradient; not where there is a GPU, or where
torch cannot be told in Python.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "pretended"

try:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = not torch.cuda.is_available()  # torch knows one accelerator
if AVAILABLE:
    _setup_privateuseone_for_python_backend(NAME)

COPYING = torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default)


class Elsewhere(Tensor):
    """A tensor that claims to lie on the pretended device; `here` has its values. A sparse one claims to be dense."""

    @staticmethod
    def __new__(cls, here: Tensor):
        dense = here.layout is torch.strided
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride() if dense else (here.shape[1], 1),
            storage_offset=here.storage_offset() if dense else 0,
            dtype=here.dtype,
            device=f"{NAME}:0",
        )
        made.here = here
        return made

    def __repr__(self):
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return work(operation, args, kwargs or {})


class Generator(torch.Generator):
    """A CPU's, whatever device it is asked for."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu"):
        self.claimed = torch.device(device)

    device = property(lambda self: self.claimed)


class Pretence(TorchDispatchMode):
    """Also sees what makes new tensors."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return work(operation, args, kwargs or {})


def work(operation, args: tuple, kwargs: dict):
    """Do on the CPU what was asked of tensors there and elsewhere, unless a GPU would refuse it."""
    values, structure = tree_flatten((args, kwargs))
    elsewhere = any(isinstance(value, Elsewhere) for value in values)
    asked = kwargs.get("device")
    there = elsewhere if asked is None else torch.device(asked).type == NAME
    if not (elsewhere or there):
        return operation(*args, **kwargs)
    if elsewhere and operation not in COPYING:
        refuse_several_devices(operation, args, values)
    inner_args, inner_kwargs = tree_unflatten(
        [value.here if isinstance(value, Elsewhere) else value for value in values], structure
    )
    result = operation(*inner_args, **inner_kwargs | ({} if asked is None else {"device": "cpu"}))
    schema = operation._schema
    if schema.is_mutable:  # it hands back what it has written to, if anything
        given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
        written = [
            given[argument.name] for argument in schema.arguments if argument.is_write and argument.name in given
        ]
        return [None, *written[:1], tuple(written)][min(len(schema.returns), 2)]
    return tree_map(lambda value: Elsewhere(value) if isinstance(value, Tensor) else value, result) if there else result


def refuse_several_devices(operation, args: tuple, values: list) -> None:
    """Tensors may be joined by numbers of another device, and be looked up by indices from the host."""
    if operation in INDEXING and isinstance(args[0], Elsewhere):
        values = args[2:3]
    if any(isinstance(value, Tensor) and not isinstance(value, Elsewhere) and value.dim() > 0 for value in values):
        raise RuntimeError(f"{operation}: tensors on several devices")


@contextmanager
def pretending():
    """Within, what is yielded is a device like others.

    `as_tensor` and `tensor` would go around the pretence; they are taken apart into making a tensor and moving it.
    """

    def moved(make):
        def made(data, dtype=None, device=None):
            return make(data, dtype=dtype).to(device)

        return made

    as_tensor, tensor = moved(torch.as_tensor), moved(torch.tensor)
    with Pretence(), mock.patch.multiple(torch, Generator=Generator, as_tensor=as_tensor, tensor=tensor):
        yield torch.device(NAME, 0)
