"""Compressed embeddings as layers of one's own model, called as `nn.Embedding` and `nn.EmbeddingBag` are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from baco.embedding.codebook import Codebook, fitted_rows
from baco.embedding.codes import Codes
from baco.errors import UserError
from baco.validation import Limits

MODES = ("sum", "mean")


class CompressedEmbedding(nn.Module):
    """What `nn.Embedding` gives for ids, from rows that ids share.

    Inputs, outputs and errors are those of `nn.Embedding`; the gradient of an id goes to its rows, with the weights
    that they have in its embedding. Parameters are rows only: codes are buffers, and part of the state.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
    codes : Codes or Codebook
        Of all ids but the one for padding: ids after it have the codes of the one before. A codebook is used as it is,
        with its rows, so that two layers may share them.
    padding_idx : int, optional
        An id that has no codes. Its embedding is zero and stays so.
    device, dtype : optional
        Of the rows.

    Raises
    ------
    UserError
        When the codes are of another number of ids, or rows of another width.

    Examples
    --------
    >>> codes = Codes.from_labels(np.array([7, 7, 9]))  # ids 0 and 1 share a row
    >>> layer = CompressedEmbedding(3, 64, codes)
    >>> layer(torch.tensor([[0, 1], [2, 2]])).shape
    torch.Size([2, 2, 64])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        codes: Codes | Codebook,
        padding_idx: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise UserError(f"padding_idx={padding_idx} must be one of the {num_embeddings} ids")
            padding_idx %= num_embeddings
        with_codes = num_embeddings - (padding_idx is not None)
        if codes.num_ids != with_codes:
            beside = "" if padding_idx is None else " beside the one for padding, which needs none"
            raise UserError(f"there are codes of {codes.num_ids} ids, but {with_codes} embeddings{beside}")
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        if isinstance(codes, Codebook):
            if codes.rows.shape[1] != embedding_dim:
                raise UserError(f"the rows are {codes.rows.shape[1]} wide, but embedding_dim={embedding_dim}")
            self.codebook = codes
        else:
            self.codebook = Codebook(codes, embedding_dim)
            self.reset_parameters()
        self.to(device=device, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, codes: Codes, freeze: bool = True, **options: Any
    ) -> CompressedEmbedding:
        """A layer whose embeddings come as close as the codes allow, by squared error, to (n, dim) given ones.

        `freeze` as in `nn.Embedding.from_pretrained`; `options` are further parameters of the layer.
        """
        if embeddings.ndim != 2:
            raise UserError(f"embeddings must be a matrix, not of shape {tuple(embeddings.shape)}")
        num_embeddings, embedding_dim = embeddings.shape
        layer = cls(num_embeddings, embedding_dim, codes, **options)
        layer.fit_rows(embeddings)
        layer.codebook.rows.requires_grad_(not freeze)
        return layer.to(device=embeddings.device, dtype=embeddings.dtype)

    @torch.no_grad()
    def fit_rows(self, embeddings: Tensor) -> None:
        """Give the rows the values that bring the embeddings closest to (n, dim) given ones, by squared error.

        Where each id has one code, rows are means of their ids' embeddings.
        """
        if embeddings.shape != (self.num_embeddings, self.embedding_dim):
            raise UserError(
                f"embeddings of shape {tuple(embeddings.shape)} do not fit a layer of shape "
                f"({self.num_embeddings}, {self.embedding_dim})"
            )
        targets = without(embeddings, self.padding_idx).detach().float().cpu().numpy()
        self.codebook.rows.copy_(torch.from_numpy(fitted_rows(self.codebook.pooling(), targets)))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Rows from the normal distribution, as `nn.Embedding` has them."""
        nn.init.normal_(self.codebook.rows)

    @property
    def weight(self) -> Tensor:
        """(num_embeddings, embedding_dim): all embeddings. Made anew each time; gradients go to the rows."""
        embeddings = self.codebook()
        if self.padding_idx is None:
            return embeddings
        before, after = embeddings.tensor_split([self.padding_idx])
        return torch.cat([before, embeddings.new_zeros(1, self.embedding_dim), after])

    def forward(self, input: Tensor) -> Tensor:
        """(*, embedding_dim), from ids of any shape (*)."""
        return self.looked_up(input.reshape(-1)).view(*input.shape, self.embedding_dim)

    def looked_up(self, ids: Tensor) -> Tensor:
        """(n, embedding_dim), from (n,) ids."""
        if self.padding_idx is None:
            return self.codebook(ids)
        padded = ids == self.padding_idx
        coded = torch.where(padded, 0, ids - (ids > self.padding_idx).to(ids.dtype))
        return self.codebook(coded).masked_fill(padded[:, None], 0)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, rows={len(self.codebook.rows)}{padding}"


class CompressedEmbeddingBag(CompressedEmbedding):
    """What `nn.EmbeddingBag` gives for bags of ids, from rows that ids share.

    Parameters
    ----------
    mode : 'sum' or 'mean'
    include_last_offset : bool
        As in `nn.EmbeddingBag`. The id for padding is in no sum, and does not count in a mean.
    others : as of `CompressedEmbedding`
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        codes: Codes | Codebook,
        padding_idx: int | None = None,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(num_embeddings, embedding_dim, codes, padding_idx, device=device, dtype=dtype)
        Limits(one_of=MODES).check("mode", mode)
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(bags, embedding_dim), from (bags, length) ids, or from (n,) ids and the offsets at which bags begin."""
        ids = input.reshape(-1)
        places = torch.arange(len(ids), device=ids.device)
        embeddings, padding = self.looked_up(ids), None
        if self.padding_idx is not None:
            padding = len(ids)
            embeddings = torch.cat([embeddings, embeddings.new_zeros(1, self.embedding_dim)])
            places = torch.where(ids == self.padding_idx, padding, places)
        return embedding_bag(
            places.view(input.shape),
            embeddings,
            None if offsets is None else offsets.to(places.dtype),
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode}"


def without(embeddings: Tensor, padding_idx: int | None) -> Tensor:
    """Embeddings, (n, dim), without that of the id for padding, if there is one."""
    if padding_idx is None:
        return embeddings
    return torch.cat([embeddings[:padding_idx], embeddings[padding_idx + 1 :]])
