"""Prepared datasets by name, and the authors' public split files they are made from."""

from __future__ import annotations

import hashlib
import http.client
import io
import logging
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import MISSING

from baco.data.interactions import SPLITS, Interactions, load_interactions, save_interactions
from baco.errors import UserError
from baco.files import check_writable
from baco.validation import Validated, setting

log = logging.getLogger(__name__)

RELEASE_URL = "https://raw.githubusercontent.com/HKBU-LAGAS/BACO/main/code/datasets"
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Release(Validated):
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
    val_share : float
        The part of the training pairs that is held out for validation where the prepared file has no `val`.
    """

    name: str = MISSING
    budget: float | None = None
    num_users: int = MISSING
    num_items: int = MISSING
    num_interactions: int = MISSING
    file: str = "interactions.npz"
    folder: str | None = None
    blobs: dict[str, str] | None = None
    val_share: float = setting(0.1, above=0, below=1)

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
        data = load_interactions(path, self.name, self.val_share)
        total = sum(getattr(data, split).num_edges for split in SPLITS) + data.report.duplicates + data.report.overlaps
        found = (data.num_users, data.num_items, total)
        declared = (self.num_users, self.num_items, self.num_interactions)
        if found != declared:
            again = "delete the file to prepare it again"
            mend = again if self._published else "correct these settings, or the file"
            raise UserError(
                f"dataset '{self.name}': {path} holds {found} users, items and interactions where {declared} are "
                f"declared in its configuration; {mend}"
            )
        return data

    @property
    def _published(self) -> bool:
        """Whether the file can be made from the authors' release."""
        return self.folder is not None and self.file == "interactions.npz"

    def _prepare(self, path: Path) -> None:
        if not self._published:
            raise UserError(
                f"dataset '{self.name}': there is no file {path}, and it cannot be downloaded; put it there, or point "
                "BACO_DATA_DIR (or data_dir) to the folder that holds it"
            )
        check_writable(path, "data_dir")
        pairs = {split: self._read_split(split, path) for split in SPLITS}
        data = Interactions.from_pairs(self.name, pairs, self.num_users, self.num_items)
        save_interactions(data, path)
        log.info("%s: prepared %s from the authors' files", self.name, path)

    def _read_split(self, split: str, path: Path) -> np.ndarray:
        """One of the authors' files, from beside the prepared file or from their repository: (2, E) int32."""
        import torch

        advice = (
            f"put the prepared {path} there, or the authors' train.pt, val.pt and test.pt (HKBU-LAGAS/BACO, "
            f"code/datasets/{self.folder}) into {path.parent}, or point BACO_DATA_DIR to the folder with {self.name}/"
        )
        url = f"{RELEASE_URL}/{self.folder}/{split}.pt"
        content = published_file(self.name, path.with_name(f"{split}.pt"), url, (self.blobs or {})[split], advice)
        return torch.load(io.BytesIO(content), weights_only=True).numpy().astype(np.int32)


def published_file(name: str, local: Path, url: str, blob: str, advice: str) -> bytes:
    """A file of a dataset: `local` where it is there, else downloaded; in either case the one with that git blob id.

    Parameters
    ----------
    name : str
        Of the dataset.
    advice : str
        What to do where it cannot be downloaded.

    Raises
    ------
    UserError
        When it cannot be had, or is another file.
    """
    if local.exists():
        source, content = str(local), local.read_bytes()
    else:
        log.info("%s: downloading %s", name, url)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                source, content = url, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"dataset '{name}': {local} is missing and {url} cannot be downloaded ({error}); {advice}"
            ) from None
    found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if found != blob:
        raise UserError(
            f"dataset '{name}': {source} is not the published file (its git blob id is {found}, not {blob}); get it "
            "again"
        )
    return content
