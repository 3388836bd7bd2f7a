"""``schedrl moe export`` and ``schedrl moe loads``: plans for inference engines, and instances of recorded loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import JsonFlag
from schedrl.cli.console import emit_json, number, print_fields
from schedrl.errors import ConfigError, SolutionError

__all__ = ["export", "loads"]


def export(
    instance: Annotated[Path, typer.Argument(help="Instance file of expert placement.")],
    plan: Annotated[Path, typer.Argument(help="Plan of that instance, as schedrl solve writes it.")],
    engine: Annotated[str, typer.Option("--engine", "-e", help="sglang, vllm, vllm-ascend or tensorrt-llm.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the engine.")],
    window: Annotated[
        int | None, typer.Option("--window", "-w", min=0, help="Scored window, for plans that change.")
    ] = None,
    num_layers: Annotated[
        int | None,
        typer.Option("--num-layers", min=1, help="Layers that the engine reports, for SGLang with its dense ones."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a plan as the file that an inference engine loads, after a check of what the engine demands.

    For example:

        schedrl moe export loads.json plan.json --engine sglang --out location.json
    """
    from schedrl.envs.moe.engine_export import export_plan
    from schedrl.envs.moe.engines import get_engine
    from schedrl.envs.moe.formats import read_instance
    from schedrl.envs.moe.instance import ExpertPlacementInstance
    from schedrl.envs.moe.solution import ExpertPlan

    found, problem = get_engine(engine), read_instance(instance)
    if not isinstance(problem, ExpertPlacementInstance):
        raise ConfigError(f"{instance}: a cache of experts, expected an instance of their placement")
    try:
        text = plan.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SolutionError(f"{plan}: not UTF-8 text, expected a plan as JSON") from None
    answer = ExpertPlan.from_json(text, source=str(plan))
    report = export_plan(problem, answer, engine, out, window=window, num_layers=num_layers)
    facts = {
        "engine": found.title,
        "devices": problem.devices,
        "slots_per_device": problem.total_slots // problem.devices,
        "redundant_experts": problem.total_slots - problem.experts,
        "use": found.usage.replace("FILE", str(out)),
    }
    _print(out, facts, report.warnings, as_json)


def loads(
    file: Annotated[Path, typer.Argument(help="Loads: .npy, .npz, .json, .csv, .pt or a folder of .pt files.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Name in the catalogue of models.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Instance file.")],
    device: Annotated[str, typer.Option("--device", "-d", help="Name in the catalogue of devices.")] = "h100-sxm",
    nodes: Annotated[int, typer.Option("--nodes", min=1)] = 1,
    per_node: Annotated[int, typer.Option("--per-node", min=1, help="Devices per node.")] = 8,
    redundant: Annotated[int, typer.Option("--redundant", "-r", help="Slots per layer beyond one per expert.")] = 0,
    planned: Annotated[int, typer.Option("--planned", min=1, help="Windows known before the first plan.")] = 1,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Forward passes per window.")] = 1,
    tokens_per_window: Annotated[
        int | None, typer.Option("--tokens-per-window", min=1, help="Of routes of single tokens only.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Of HarMoEny's counts only.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a placement instance of recorded expert loads, a model and equal nodes of a device.

    For example:

        schedrl moe loads counts.npy --model deepseek-v3 --nodes 4 --redundant 32 --out loads.json
    """
    from schedrl.atomic import write_text
    from schedrl.envs.moe.formats import instance_of_loads, read_loads
    from schedrl.envs.moe.model import get_model

    known = get_model(model)
    dump = read_loads(file, experts=known.experts, tokens_per_window=tokens_per_window, dataset=dataset)
    instance = instance_of_loads(
        dump,
        model=known,
        device=device,
        nodes=nodes,
        per_node=per_node,
        redundant=redundant,
        planned=planned,
        iterations=iterations,
    )
    write_text(out, instance.to_json())
    facts = {
        "name": instance.name,
        "windows": len(instance.counts),
        "planned": instance.planned,
        "layers": instance.layers,
        "experts": instance.experts,
        "devices": instance.devices,
        "slots_per_device": instance.total_slots // instance.devices,
        "tokens": int(instance.counts.sum()),
    }
    _print(out, facts, (), as_json)


def _print(path: Path, facts: Mapping[str, Any], warnings: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        emit_json({"file": str(path), **facts, "warnings": list(warnings)})
        return
    texts = [(key, value if isinstance(value, str) else number(value)) for key, value in facts.items()]
    print_fields([("file", str(path)), *texts, *(("warning", warning) for warning in warnings)])
