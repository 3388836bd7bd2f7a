"""Hops of tokens from layer to layer: 0 on the same device, 1 inside a node, 2 to another node, summed over a forward.

The measure of ExFlow (arXiv 2401.08383): a token follows its first expert and stays on that expert's device until the
next layer. Letters: L layers, E experts, P slots, D devices, T tokens.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.errors import InstanceError

__all__ = ["device_shares", "expected_hops", "hop_weights", "path_hops", "read_exflow_placement", "transition_hops"]


def hop_weights(node_of: I32) -> F64:
    """Return hops (D, D) between devices whose nodes are ``node_of`` (D,): 0 on itself, 1 in its node, 2 beyond."""
    weights = np.where(node_of[:, None] == node_of[None, :], 1.0, 2.0)
    np.fill_diagonal(weights, 0.0)
    return weights


def device_shares(placement: I32, slot_device: I32, experts: int) -> F64:
    """Return the share (L, E, D) of an expert's tokens that each device serves; replicas serve equal shares.

    Args:
        placement: (L, P) expert of every slot.
        slot_device: (P,) device of every slot.
        experts: number of experts E, each with at least one slot in every layer.
    """
    held = np.zeros((len(placement), experts, int(slot_device.max()) + 1))
    layer = np.arange(len(placement))[:, None]
    np.add.at(held, (layer, placement, slot_device[None, :]), 1.0)
    shares: F64 = held / held.sum(axis=2, keepdims=True)
    return shares


def transition_hops(shares: F64, loads: F64, transitions: F64 | None, weights: F64) -> F64:
    """Return the mean hops per token of each of the L - 1 transitions.

    Args:
        shares: (L, E, D) from ``device_shares``.
        loads: (L, E) tokens of every expert, in any unit; a layer without tokens makes no hops.
        transitions: (L - 1, E, E) share of an expert's tokens that each next expert gets; None for independent layers,
            where the next expert depends on its load alone.
        weights: (D, D) from ``hop_weights``, or any other price of a way.
    """
    totals = loads.sum(axis=1, keepdims=True)
    part = np.divide(loads, totals, out=np.zeros(loads.shape), where=totals > 0)
    flow = part[:-1, :, None] * (part[1:, None, :] if transitions is None else transitions)
    traffic = np.einsum("lad,lab,lbf->ldf", shares[:-1], flow, shares[1:], optimize=True)
    hops: F64 = (traffic * weights).sum(axis=(1, 2))
    return hops


def expected_hops(shares: F64, loads: F64, transitions: F64 | None, weights: F64) -> float:
    """Return the mean hops of a token in one forward pass: ``transition_hops`` summed."""
    return float(transition_hops(shares, loads, transitions, weights).sum())


def path_hops(paths: I32, device_of: I32, weights: F64) -> float:
    """Return the mean hops of recorded tokens in one forward pass.

    Args:
        paths: (T, L) first expert of every token in every layer.
        device_of: (L, E) device of every expert, one replica each.
        weights: (D, D) from ``hop_weights``.
    """
    visited = device_of[np.arange(paths.shape[1]), paths]  # (T, L)
    return float(weights[visited[:, :-1], visited[:, 1:]].sum(axis=1).mean())


def read_exflow_placement(path: Path, experts: int) -> I32:
    """Read a placement as ExFlow releases it: rows of a global expert number, layer * E + expert, and its device.

    Returns:
        (L, E) device of every expert.

    Raises:
        InstanceError: no such file, a row that is not two integers in range, an expert twice, or an incomplete layer.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InstanceError(f"{path}: cannot read: {error}") from None
    if not rows or rows[0] != ["Expert", "Node"]:
        raise InstanceError(f"{path}:1: expected the header Expert,Node")
    total = len(rows) - 1
    if total < 1 or experts < 1 or total % experts:
        raise InstanceError(f"{path}: {total} experts are no whole number of layers of {experts}")
    device_of = np.full(total, -1, dtype=np.int32)
    for line, row in enumerate(rows[1:], start=2):
        expert, device = _pair(row, total, f"{path}:{line}")
        if device_of[expert] >= 0:
            raise InstanceError(f"{path}:{line}: field Expert: {expert} is listed twice")
        device_of[expert] = device
    return device_of.reshape(-1, experts)


def _pair(row: list[str], total: int, where: str) -> tuple[int, int]:
    if len(row) != 2:
        raise InstanceError(f"{where}: {len(row)} fields, expected Expert and Node")
    values = []
    for name, text in zip(("Expert", "Node"), row, strict=True):
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < total):
            raise InstanceError(f"{where}: field {name}: {text!r:.40}, expected an integer from 0 to {total - 1}")
        values.append(int(text))
    return values[0], values[1]
