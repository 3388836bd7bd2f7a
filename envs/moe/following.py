"""Which candidate of the placement game leads towards a given plan, up to a renaming of equal devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.layer_time import Hardware

if TYPE_CHECKING:
    from schedrl.envs.moe.placement_state import State

__all__ = ["followed"]


def followed(state: State, hw: Hardware, row: int, placement: I32) -> int:
    """Return the slot of the candidate after which the current layer can agree most with a placement.

    Two devices agree in the experts that both hold. Where devices are offered once for several equal ones, agreement
    is that of the best renaming of nodes and devices of equal kind; elsewhere names count.

    Args:
        state: the game.
        hw: the rows' clusters.
        row: the row.
        placement: (L, P) expert of each slot.
    """
    layer, devices, slots = int(state.layer[row]), int(hw.devices[row]), int(state.slots[row])
    expert = int(state.sequence[row, layer, state.position[row]])
    options = state.option[row, : state.candidates[row]]
    wanted = np.zeros((devices, int(state.experts[row])))
    np.add.at(wanted, (state.device[row, :slots], placement[layer]), 1.0)
    held = np.zeros_like(wanted)
    for d in range(devices):
        first, last = int(state.first_slot[row, d]), int(state.first_slot[row, d + 1] - state.free[row, d])
        np.add.at(held[d], state.content[row, first:last], 1.0)
    own = np.array([wanted[d, expert] > held[d, expert] for d in options])
    named = bool(state.has_initial[row]) or (bool(state.path[row]) and layer > 0)
    if named and own.any():
        return int(np.argmax(own))
    scores = []
    for d in options:
        held[d, expert] += 1.0
        scores.append(_agreement(state, hw, row, np.minimum(held[:, None], wanted[None]).sum(axis=2)))
        held[d, expert] -= 1.0
    # Of equally good ones, that with the right name.
    return int(np.argmax(np.array(scores) + 0.5 * own))


def _agreement(state: State, hw: Hardware, row: int, common: F64) -> float:
    """Return the most common experts under a renaming, given those of each pair of devices (D, D)."""
    # Only teachers need it, and it takes as long to import as everything else here.
    from scipy.optimize import linear_sum_assignment

    devices, nodes = int(hw.devices[row]), int(hw.nodes[row])
    node, kind = hw.node[row, :devices], state.kind[row, :devices]
    common = np.where(kind[:, None] == kind[None], common, -1e6)
    members = [np.flatnonzero(node == k) for k in range(nodes)]
    pairs = np.full((nodes, nodes), -1e9)
    for one, mine in enumerate(members):
        for two, theirs in enumerate(members):
            if np.array_equal(np.sort(kind[mine]), np.sort(kind[theirs])):
                part = common[np.ix_(mine, theirs)]
                pairs[one, two] = part[linear_sum_assignment(part, maximize=True)].sum()
    return float(pairs[linear_sum_assignment(pairs, maximize=True)].sum())
