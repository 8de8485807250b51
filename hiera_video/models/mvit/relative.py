"""Decomposed relative position embeddings: one table for each axis (MViTv2, arXiv 2112.01526)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hiera_video.models.mvit.config import LadderBlockLayout, LadderConfig
from hiera_video.models.tokens import UnitOrder


class RelativePositions(nn.Module):
    """Bias of attention from the distance of a query to a key along each axis.

    Args:
        config: Configuration of the network.
        order: Order of the tokens.
        layout: The block.
    """

    def __init__(self, config: LadderConfig, order: UnitOrder, layout: LadderBlockLayout) -> None:
        super().__init__()
        self.order, self.level, self.heads = order, layout.level_out, layout.heads
        self.unit_grid = config.unit_grid
        self.query_unit = tuple(n // s for n, s in zip(layout.unit_in, layout.q_stride))
        self.key_unit = tuple(n // s for n, s in zip(layout.unit_in, layout.kv_stride))
        channels = layout.dim_out // layout.heads
        for axis, units, q, k in zip(order.axes, self.unit_grid, self.query_unit, self.key_unit):
            queries, keys = units * q, units * k
            table = nn.Parameter(torch.zeros(2 * max(queries, keys) - 1, channels))
            self.register_parameter(axis, table)
            self.register_buffer(f"_{axis}", relative_rows(queries, keys), persistent=False)

    def forward(self, query: Tensor, units: Tensor) -> Tensor:
        """Return the bias [B, heads, queries, keys] of attention.

        Args:
            query: [B, heads, queries, c], in unit order.
            units: [B or 1, U], the units that the queries and keys belong to, by number.
        """
        places = unit_places(units, self.unit_grid)
        grids = self.order.reroll_units(
            rearrange(query, "b heads (u n) c -> (b heads) u n c", u=units.shape[1]), self.level
        )
        grids = grids.view(query.shape[0], self.heads, *grids.shape[1:])  # b heads u (t) h w c
        scores, key_rows = [], []
        for number, axis in enumerate(self.order.axes):
            table, rows = getattr(self, axis), getattr(self, f"_{axis}")
            queries = _rows_of(places[number], self.query_unit[number])
            keys = rows.shape[1]
            # b u rows keys c: embeddings of the distances between a unit's rows and all keys'
            near = F.embedding(F.embedding(queries, rows), table)
            along = torch.einsum("bnux...c,buxkc->bnux...k", grids.movedim(3 + number, 3), near)
            scores.append(along.movedim(3, 3 + number))
            key_rows.append((keys, self._key_rows(places, number)))
        return self._sum_at_keys(torch.cat(scores, dim=-1), key_rows)

    def _key_rows(self, places: list[Tensor], number: int) -> Tensor:
        """Return the row [B or 1, keys] of each key along an axis; keys are unit after unit."""
        rows = _rows_of(places[number], self.key_unit[number])
        shape = [1] * len(self.key_unit)
        shape[number] = -1
        within = rows.view(*rows.shape[:2], *shape).expand(*rows.shape[:2], *self.key_unit)
        return within.flatten(1)

    def _sum_at_keys(self, scores: Tensor, key_rows: list[tuple[int, Tensor]]) -> Tensor:
        """Sum the scores [B, heads, U, (t) h w, rows] of all axes at each key's rows."""
        batch, heads = scores.shape[:2]
        in_order = self.order.unroll_units(scores.flatten(0, 2).movedim(-1, 1), self.level)
        flat = in_order.reshape(batch, heads, -1, scores.shape[-1])
        bias: Tensor | None = None
        parts = torch.split(flat, [keys for keys, _ in key_rows], dim=-1)
        for part, (_, rows) in zip(parts, key_rows):
            index = rows[:, None, None, :].expand(batch, heads, flat.shape[2], -1)
            at_keys = part.gather(-1, index)
            bias = at_keys if bias is None else bias + at_keys
        assert bias is not None
        return bias


def relative_rows(queries: int, keys: int) -> Tensor:
    """Return the row of the table for each query and key of an axis, as PySlowFast counts them.

    The coarser of the two grids is scaled to the finer one.

    >>> relative_rows(2, 4).tolist()
    [[3, 2, 1, 0], [5, 4, 3, 2]]
    """
    query = torch.arange(queries)[:, None] * max(keys / queries, 1.0)
    key = torch.arange(keys)[None, :] * max(queries / keys, 1.0)
    return (query - key + (keys - 1) * max(queries / keys, 1.0)).long()


def unit_places(units: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
    """Return the place of each unit along each axis of the grid of units.

    >>> [place.tolist() for place in unit_places(torch.tensor([[0, 5]]), (2, 2, 2))]
    [[[0, 1]], [[0, 0]], [[0, 1]]]
    """
    places = []
    for size in reversed(grid):
        places.append(units % size)
        units = units // size
    return places[::-1]


def _rows_of(places: Tensor, unit: int) -> Tensor:
    """Return the rows [B or 1, U, unit] along an axis of the tokens of units at `places`."""
    return places.unsqueeze(-1) * unit + torch.arange(unit, device=places.device)
