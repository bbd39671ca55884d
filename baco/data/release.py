"""Prepared datasets by name, and the authors' public split files they are made from."""

from __future__ import annotations

import hashlib
import io
import logging
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baco.data.interactions import SPLITS, Interactions, load_interactions, save_interactions
from baco.errors import UserError

log = logging.getLogger(__name__)

RELEASE_URL = "https://raw.githubusercontent.com/HKBU-LAGAS/BACO/main/code/datasets"
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Release:
    """A dataset that is prepared once and then read from `<data_dir>/<name>/<file>`.

    Attributes
    ----------
    name : str
    budget : int or None
        The paper's budget in codebook rows.
    num_users, num_items, num_interactions : int
        What the file must hold, all splits together.
    file : str
        Which prepared file to read: another name is another split of the same data.
    folder : str or None
        The folder of the authors' release that holds train.pt, val.pt and test.pt; None where they published none.
    blobs : dict or None
        Git blob id of each of the three files.
    """

    name: str = "???"
    budget: float | None = None
    num_users: int = "???"
    num_items: int = "???"
    num_interactions: int = "???"
    file: str = "interactions.npz"
    folder: str | None = None
    blobs: dict[str, str] | None = None

    def load(self, data_dir: Path) -> Interactions:
        """Read the prepared file, making it from the authors' files first when it is missing.

        Raises
        ------
        UserError
            When the file cannot be had, is damaged, or does not hold the declared numbers.
        """
        path = data_dir / self.name / self.file
        if not path.exists():
            self._prepare(path)
        data = load_interactions(path, self.name)
        total = sum(getattr(data, split).num_edges for split in SPLITS) + data.report.duplicates + data.report.overlaps
        found = (data.num_users, data.num_items, total)
        declared = (self.num_users, self.num_items, self.num_interactions)
        if found != declared:
            raise UserError(
                f"dataset '{self.name}': {path} holds {found} users, items and interactions where {declared} are "
                "declared in its configuration; delete the file to prepare it again"
            )
        return data

    def _prepare(self, path: Path) -> None:
        if self.folder is None or self.file != "interactions.npz":
            raise UserError(
                f"dataset '{self.name}': there is no file {path}, and it cannot be downloaded; put it there, or point "
                "BACO_DATA_DIR (or data_dir=) to the folder that holds it"
            )
        pairs = {split: self._read_split(split, path) for split in SPLITS}
        data = Interactions.from_pairs(self.name, pairs, self.num_users, self.num_items)
        save_interactions(data, path)
        log.info("%s: prepared %s from the authors' files", self.name, path)

    def _read_split(self, split: str, path: Path) -> np.ndarray:
        """One of the authors' files, from beside the prepared file or from their repository: (2, E) int32."""
        import torch

        local = path.with_name(f"{split}.pt")
        source = str(local) if local.exists() else f"{RELEASE_URL}/{self.folder}/{split}.pt"
        content = local.read_bytes() if local.exists() else self._download(source, path)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if blob != self.blobs[split]:
            raise UserError(
                f"dataset '{self.name}': {source} is not the published file (its git blob id is {blob}, not "
                f"{self.blobs[split]}); get it again"
            )
        return torch.load(io.BytesIO(content), weights_only=True).numpy().astype(np.int32)

    def _download(self, url: str, path: Path) -> bytes:
        log.info("%s: downloading %s", self.name, url)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                return response.read()
        except OSError as error:
            raise UserError(
                f"dataset '{self.name}': {path} is missing and {url} cannot be downloaded ({error}). Put the prepared "
                f"file there, or the authors' train.pt, val.pt and test.pt (HKBU-LAGAS/BACO, code/datasets/"
                f"{self.folder}) into {path.parent}, or point BACO_DATA_DIR to the folder that holds {self.name}/"
            ) from None
