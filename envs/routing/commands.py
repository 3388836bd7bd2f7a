"""``schedrl routing fleet``: the cheapest numbers of GPUs of each type for a workload and its objectives."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schedrl.cli.arguments import JsonFlag
from schedrl.cli.console import emit_json, number, percent, print_fields
from schedrl.errors import ConfigError

if TYPE_CHECKING:
    from schedrl.envs.routing.fleet import ServingInstance
    from schedrl.envs.routing.workload import Workload

__all__ = ["DATASETS", "fleet"]

DATASETS: Mapping[str, str] = {
    "azure-conversation": "routing/azure/AzureLLMInferenceTrace_conv.csv",
    "mooncake-conversation": "routing/mooncake/conversation_trace.jsonl",
}
"""traces by name, files in the folder that ``SCHEDRL_DATA`` names"""
# By name, because environments do not import baselines.
_SELECTION = "schedrl.baselines.routing.fleet_selection"
_PROFILE = "schedrl.baselines.routing.fleet_profile"
_SCHEMA = "schedrl/routing-fleet/1"


def fleet(
    workload: Annotated[Path | None, typer.Option("--workload", "-w", help="Trace of requests.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help=f"Or one of {', '.join(DATASETS)}.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Or rates and throughputs, as Mélange's solver reads them.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Language model in the catalogue.")] = "llama-2-7b",
    types: Annotated[
        str, typer.Option("--types", help="Devices of the catalogue, by commas.")
    ] = "l4,a10g,a100-sxm-80gb,h100-sxm",
    tensor_parallel: Annotated[int, typer.Option("--tensor-parallel", min=1, help="Devices per instance.")] = 1,
    prices: Annotated[Path | None, typer.Option("--prices", help="JSON with USD/h per device.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests/s, instead of the trace's own.")] = None,
    slo_ttft: Annotated[float | None, typer.Option("--slo-ttft", help="Seconds to the first token.")] = None,
    slo_tpot: Annotated[float, typer.Option("--slo-tpot", help="Seconds per output token.")] = 0.12,
    attainment: Annotated[float, typer.Option("--attainment", help="Share of requests to meet each; 0.5: mean.")] = 0.9,
    slices: Annotated[int | None, typer.Option("--slices", help="Slices per bucket of sizes.")] = None,
    overprovision: Annotated[float, typer.Option("--overprovision", help="Share of the rate to add.")] = 0.0,
    available: Annotated[str | None, typer.Option("--available", help="Most of a type: a10g=8,h100-sxm=2.")] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", "-t", min=0.001, help="Wall seconds.")] = 60.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the fleet.")] = None,
    instance: Annotated[
        Path | None, typer.Option("--instance", help="File for the routing instance of the trace on the fleet.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Choose the cheapest fleet of mixed GPU types that serves a workload within its objectives (Mélange).

    For example:

        schedrl routing fleet --workload trace.csv --model llama-2-7b --slo-tpot 0.12 --types l4,a100-sxm-80gb
    """
    selection: Any = importlib.import_module(_SELECTION)
    if sum(source is not None for source in (workload, dataset, config)) != 1:
        raise ConfigError("expected one of --workload, --dataset and --config")
    requests: Workload | None = None
    objectives: Any = importlib.import_module(_PROFILE).Objectives(
        ttft_s=math.inf if slo_ttft is None else slo_ttft, tpot_s=slo_tpot, attainment=attainment
    )
    if config is not None:
        if out is not None or instance is not None:
            raise ConfigError("--config has no devices of the catalogue, which --out and --instance need")
        problem = selection.read_problem(config)
        known, rates, factor = problem.types, problem.rates, slices or problem.slice_factor
    else:
        requests = _workload(workload, dataset, rate)
        known, rates, factor = *_profiled(requests, model, types, prices, objectives, tensor_parallel), slices or 4
    options = {"available": _available(available), "overprovision": overprovision}
    found = selection.select_fleet(known, rates, slice_factor=factor, time_limit_s=time_limit, **options)
    alone = selection.single_type_fleets(known, rates, **options)
    cost = {item.name: item.price_usd_per_h for item in known}
    facts = _facts(found, alone, cost, float(rates.sum()))
    if requests is not None and (out or instance):
        servers = _servers(found.counts, cost, model, tensor_parallel)
        _write_fleet(out, {"model": model, **facts}, servers)
        _write_instance(instance, requests, servers, objectives)
    _print(facts, as_json)


def _workload(path: Path | None, dataset: str | None, rate: float | None) -> Workload:
    from schedrl.benchmark_data import data_file, data_folder
    from schedrl.envs.routing.trace_readers import detect_kind, read_text, read_workload
    from schedrl.envs.routing.workload import rescaled
    from schedrl.errors import unknown_name

    if path is not None:
        lengths = detect_kind(read_text(path), str(path)) == "lengths"
        found = read_workload(path, requests_per_s=rate if lengths else None)
    elif dataset is not None and dataset in DATASETS:
        name = DATASETS[dataset]
        found = read_workload(data_file(dataset, data_folder(dataset, name), name))
    else:
        raise unknown_name("dataset", str(dataset), DATASETS)
    return found if rate is None else rescaled(found, rate)


def _profiled(
    requests: Workload, model: str, types: str, prices: Path | None, objectives: Any, degree: int
) -> tuple[list[Any], Any]:
    """Return what each device serves, and the rates of the buckets."""
    from schedrl.devices.language_model import get_language_model

    profile: Any = importlib.import_module(_PROFILE)
    mix = profile.request_mix(requests.arrival_s, requests.prompt_tokens, requests.output_tokens)
    names = [name.strip() for name in types.split(",") if name.strip()]
    table = _prices(prices)
    sizes = get_language_model(model)
    known = [
        profile.profile_device(name, sizes, mix, objectives, tensor_parallel=degree, price_usd_per_h=table.get(name))
        for name in names
    ]
    return known, mix.rates


def _prices(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a table from device to USD/h, got {data!r:.40}")
    for name, value in data.items():
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise ConfigError(f"{path}: field {name}: {value!r:.40}, expected USD/h above 0")
    return {name: float(value) for name, value in data.items()}


def _available(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    found = {}
    for item in text.split(","):
        name, _, count = item.partition("=")
        if not count.strip().isdecimal():
            raise ConfigError(f"--available: {item!r:.40}, expected a type and a number like a10g=8")
        found[name.strip()] = int(count)
    return found


def _facts(found: Any, alone: Mapping[str, int | None], prices: Mapping[str, float], rate: float) -> dict[str, Any]:
    """Return what the command prints: the fleet, and each type alone with what the mix saves against it."""
    singles: dict[str, dict[str, Any]] = {
        name: {"count": count, "usd_per_h": count * prices[name], "saving": _saving(found, count * prices[name])}
        for name, count in alone.items()
        if count is not None
    }
    best = min(singles, key=lambda name: float(singles[name]["usd_per_h"]), default=None)
    return {
        "requests_per_s": rate,
        "counts": dict(found.counts),
        "usd_per_h": found.price_usd_per_h,
        "lower_bound_usd_per_h": found.lower_bound,
        "status": found.status,
        "single_type": {name: singles.get(name) for name in alone},
        "best_single_type": best,
        "saving": None if best is None else singles[best]["saving"],
    }


def _saving(found: Any, usd_per_h: float) -> float | None:
    return 1.0 - float(found.price_usd_per_h) / usd_per_h if usd_per_h > 0 else None


def _servers(
    counts: Mapping[str, int], prices: Mapping[str, float], model: str, degree: int
) -> tuple[ServingInstance, ...]:
    from schedrl.envs.routing.fleets import fleet as build

    servers = build({name: count for name, count in counts.items() if count}, model, tensor_parallel=degree)
    return tuple(dataclasses.replace(server, price_usd_per_h=prices[server.device]) for server in servers)


def _write_fleet(path: Path | None, facts: Mapping[str, Any], servers: Sequence[ServingInstance]) -> None:
    from schedrl.atomic import write_text
    from schedrl.envs.routing.fleet import serving_instance_to_dict

    if path is not None:
        plain = [serving_instance_to_dict(server) for server in servers]
        write_text(path, json.dumps({"schema": _SCHEMA, **facts, "fleet": plain}, indent=2) + "\n")


def _write_instance(path: Path | None, requests: Workload, servers: Sequence[ServingInstance], objectives: Any) -> None:
    from schedrl.atomic import write_text
    from schedrl.envs.routing.workload import route

    if path is not None:
        slo = {"ttft_slo_s": objectives.ttft_s, "tpot_slo_s": objectives.tpot_s}
        write_text(path, route(requests, servers, path.stem, **slo).to_json())


def _print(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(facts)
        return
    counts: Sequence[str] = [f"{count} x {name}" for name, count in facts["counts"].items() if count]
    lines = [
        ("requests/s", number(facts["requests_per_s"])),
        ("fleet", ", ".join(counts) or "none"),
        (
            "USD/h",
            f"{number(facts['usd_per_h'])} ({facts['status']}, at least {number(facts['lower_bound_usd_per_h'])})",
        ),
    ]
    for name, single in facts["single_type"].items():
        text = "cannot serve it"
        if single is not None:
            text = f"{single['count']}, {number(single['usd_per_h'])} USD/h, saving {percent(single['saving'])}"
        lines.append((f"only {name}", text))
    print_fields(lines)
