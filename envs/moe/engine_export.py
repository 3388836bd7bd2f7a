"""Plans handed to inference engines: the export, and a check of any engine's file against what the engine demands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedrl.arrays import I32
from schedrl.atomic import write_text
from schedrl.envs.moe.engines import Engine, get_engine
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import ExpertPlan, check_plan
from schedrl.errors import ConfigError, SolutionError

__all__ = ["ExportReport", "engine_layers", "export_plan", "validate_export", "validate_placement"]

_MAX_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What is wrong with an engine's file; valid without violations."""

    violations: tuple[str, ...]
    """what the engine refuses, or computes nonsense with"""
    warnings: tuple[str, ...]
    """replicas of an expert on one device, which waste a slot"""


def engine_layers(engine: Engine, model: MoEModel) -> int:
    """Return the rows that a file for the engine needs: SGLang counts the model's leading dense layers too."""
    return model.layers + (model.first_layer if engine.counts_dense_layers else 0)


def validate_export(
    text: str,
    *,
    engine: str,
    model: MoEModel,
    devices: int,
    num_layers: int | None = None,
    source: str = "<export>",
) -> ExportReport:
    """Check the content of an engine's file: its schema, and what ``validate_placement`` checks.

    Args:
        text: Content of the file.
        engine: Key of ``ENGINES``.
        model: What the engine runs.
        devices: Number of devices, the expert-parallel size.
        num_layers: Rows that the engine expects; by default ``engine_layers``.
        source: Start of messages about the schema.

    Raises:
        UnknownNameError: no such engine.
    """
    found = get_engine(engine)
    try:
        placement = found.read(text, model, devices, source)
    except SolutionError as error:
        return ExportReport(violations=(str(error),), warnings=())
    layers = engine_layers(found, model) if num_layers is None else num_layers
    return validate_placement(placement, layers=layers, experts=model.experts, devices=devices)


def validate_placement(placement: I32, *, layers: int, experts: int, devices: int) -> ExportReport:
    """Check a placement (L, P): rows, equal slots per device, ids in range, every expert held, replicas apart.

    At most twenty violations and as many warnings are listed.
    """
    rows, slots = placement.shape
    violations, warnings = [], []
    if rows != layers:
        violations.append(f"{rows} layers, the engine expects {layers}")
    if slots < experts:
        violations.append(f"{slots} slots per layer are fewer than {experts} experts")
    if slots % devices:
        violations.append(
            f"{slots} slots per layer ({experts} experts, {slots - experts} redundant) do not divide among {devices} "
            "devices"
        )
    for layer, row in enumerate(placement):
        held = set(row.tolist())
        violations += [f"layer {layer}: expert {e} outside 0 to {experts - 1}" for e in sorted(held - _ids(experts))]
        violations += [f"layer {layer}: expert {e} has no slot" for e in sorted(_ids(experts) - held)]
        if slots % devices == 0:
            for device, own in enumerate(row.reshape(devices, -1)):
                ids, times = np.unique(own, return_counts=True)
                warnings += [f"layer {layer}: expert {e} several times on device {device}" for e in ids[times > 1]]
        if len(violations) >= _MAX_LISTED:
            break
    return ExportReport(violations=tuple(violations[:_MAX_LISTED]), warnings=tuple(warnings[:_MAX_LISTED]))


def _ids(experts: int) -> set[int]:
    return set(range(experts))


def export_plan(
    instance: ExpertPlacementInstance,
    plan: ExpertPlan,
    engine: str,
    path: Path,
    *,
    window: int | None = None,
    num_layers: int | None = None,
) -> ExportReport:
    """Write one placement of a plan as an engine's file, complete or not at all, and return the report on that file.

    Args:
        instance: What the plan is for.
        plan: A valid plan.
        engine: Key of ``ENGINES``.
        path: The file.
        window: Scored window whose placement to write; needed where a plan changes.
        num_layers: Rows that the engine expects, by default ``engine_layers``. Layers before those with experts are
            filled with expert ``p % E`` in slot ``p``; nothing reads them.

    Raises:
        UnknownNameError: no such engine.
        SolutionError: the plan is invalid for the instance.
        ConfigError: devices with different numbers of slots, a plan that changes without a choice of window, no such
            window, or an instance without all layers of its model.
    """
    found, devices = get_engine(engine), instance.devices
    if violations := check_plan(instance, plan):
        raise SolutionError(f"{instance.name}: {violations[0]}")
    if len(np.unique(instance.slots)) > 1:
        raise ConfigError(
            f"{instance.name}: field slots: {instance.slots.min()} to {instance.slots.max()} per device, "
            f"{found.title} needs equally many on every device"
        )
    placement = _with_dense_layers(_placement(instance, plan, window), instance, found, num_layers)
    text = found.write(placement, instance.model, devices)
    report = validate_export(
        text, engine=engine, model=instance.model, devices=devices, num_layers=len(placement), source=str(path)
    )
    if report.violations:
        raise SolutionError(f"{instance.name}: {report.violations[0]}")
    write_text(path, text)
    return report


def _placement(instance: ExpertPlacementInstance, plan: ExpertPlan, window: int | None) -> I32:
    number = len(plan.experts)
    if window is None:
        if (plan.experts != plan.experts[0]).any():
            raise ConfigError(f"{instance.name}: the plan has {number} placements, choose a window of them")
        window = 0
    if not 0 <= window < len(instance.scored):
        raise ConfigError(f"{instance.name}: window {window}, expected 0 to {len(instance.scored) - 1}")
    # One placement alone holds for every window.
    placement: I32 = plan.experts[min(window, number - 1)]
    return placement


def _with_dense_layers(
    placement: I32, instance: ExpertPlacementInstance, engine: Engine, num_layers: int | None
) -> I32:
    layers, slots = placement.shape
    expected = engine_layers(engine, instance.model) if num_layers is None else num_layers
    if num_layers is None and layers != instance.model.layers:
        raise ConfigError(
            f"{instance.name}: {layers} layers of {instance.model.layers} of model {instance.model.name}, "
            f"{engine.title} needs all; give the number of layers if it runs fewer"
        )
    if expected < layers or (expected > layers and not engine.counts_dense_layers):
        raise ConfigError(f"{instance.name}: {layers} layers with experts, {engine.title} cannot take {expected}")
    dense = trivial_placement(expected - layers, instance.experts, slots)
    return np.concatenate([dense, placement])
