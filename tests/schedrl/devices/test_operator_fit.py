from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices import load_catalogue
from schedrl.devices.operator_fit import Operators, fit_device, fit_operators, held_out_s, read_operators
from schedrl.errors import ConfigError, InstanceError

VIDUR = (
    "model,num_tensor_parallel_workers,num_tokens,n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,"
    "attn_pre_proj_ms,attn_post_proj_ms,mlp_up_proj_ms,mlp_down_proj_ms"
)


def profile(mfu: float, mbu: float, overhead_s: float, models: int = 1) -> str:
    lines = ["model,flops,bytes,seconds"]
    for model in range(models):
        for doubling in range(12):
            flops, moved = 2.0**doubling * 4e8 * (1 + model), 4e8 * (1 + model)
            seconds = math.hypot(flops / (mfu * 3e14), moved / (mbu * 2e12)) + overhead_s
            lines.append(f"m{model},{flops!r},{moved!r},{seconds!r}")
    return "\n".join(lines) + "\n"


@given(st.floats(0.2, 0.95), st.floats(0.2, 0.95), st.floats(1e-6, 1e-4))
@settings(max_examples=15, deadline=None)
def test_a_made_profile_gives_its_constants_back(mfu: float, mbu: float, overhead_s: float) -> None:
    rows = [line.split(",") for line in profile(mfu, mbu, overhead_s, 2).splitlines()[1:]]
    flops, moved, seconds = (np.array([float(row[k]) for row in rows]) for k in (1, 2, 3))
    operators = Operators(
        flops=flops, moved_bytes=moved, seconds=seconds, model=tuple(row[0] for row in rows), tokens=np.zeros(len(rows))
    )
    assert fit_operators(operators, 3e14, 2e12) == pytest.approx((mfu, mbu, overhead_s), rel=0.02)
    assert held_out_s(operators, 3e14, 2e12) == pytest.approx(seconds, rel=0.1)


def test_a_fit_writes_a_table_that_the_catalogue_reads(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    path.write_text(profile(0.6, 0.8, 2e-5, models=3))
    fitted = fit_device(path, flops_per_s=3e14, memory_bandwidth_bytes_per_s=2e12, held_out=True)
    assert (fitted.mfu, fitted.mbu) == pytest.approx((0.6, 0.8), rel=1e-3)
    assert fitted.rows == 36
    assert fitted.mean_error < 1e-3
    assert set(fitted.held_out) == {"m0", "m1", "m2"}
    assert max(fitted.held_out.values()) < 1e-2
    out = tmp_path / "mine.toml"
    out.write_text(fitted.to_toml('my "gpu"', "a profile", memory_bytes=8e10))
    entry = load_catalogue(out)['my "gpu"']
    assert entry.figures["mfu"].kind == "fitted"
    assert entry.device.operation_overhead_s == pytest.approx(2e-5, rel=1e-2)
    assert entry.device.memory_bytes == 8e10


def test_vidur_rows_are_turned_into_work_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mlp.csv"
    rows = [
        "m,2,16,32,8,4096,14336,True,0.1,0.1,0.2,0.1",
        "m,2,16,32,8,4096,14336,True,0.1,0.1,0.4,0.1",
        "m,2,16,32,8,4096,14336,True,0.1,0.1,9.0,0.1",
        "m,2,16,32,8,4096,14336,True,,0.1,0.2,0.1",
        "phi,1,16,32,32,2560,10240,False,0.1,0.1,0.2,0.1",
    ]
    path.write_text("\n".join([VIDUR, *rows]) + "\n")
    operators = read_operators(path)
    assert operators.model == ("m", "phi")
    # 218,103,808 weights of a Llama-3-8B layer, halved; phi-2's layer has no gate.
    assert operators.moved_bytes == pytest.approx([218_103_808, 2 * (4 * 2560**2 + 2 * 2560 * 10240)])
    assert operators.flops[0] == pytest.approx(16 * 218_103_808)
    assert operators.seconds == pytest.approx([0.7e-3, 0.5e-3]), (
        "the median of the repeated rows, the blank one left out"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p\.csv:1: columns none, expected flops, bytes, seconds"),
        ("a,b\n1,2\n", r"p\.csv:1: columns a, b, expected flops, bytes, seconds or those of Vidur's mlp\.csv"),
        ("flops,bytes,seconds\n", r"p\.csv: no rows"),
        ("flops,bytes,seconds\n1,2\n", r"p\.csv:2: 2 fields, expected 3"),
        ("flops,bytes,seconds\n1,2,3\n1,x,3\n", r"p\.csv:3: field bytes: 'x', expected a number above 0"),
        ("flops,bytes,seconds\n1,2,-3\n", r"p\.csv:2: field seconds: '-3', expected a number above 0"),
        ("flops,bytes,seconds\n1,2,nan\n", r"p\.csv:2: field seconds: 'nan'"),
        ("flops,bytes,seconds\n1,2,inf\n", r"p\.csv:2: field seconds: 'inf'"),
        (f"{VIDUR}\nm,2,16,32,8,4096,14336,True,,,,\n", r"p\.csv: no row has all of attn_pre_proj"),
        (f"{VIDUR}\nm,0,16,32,8,4096,14336,True,1,1,1,1\n", r"p\.csv:2: field num_tensor_parallel_workers: '0'"),
        (
            "attn_pre_proj_ms,attn_post_proj_ms,mlp_up_proj_ms,mlp_down_proj_ms\n1,1,1,1\n",
            r"p\.csv:1: field n_head: no such column",
        ),
    ],
)
def test_a_bad_profile_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(InstanceError, match=message) as caught:
        fit_device(path, flops_per_s=1e14, memory_bandwidth_bytes_per_s=1e12)
    assert "\n" not in str(caught.value)


def test_too_little_to_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("flops,bytes,seconds\n" + "1e12,1e9,1e-2\n" * 5)
    with pytest.raises(ConfigError, match="5 operators, expected at least 6"):
        fit_device(path, flops_per_s=1e14, memory_bandwidth_bytes_per_s=1e12)
    path.write_text("flops,bytes,seconds\n" + "1e12,1e9,1e-2\n" * 6)
    with pytest.raises(ConfigError, match=r"field flops_per_s: 0\.0, expected a number above 0"):
        fit_device(path, flops_per_s=0.0, memory_bandwidth_bytes_per_s=1e12)
    with pytest.raises(ConfigError, match="operators of one model only"):
        held_out_s(read_operators(path), 1e14, 1e12)
    with pytest.raises(InstanceError, match=r"none\.csv: cannot be read as CSV"):
        read_operators(tmp_path / "none.csv")
