"""``schedrl train``, ``export`` and ``bench``: from a configuration to a policy that can be shipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import FamilyName, JsonFlag
from schedrl.cli.console import emit_json, flattened, print_fields

__all__ = ["bench", "export", "train"]


def train(
    family: FamilyName,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file whose keys are the fields of the configuration.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/CONFIG-SEED if omitted.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run folder from its last checkpoint, bit for bit.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", "-s", min=0, help="Overrides the configuration.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; overrides the configuration.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a field: name=value, or part.name=value.", metavar="NAME=VALUE"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a policy; checkpoints, TensorBoard logs and the best weights go to the run folder.

    For example:

        schedrl train jobshop -c experiments/configs/jobshop.yaml -o runs/first

        schedrl train jobshop --resume runs/first

        schedrl train jobshop -c my.yaml --set seed=3 --device cuda
    """
    from schedrl.cli.names import find_family
    from schedrl.cli.settings import plain_values
    from schedrl.errors import ConfigError

    find_family(family)
    for path in filter(None, (config, resume)):
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
    if config is None and resume is None:
        raise ConfigError("train needs --config FILE, or --resume FOLDER to continue a run")
    overrides = plain_values(settings or [])
    overrides |= {name: value for name, value in (("seed", seed), ("device", device)) if value is not None}

    from schedrl.training.run import load_config, train

    source = config or Path(resume or ".") / "config.yaml"
    fields = load_config(source, overrides)
    if fields.family != family:
        raise ConfigError(f"{source}: field family: {fields.family!r}, expected {family!r}, the family asked for")
    folder = resume or out or Path("runs") / f"{source.stem}-{fields.seed}"
    summary = train(fields, folder, resume=resume is not None, progress=not as_json)
    if as_json:
        emit_json({"run": str(folder), **summary})
    else:
        print_fields([("run", str(folder)), *flattened(summary)])


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, as written by train.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle to write, NAME.schedrl.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Play with another option of the simulator.", metavar="NAME=VALUE"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the best policy of a run as one file that runs without torch.

    For example:

        schedrl export runs/first --out first.schedrl

        schedrl export runs/dags --out dags.schedrl --set window=8
    """
    from schedrl.errors import ConfigError

    if not run.is_dir():
        raise FileNotFoundError(2, "no such run folder", str(run))
    if out.suffix != ".schedrl":
        raise ConfigError(f"--out {out}: expected a name ending in .schedrl")

    from schedrl.cli.settings import plain_values
    from schedrl.export.bundle import export_run

    summary = export_run(run, out, simulator=plain_values(settings or []))
    if as_json:
        emit_json({"bundle": str(out), **summary})
    else:
        print_fields([("bundle", str(out)), *flattened(summary)])


def bench(family: FamilyName, as_json: JsonFlag = False) -> None:
    """Measure decisions per second of the simulator and of training, and the latency of one policy decision.

    Exit code 1 if a figure could not be measured.

    For example:

        schedrl bench jobshop --json
    """
    from schedrl.cli.names import find_family

    name = find_family(family).name

    from schedrl.evaluation.bench import bench

    figures: Mapping[str, Any] = bench(name)
    if as_json:
        emit_json(figures)
    else:
        print_fields(flattened(figures))
    raise typer.Exit(0 if all(map(_measured, figures.values())) else 1)


def _measured(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True  # peers: absent ones are no failure of ours
    return value is not None and not (isinstance(value, float) and math.isnan(value))
