"""Where rows come from: a dataset, for its full tables, the export of a run, or codes that were assigned."""

from __future__ import annotations

import numpy as np

from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import Assignment
from baco.embedding.cost import RowFormat
from baco.embedding.quantizers import quantizer_of
from baco.errors import SettingError, UserError
from baco.files import from_json_array, read_given
from baco.placement.rows import Rows
from baco.rng import stream
from baco.runs.run import Plan
from baco.runs.settings import configuration
from baco.serving.export import load_data, load_tables

COCLUSTERING = ("baco", "baco_plus")  # the methods that cluster users and items together


def rows_of(source: str, overrides: list[str]) -> tuple[Rows, int]:
    """The rows to be placed, and the seed of the placement.

    Parameters
    ----------
    source : str
        The name of a dataset, or an .npz file.
    overrides : list of str
        As for `baco run`. `method=`, which is baco, and `budget=` decide the co-clusters, whatever made the codes.

    Raises
    ------
    UserError
        When there is no such source, or it has no rows that codes name.
    HydraException
        As `configuration`.
    """
    if not source.endswith(".npz"):
        plan = Plan.of(configuration([f"dataset={source}", *overrides]))
        assignment = Assignment.of_own_rows(plan.data.num_users, plan.data.num_items)
        return _rows(plan, assignment, plan.budget.row_format())
    config, arrays = configuration(overrides), _read(source)
    if "model" in arrays:
        tables = load_tables(arrays)
        if tables.assignment is None:
            raise UserError(f"{source} has no codebooks; only rows that codes name can be placed")
        plan = Plan.of(config, load_data(arrays, source, config.data_dir))
        return _rows(plan, tables.assignment, _row_format(arrays, tables.shared_rows()[0].shape[1]))
    header, plan = from_json_array(arrays["header"]), Plan.of(config)
    if header["decides"]["graph"] != plan.data.train.fingerprint:
        raise UserError(f"the codes of {source} are not of the dataset '{plan.data.name}'; give theirs, dataset=NAME")
    return _rows(plan, Assignment.unpack(header, arrays), plan.budget.row_format())


def _rows(plan: Plan, assignment: Assignment, row: RowFormat) -> tuple[Rows, int]:
    """The rows of codes, in the co-clusters of a plan's method, and its seed."""
    method, train, seed = plan.config.method, plan.data.train, plan.config.seed
    if method.name not in COCLUSTERING:
        raise SettingError("method", method.name, f"has no co-clusters; take one of {', '.join(COCLUSTERING)}")
    assert isinstance(method, CodeCompressor)
    labels = method.assign(train, plan.budget, stream(seed, "assign")).labels
    assert labels is not None
    return Rows.of(train, assignment, row, labels), seed


def _row_format(arrays: dict[str, np.ndarray], dim: int) -> RowFormat:
    """How the rows of an export are stored, whose kind `load_tables` knew."""
    header = from_json_array(arrays["header"])
    quantizer = quantizer_of(header) or quantizer_of(header.get("header", {}))  # scaled tables have it in the inner one
    return RowFormat.float32(dim) if quantizer is None else quantizer.format(dim)


def _read(path: str) -> dict[str, np.ndarray]:
    """The arrays of an export or of codes."""
    advice = "it must be the export of a run, or codes in runs/assignments"
    arrays = read_given(path, advice)
    if "model" not in arrays and not ("header" in arrays and "decides" in from_json_array(arrays["header"])):
        raise UserError(f"{path} holds no codes; {advice}")
    return arrays
