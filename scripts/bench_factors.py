"""Compress the factors of `implicit`, which it trains: `python scripts/bench_factors.py beauty --budget 0.25`.

Recall and NDCG at 20 of the test split, all items ranked, before and after; nothing is trained after compression.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from _common import load, run_script
from scipy.sparse import csr_matrix

from baco import compress_factors
from baco.data.interactions import Interactions
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator

METHODS = ["int8", "int4", "pq", "opq", "rq", "one_sided", "baco_plus", "random"]


def trained(kind: str, data: Interactions, factors: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """The factors of users and items."""
    try:
        import implicit
    except ImportError:
        raise UserError("this needs implicit; install it with: pip install implicit") from None
    classes = {"als": implicit.als.AlternatingLeastSquares, "bpr": implicit.bpr.BayesianPersonalizedRanking}
    model = classes[kind](factors=factors, iterations=iterations, random_state=0, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(csr_matrix(data.train.to_matrix()), show_progress=False)
    return model.user_factors, model.item_factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--models", nargs="+", choices=["als", "bpr"], default=["als", "bpr"])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--budget", type=float, default=0.25)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=50)
    arguments = parser.parse_args()
    for name in arguments.datasets:
        data = load(name)
        evaluator = Evaluator(data)
        for kind in arguments.models:
            factors = trained(kind, data, arguments.factors, arguments.iterations)
            print(f"\n{name}, {kind} of implicit, {factors[0].shape[1]} wide, budget {arguments.budget:g}")
            print(f"{'':<12}{'bytes':>12}{'':>8}{'R@20':>8}{'N@20':>8}")
            dense_bytes = sum(side.nbytes for side in factors)
            for method in (None, *arguments.methods):
                sides, stored = factors, dense_bytes
                if method is not None:
                    found = compress_factors(*factors, data.train, arguments.budget, method)
                    sides, stored = found.embeddings(), found.tables.ledger().bytes
                means = evaluator.evaluate(*map(torch.from_numpy, sides), "test", 20).means()
                print(
                    f"{method or 'float32':<12}{stored:>12,}{stored / dense_bytes:>8.1%}"
                    f"{100 * means['recall@20']:>8.2f}{100 * means['ndcg@20']:>8.2f}"
                )


if __name__ == "__main__":
    run_script(main)
