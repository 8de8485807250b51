# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of `window_attention.py`; imported on a GPU alone.

A program computes one head of several windows that hold 64 keys together, such as 4 windows of 16
keys. Scores between different windows are masked: wasted arithmetic, but the kernel is bound by
memory. Every number is read and written once, and no two programs write the same place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(pointer, row, head, rows, columns, count, DIM: tl.constexpr):
    """Load [rows, columns] of one head; 0 beyond the last row and channel."""
    places = pointer + rows[:, None] * row + head + columns[None, :]
    inside = (rows < count)[:, None] & (columns < DIM)[None, :]
    return tl.load(places, mask=inside, other=0.0)


@triton.jit
def _probabilities(query, key, scale, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """Return the softmax of the scores within each window, in float32."""
    scores = tl.dot(query, tl.trans(key)) * scale
    of_query = tl.arange(0, query.shape[0]) // QUERIES
    of_key = tl.arange(0, key.shape[0]) // KEYS
    scores = tl.where(of_query[:, None] == of_key[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    out,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    out_row,
    windows,
    scale,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Compute the output of `GROUP` windows in one head."""
    group, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    of_queries = group * (GROUP * QUERIES) + tl.arange(0, GROUP * QUERIES)
    of_keys = group * (GROUP * KEYS) + tl.arange(0, GROUP * KEYS)
    num_queries, num_keys = windows * QUERIES, windows * KEYS
    q = _rows(query, query_row, head * query_head, of_queries, columns, num_queries, DIM)
    k = _rows(key, key_row, head * key_head, of_keys, columns, num_keys, DIM)
    v = _rows(value, value_row, head * value_head, of_keys, columns, num_keys, DIM)
    weights = _probabilities(q, k, scale, QUERIES, KEYS)
    found = tl.dot(weights.to(v.dtype), v)
    places = out + of_queries[:, None] * out_row + head * DIM + columns[None, :]
    inside = (of_queries < num_queries)[:, None] & (columns < DIM)[None, :]
    tl.store(places, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    query,
    key,
    value,
    grad,
    query_grad,
    key_grad,
    value_grad,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    out_row,
    windows,
    scale,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Compute the three gradients of `GROUP` windows in one head; `grad` is the output's."""
    group, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    of_queries = group * (GROUP * QUERIES) + tl.arange(0, GROUP * QUERIES)
    of_keys = group * (GROUP * KEYS) + tl.arange(0, GROUP * KEYS)
    num_queries, num_keys = windows * QUERIES, windows * KEYS
    q = _rows(query, query_row, head * query_head, of_queries, columns, num_queries, DIM)
    k = _rows(key, key_row, head * key_head, of_keys, columns, num_keys, DIM)
    v = _rows(value, value_row, head * value_head, of_keys, columns, num_keys, DIM)
    g = _rows(grad, out_row, head * DIM, of_queries, columns, num_queries, DIM)
    weights = _probabilities(q, k, scale, QUERIES, KEYS)
    channels = (columns < DIM)[None, :]
    query_places = of_queries[:, None] * out_row + head * DIM + columns[None, :]
    key_places = of_keys[:, None] * out_row + head * DIM + columns[None, :]
    query_inside = (of_queries < num_queries)[:, None] & channels
    key_inside = (of_keys < num_keys)[:, None] & channels
    kind = query_grad.dtype.element_ty
    v_grad = tl.dot(tl.trans(weights.to(g.dtype)), g)
    tl.store(value_grad + key_places, v_grad.to(kind), mask=key_inside)
    weights_grad = tl.dot(g, tl.trans(v))
    mean = tl.sum(weights * weights_grad, 1)
    scores_grad = (weights * (weights_grad - mean[:, None]) * scale).to(q.dtype)
    q_grad = tl.dot(scores_grad, k)
    tl.store(query_grad + query_places, q_grad.to(kind), mask=query_inside)
    k_grad = tl.dot(tl.trans(scores_grad), q)
    tl.store(key_grad + key_places, k_grad.to(kind), mask=key_inside)
