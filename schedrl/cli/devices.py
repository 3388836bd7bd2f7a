"""``schedrl devices``: the catalogue of devices, fits of new ones, and how far the times of serving can be trusted."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schedrl.cli.arguments import JsonFlag
from schedrl.cli.console import emit_json, number, percent, print_fields, print_table

if TYPE_CHECKING:
    from schedrl.devices.serving_validation import Validation

__all__ = ["devices"]

# By name, as families are: this package does not import them.
_MORE_VALIDATIONS = "schedrl.envs.routing.validation_runs:validations"

devices = typer.Typer(
    help="Devices: list the catalogue, fit a new one to a profile, validate the times of serving.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
)


@devices.command("list")
def list_devices(as_json: JsonFlag = False) -> None:
    """List the catalogue's devices with the figures that serving needs.

    For example:

        schedrl devices list --json
    """
    from schedrl.devices.catalogue import load_catalogue

    catalogue = load_catalogue()
    if as_json:
        listed = {
            name: {
                field: {"value": item.value, "kind": item.kind, "source": item.source}
                for field, item in entry.figures.items()
            }
            for name, entry in catalogue.items()
        }
        emit_json({"devices": listed})
        return
    columns = ("memory_bytes", "memory_bandwidth_bytes_per_s", "mfu", "mbu", "operation_overhead_s", "price_usd_per_h")
    rows = []
    for name, entry in catalogue.items():
        kind = entry.figures["mfu"].kind if "mfu" in entry.figures else "-"
        rows.append([name, kind, *(number(getattr(entry.device, field)) for field in columns)])
    print_table("Devices", ("name", "mfu and mbu are", *columns), rows)


@devices.command()
def fit(
    profile: Annotated[Path, typer.Argument(help="CSV with flops,bytes,seconds (and model), or Vidur's mlp.csv.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the device.")],
    tflops: Annotated[float, typer.Option("--tflops", help="Peak rate of the profiled precision, in 1e12/s.")],
    bandwidth: Annotated[float, typer.Option("--bandwidth", help="Peak memory bandwidth in GB/s.")],
    memory: Annotated[float | None, typer.Option("--memory", help="Memory in GB; serving needs it.")] = None,
    held_out: Annotated[
        str | None, typer.Option("--held-out", help="model: also fit without each model and report the error on it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the catalogue's TOML table.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit the constants of a device to a profile of its operators.

    For example:

        schedrl devices fit mlp.csv --name my-gpu --tflops 312 --bandwidth 2039 --held-out model --out my-gpu.toml
    """
    from schedrl.atomic import write_text
    from schedrl.devices.operator_fit import fit_device
    from schedrl.errors import ConfigError

    if held_out not in (None, "model"):
        raise ConfigError(f"--held-out: {held_out!r}, expected model")
    if memory is not None and not 0.0 < memory < 1e9:
        raise ConfigError(f"--memory: {memory!r}, expected GB above 0")
    fitted = fit_device(
        profile,
        flops_per_s=tflops * 1e12,
        memory_bandwidth_bytes_per_s=bandwidth * 1e9,
        held_out=held_out is not None,
    )
    facts = {
        "name": name,
        "mfu": fitted.mfu,
        "mbu": fitted.mbu,
        "operation_overhead_s": fitted.operation_overhead_s,
        "operators": fitted.rows,
    }
    errors = {"mean_error": fitted.mean_error, "p95_error": fitted.p95_error}
    if out is not None:
        memory_bytes = None if memory is None else memory * 1e9
        write_text(out, fitted.to_toml(name, profile.name, memory_bytes=memory_bytes))
    if as_json:
        emit_json({**facts, **errors, "held_out": fitted.held_out, "file": out})
        return
    print_fields((field, number(value) if isinstance(value, float) else str(value)) for field, value in facts.items())
    print_fields((field, percent(value)) for field, value in errors.items())
    if held_out is not None and not fitted.held_out:
        print("held out: the profile names fewer than two models")
    elif fitted.held_out:
        print_table("Held out by model", ("model", "mean error"), [[k, percent(v)] for k, v in fitted.held_out.items()])
    if out is not None:
        print(f"wrote {out}")


@devices.command()
def validate(as_json: JsonFlag = False) -> None:
    """Compare predicted times with published measurements in the folder that SCHEDRL_DATA names.

    Exit code 1 if a goal is missed.
    """
    from schedrl.devices.serving_validation import validations

    rows = [*validations(), *_more_validations()]
    missed = sum(not row.passed for row in rows)
    if as_json:
        emit_json({"validations": [_described(row) for row in rows], "missed": missed})
    else:
        columns = ("what", "measured ms", "predicted ms", "mean error", "goal", "met")
        print_table("Predicted against measured", columns, [_cells(row) for row in rows])
    raise typer.Exit(1 if missed else 0)


def _more_validations() -> list[Validation]:
    """Return the runs that the routing family adds, none where it is not installed."""
    module, _, function = _MORE_VALIDATIONS.partition(":")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        return []
    rows: list[Validation] = getattr(importlib.import_module(module), function)()
    return rows


def _described(row: Validation) -> dict[str, object]:
    return {
        "name": row.name,
        "measured_s": row.measured,
        "predicted_s": row.predicted,
        "error": row.error,
        "goal": row.goal,
        "met": row.passed,
    }


def _cells(row: Validation) -> list[str]:
    met = "-" if row.goal is None else "yes" if row.passed else "NO"
    times = [f"{1e3 * seconds:.4g}" for seconds in (row.measured, row.predicted)]
    return [row.name, *times, percent(row.error), percent(row.goal), met]
