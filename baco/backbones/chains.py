"""The matrices of LightGCN's propagation, as chains of products that CPU and GPU walk alike.

With rows C, a pooling matrix S (layer 0 is S C) and the normalised adjacency A, LightGCN's final embeddings are

    Z = (I + A + ... + A^L) S C / (L + 1).

Layer 0 need not be computed: by Horner's rule the first product is that of (S + A S) with C, and each further one is
that of [S | A] with C on top of the layer before. Nodes that share rows share entries of A S, and all of them read the
few rows of C instead of one row per node. A is symmetric, so that the gradient of C needs no transposed copy of it:

    dC = S^T (G + A T) / (L + 1)   with   T = (I + A + ... + A^(L-1)) G,

again a chain of products, whose last is that of [S^T | (A S)^T] with G on top of T. MF is the chain with L = 0.

Ids with many codes turn this around: their A S has up to ten times the entries of A. Then layer 0 is computed, by one
more product with S, the chains are those of one row per node, and a product with S^T ends the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, eye_array

from baco.numerics.sparse import Csr, beside, product_entries

DENSER = 2  # A S than A, in entries, from where layer 0 is computed: below, either way may be the faster one


@dataclass(frozen=True, eq=False)
class Chains:
    """The two chains of products for one graph and one pooling.

    The first matrix of a chain is applied to the head (C, or the gradient of Z), each further one to the head on top of
    the result before.

    Attributes
    ----------
    forward, backward : list of Csr
    pooling : (Csr, Csr) or None
        S and S^T, where layer 0 is computed and is the head of the forward chain.
    factor : float
        1 / (L + 1), which the last result is multiplied by.
    num_nodes : int
        n.
    num_rows : int
        K, the rows of C.
    head_size : int
        Rows that the forward chain starts from.
    """

    forward: list[Csr]
    backward: list[Csr]
    pooling: tuple[Csr, Csr] | None
    factor: float
    num_nodes: int
    num_rows: int
    head_size: int

    @classmethod
    def build(cls, adjacency: csr_array, num_layers: int, pooling: csr_array | None) -> Chains:
        """The chains of an (n, n) symmetric normalised adjacency and an (n, K) pooling; None: the identity."""
        identity = eye_array(adjacency.shape[0], dtype=np.float32, format="csr")
        shared = identity if pooling is None else csr_array(pooling)
        num_nodes, num_rows = shared.shape
        layer0 = None
        if num_layers > 0 and shared is not identity and product_entries(adjacency, shared) > DENSER * adjacency.nnz:
            layer0 = Csr.from_scipy(shared), Csr.from_scipy(shared.T)
            shared = identity
        forward, backward = _chains(adjacency, shared, identity, num_layers)
        return cls(forward, backward, layer0, 1 / (num_layers + 1), num_nodes, num_rows, shared.shape[1])


def _chains(
    adjacency: csr_array, shared: csr_array, identity: csr_array, num_layers: int
) -> tuple[list[Csr], list[Csr]]:
    """The matrices of the way forward and of the way back, with `shared` for S."""
    if num_layers == 0:
        return [Csr.from_scipy(shared)], [Csr.from_scipy(shared.T)]
    lifted = adjacency if shared is identity else adjacency @ shared
    if num_layers == 1:
        only = shared + lifted
        return [Csr.from_scipy(only)], [Csr.from_scipy(only.T)]
    plain = Csr.from_scipy(adjacency)
    first, step = Csr.from_scipy(shared + lifted), beside(Csr.from_scipy(shared), plain)
    forward = [first, *[step] * (num_layers - 1)]
    if shared is identity:  # everything is symmetric
        return forward, forward
    middle = [] if num_layers == 2 else [beside(Csr.from_scipy(identity), plain)] * (num_layers - 2)
    last = beside(Csr.from_scipy(shared.T), Csr.from_scipy(lifted.T))
    return forward, [Csr.from_scipy(identity + adjacency), *middle, last]
