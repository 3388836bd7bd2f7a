"""The time model as planners use it: seconds of every layer under a forecast, and of changing its placement."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import (
    SCRATCH_ROWS,
    allocate_hardware,
    home_layer_s,
    migration_layer_s,
    slot_tokens,
    write_hardware,
)
from schedrl.envs.moe.solution import layer_times

__all__ = ["ModelledTime"]


class ModelledTime:
    """Evaluates placements of one instance."""

    def __init__(self, instance: ExpertPlacementInstance) -> None:
        self._instance = instance
        self._hardware = allocate_hardware(1, instance.devices)
        write_hardware(self._hardware, 0, instance)
        # The kernels index nodes in the same rows as devices, of which there are never fewer.
        self._scratch = np.zeros((SCRATCH_ROWS, instance.devices))
        self._holds = np.zeros((instance.experts, instance.devices), dtype=np.bool_)
        self._replicas = np.zeros(instance.experts, dtype=np.int32)
        self._tokens = np.zeros(instance.total_slots)

    def layer_s(self, loads: F64, placement: I32) -> F64:
        """Return (L,) seconds of each layer in a forward pass, for loads (L, E) in tokens per window."""
        instance, slots = self._instance, self._instance.total_slots
        if instance.timing.residence == "path":
            return layer_times(instance, loads, placement)[0]
        seconds = np.empty(len(loads))
        for layer, (row, per_pass) in enumerate(zip(placement, loads / instance.iterations, strict=True)):
            total = slot_tokens(per_pass, row, slots, self._replicas, self._tokens)
            seconds[layer] = home_layer_s(
                self._hardware, 0, self._tokens, instance.slot_device, slots, total, self._scratch
            )
        return seconds

    def move_s(self, old: I32, new: I32) -> F64:
        """Return (L,) seconds of migration from ``old`` to ``new`` (L, P) in each layer."""
        instance = self._instance
        return np.array(
            [
                migration_layer_s(
                    self._hardware,
                    0,
                    before,
                    after,
                    instance.slot_device,
                    instance.total_slots,
                    self._holds,
                    self._scratch,
                )
                for before, after in zip(old, new, strict=True)
            ]
        )
