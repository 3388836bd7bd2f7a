"""Placement files of inference engines: SGLang, vLLM, vLLM Ascend and TensorRT-LLM, each written and read back.

In all of them slot ``p`` of ``P`` belongs to device ``p // (P / devices)``, so every device has equally many slots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml

from schedrl.arrays import I32
from schedrl.envs.moe.model import MoEModel
from schedrl.errors import SolutionError, UnknownNameError

__all__ = ["ENGINES", "Engine", "get_engine"]

_MAP = "physical_to_logical_map"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How one engine takes a placement from a file."""

    name: str
    title: str
    suffix: str
    """of its files"""
    usage: str
    """where the engine takes the file"""
    counts_dense_layers: bool
    """whether a row is needed for each layer of the whole model, also for those without experts"""
    write: Callable[[I32, MoEModel, int], str]
    """file of a placement (L, P), the model and the number of devices"""
    read: Callable[[str, MoEModel, int, str], I32]
    """placement (L, P) of a file, the model, the number of devices and the source for messages; SolutionError if the
    text is not what the engine documents. Whether its numbers make sense is for ``validate_export``."""


def get_engine(name: str) -> Engine:
    """Return an engine by name.

    Raises:
        UnknownNameError: no such engine.
    """
    if name not in ENGINES:
        raise UnknownNameError(f"unknown engine {name!r:.40}; choose from {', '.join(ENGINES)}")
    return ENGINES[name]


def _write_sglang(placement: I32, model: MoEModel, devices: int) -> str:
    # SGLang passes the table on as keyword arguments: any further key is an error there.
    return json.dumps({_MAP: placement.tolist()})


def _read_sglang(text: str, model: MoEModel, devices: int, source: str) -> I32:
    data = _table(_parse_json(text, source), source)
    _exact_keys(data, {_MAP}, source)
    return _rows(data[_MAP], f"{source}: field {_MAP}")


def _write_vllm(placement: I32, model: MoEModel, devices: int) -> str:
    return json.dumps(placement.tolist())


def _read_vllm(text: str, model: MoEModel, devices: int, source: str) -> I32:
    data = _parse_json(text, source)
    # A flat list stands for every layer.
    if isinstance(data, list) and data and all(type(item) is int for item in data):
        data = [data] * model.layers
    return _rows(data, f"{source}: field (top level)")


def _write_ascend(placement: I32, model: MoEModel, devices: int) -> str:
    layers, slots = placement.shape
    held = placement.reshape(layers, devices, slots // devices).tolist()
    layer_list = [
        {
            "layer_id": layer,
            "device_count": devices,
            "device_list": [{"device_id": device, "device_expert": row} for device, row in enumerate(rows)],
        }
        for layer, rows in enumerate(held)
    ]
    return json.dumps({"moe_layer_count": layers, "layer_list": layer_list})


def _read_ascend(text: str, model: MoEModel, devices: int, source: str) -> I32:
    data = _table(_parse_json(text, source), source)
    _exact_keys(data, {"moe_layer_count", "layer_list"}, source)
    layers = _numbered(data["layer_list"], "layer_id", f"{source}: field layer_list")
    if data["moe_layer_count"] != len(layers):
        raise SolutionError(
            f"{source}: field moe_layer_count: {data['moe_layer_count']!r:.40}, layer_list has {len(layers)}"
        )
    rows = []
    for number, layer in enumerate(layers):
        where = f"{source}: field layer_list[{number}]"
        held = _numbered(layer.get("device_list"), "device_id", f"{where}.device_list")
        if layer.get("device_count") != len(held) or len(held) != devices:
            raise SolutionError(
                f"{where}.device_count: {layer.get('device_count')!r:.40} for {len(held)} devices, expected {devices}"
            )
        parts = _rows([device.get("device_expert") for device in held], f"{where}.device_list.device_expert")
        rows.append(parts.ravel().tolist())
    return _rows(rows, f"{source}: field layer_list")


def _write_tensorrt(placement: I32, model: MoEModel, devices: int) -> str:
    assignments = {model.first_layer + layer: row for layer, row in enumerate(placement.tolist())}
    data = {
        "num_slots": int(placement.shape[1]),
        "initial_global_assignments": assignments,
        "layer_updates_per_iter": 0,  # a static plan: the engine's own balancer stays off
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(data, Dumper=dumper, default_flow_style=None, sort_keys=False, width=2**20)
    return text


def _read_tensorrt(text: str, model: MoEModel, devices: int, source: str) -> I32:
    try:
        data = _table(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), source)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, SolutionError):
            raise
        raise SolutionError(f"{source}: not valid YAML: {' '.join(str(error).split()):.120}") from None
    _exact_keys(data, {"num_slots", "initial_global_assignments", "layer_updates_per_iter"}, source)
    if data["layer_updates_per_iter"] != 0:
        raise SolutionError(f"{source}: field layer_updates_per_iter: expected 0, else the engine changes the plan")
    where = f"{source}: field initial_global_assignments"
    assignments = _table(data["initial_global_assignments"], where)
    expected = range(model.first_layer, model.first_layer + len(assignments))
    if set(assignments) != set(expected):
        raise SolutionError(f"{where}: keys {list(assignments)!r:.60}, expected layers from {model.first_layer} on")
    placement = _rows([assignments[layer] for layer in expected], where)
    if data["num_slots"] != placement.shape[1]:
        raise SolutionError(f"{source}: field num_slots: {data['num_slots']!r:.40}, rows have {placement.shape[1]}")
    return placement


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SolutionError(f"{source}: not valid JSON: {error}") from None


def _table(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise SolutionError(f"{where}: got {value!r:.40}, expected a table")
    return value


def _exact_keys(data: dict[Any, Any], expected: set[str], source: str) -> None:
    if missing := sorted(expected - set(data)):
        raise SolutionError(f"{source}: field {missing[0]}: missing")
    if extra := sorted(map(str, set(data) - expected)):
        raise SolutionError(
            f"{source}: field {extra[0]:.40}: unknown to the engine, expected {', '.join(sorted(expected))}"
        )


def _numbered(items: Any, key: str, where: str) -> list[dict[str, Any]]:
    """Return the tables of a list, each of which must carry its own index."""
    if not isinstance(items, list) or not items:
        raise SolutionError(f"{where}: got {items!r:.40}, expected a list of tables")
    for index, item in enumerate(items):
        if not isinstance(item, dict) or item.get(key) != index:
            raise SolutionError(f"{where}[{index}]: expected a table with {key} {index}")
    return items


def _rows(rows: Any, where: str) -> I32:
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], list) or not rows[0]:
        raise SolutionError(f"{where}: expected a list of lists of experts")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(rows[0]):
            raise SolutionError(f"{where}[{index}]: expected a list of {len(rows[0])} experts, as in the first")
        if not all(type(expert) is int and abs(expert) < 2**31 for expert in row):
            raise SolutionError(f"{where}[{index}]: an entry is no expert, expected integers")
    return np.array(rows, dtype=np.int32)


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "sglang": Engine(
            name="sglang",
            title="SGLang",
            suffix=".json",
            usage="--init-expert-location FILE --ep-dispatch-algorithm static",
            counts_dense_layers=True,
            write=_write_sglang,
            read=_read_sglang,
        ),
        "vllm": Engine(
            name="vllm",
            title="vLLM",
            suffix=".json",
            usage="eplb_config.initial_expert_map_path (vllm-project/vllm pull request 49572, not merged)",
            counts_dense_layers=False,
            write=_write_vllm,
            read=_read_vllm,
        ),
        "vllm-ascend": Engine(
            name="vllm-ascend",
            title="vLLM Ascend",
            suffix=".json",
            usage="additional_config.eplb_config.expert_map_path",
            counts_dense_layers=False,
            write=_write_ascend,
            read=_read_ascend,
        ),
        "tensorrt-llm": Engine(
            name="tensorrt-llm",
            title="TensorRT-LLM",
            suffix=".yaml",
            usage="moe_load_balancer: FILE",
            counts_dense_layers=False,
            write=_write_tensorrt,
            read=_read_tensorrt,
        ),
    }
)
