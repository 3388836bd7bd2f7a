"""Each public trace format is read to the same requests; a broken file gives one line with file, line and field."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.trace_readers import KINDS, read_workload
from schedrl.envs.routing.workload import clipped, prefix_hit_share
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no traces to read")

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2024-05-10 23:59:59.9999999+00:00,374,44\r\n"
    "2024-05-11 00:00:04.3145789+00:00,396,109\r\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n"
)
BURSTGPT_3 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5.0,b,1.2,GPT-4,472.0,18,490,x\n45.5,,3,GPT-4,8,9,17,x\n45.5,b,3,GPT-4,1087,230,1317,x\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n"
LENGTHS = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n18,243,261,13.5\n11,306,317,27.8\n"
MOONCAKE = (
    '{"timestamp": 3000, "input_length": 1500, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 6000, "input_length": 1024, "output_length": 6, "hash_ids": [0, 1]}\n\n'
)
LLMSERVINGSIM = (
    '{"arrival_time_ns": 46926808, "input_toks": 33, "output_toks": 5, "hash_ids_16": [0, 1, 2]}\n'
    '{"arrival_time_ns": 146926808, "input_toks": 15, "output_toks": 6, "hash_ids_16": [3]}\n'
)


@pytest.mark.parametrize(
    ("text", "arrival", "prompt", "output"),
    [
        (AZURE, [0.0, 4.314579], [374, 396], [44, 109]),
        (AZURE_2024, [0.0, 4.314579], [374, 396], [44, 109]),
        (BURSTGPT, [0.0, 40.0], [472, 1087], [18, 230]),
        (BURSTGPT_3, [0.0, 40.5, 40.5], [472, 8, 1087], [18, 9, 230]),
        (VIDUR, [0.0, 4.314579], [374, 396], [44, 109]),
        (MOONCAKE, [0.0, 3.0], [1500, 1024], [5, 6]),
        (LLMSERVINGSIM, [0.0, 0.1], [33, 15], [5, 6]),
    ],
)
def test_formats_are_told_and_read(
    tmp_path: Path, text: str, arrival: list[float], prompt: list[int], output: list[int]
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(text.encode())
    workload = read_workload(path)
    np.testing.assert_allclose(workload.arrival_s, arrival, atol=1e-9)
    assert (workload.prompt_tokens.tolist(), workload.output_tokens.tolist()) == (prompt, output)


def test_full_blocks_are_kept_and_sessions_become_programs(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(MOONCAKE)
    workload = read_workload(path)
    assert (workload.block_tokens, workload.blocks.tolist(), workload.block_start.tolist()) == (
        512,
        [0, 1, 0, 1],
        [0, 2, 4],
    )
    path.write_text(LLMSERVINGSIM)
    assert (read_workload(path).block_tokens, read_workload(path).blocks.tolist()) == (16, [0, 1])
    path.write_text(BURSTGPT_3)
    program = read_workload(path).program.tolist()
    assert program[0] == program[2] != program[1]


def test_lengths_alone_need_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text(LENGTHS)
    assert read_workload(path, requests_per_s=4.0).arrival_s.tolist() == [0.0, 0.25]
    with pytest.raises(ConfigError, match="requests_per_s: the file has no arrivals, expected a rate"):
        read_workload(path)
    with pytest.raises(ConfigError, match=r"requests_per_s: -1\.0, expected a positive number"):
        read_workload(path, requests_per_s=-1.0)
    path.write_text(VIDUR)
    with pytest.raises(ConfigError, match="the file has arrivals, expected no rate"):
        read_workload(path, requests_per_s=4.0)
    # The lengths of a trace with arrivals can be read as lengths.
    assert read_workload(path, "lengths", requests_per_s=2.0).arrival_s.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t: empty, expected a trace"),
        ("a,b\n1,2\n", "t:1: 'a,b' begins no known trace, expected one of azure"),
        (
            AZURE.replace("GeneratedTokens", "Output"),
            "t:1: field GeneratedTokens: missing, expected it in a trace of azure",
        ),
        (AZURE.replace(",396", ""), "t:3: 2 fields, expected 3"),
        (AZURE + "2023-11-16 18:1", "t:4: 1 fields, expected 3"),
        (AZURE.replace("396", "many"), "t:3: field ContextTokens: 'many', expected a number of tokens"),
        (AZURE.replace("396", "0"), "t:3: field ContextTokens: 0, expected at least 1"),
        (AZURE.replace("109", "0"), "t:3: field GeneratedTokens: 0, expected at least 1"),
        (
            AZURE.replace("18:15:50", "18:15:40"),
            "t:3: field TIMESTAMP: -5.685421 s, expected a finite time of at least 0",
        ),
        (AZURE.replace("18:15:50", "18:75:50"), "t:3: field TIMESTAMP: '2023-11-16 18:75:50.9951690', expected a time"),
        (
            AZURE.replace("951690", "951690+00:00"),
            "t:3: field TIMESTAMP: .* expected a time zone in every line or in none",
        ),
        (AZURE.splitlines()[0], "t: no requests, expected lines with them"),
        (VIDUR.replace("4.314579", "-4.3"), "t:3: field arrived_at: -4.3 s, expected a finite time of at least 0"),
        (
            VIDUR.replace("0.0,", "5.0,"),
            "t:3: field arrived_at: 0.685421 s before the request above, expected sorted times",
        ),
        (VIDUR.replace("0.0,", "nan,"), "t:2: field arrived_at: nan s, expected a finite time of at least 0"),
        (VIDUR.replace("0.0,", "x,"), "t:2: field arrived_at: 'x', expected a number of seconds"),
        (VIDUR + '1,"2,3', "t:4: not valid CSV"),
        (BURSTGPT.replace("1087", "-1087"), "t:3: field Request tokens: -1087, expected at least 1"),
        (
            BURSTGPT.replace("1087", "99999999999"),
            "t:3: field Request tokens: '99999999999', expected a number of tokens",
        ),
        (MOONCAKE.rstrip()[:-9], "t:2: not valid JSON"),
        (MOONCAKE.replace("6000", "2000"), "t:2: field timestamp: 1 s before the request above"),
        (MOONCAKE.replace("6000", '"6"'), "t:2: field timestamp: '6', expected a number"),
        (MOONCAKE.replace("1024", "0"), "t:2: field input_length: 0, expected at least 1"),
        (MOONCAKE.replace("1024", "1.5"), "t:2: field input_length: 1.5, expected a number of tokens"),
        (
            MOONCAKE.replace("[0, 1]", "[0, 1, 2]"),
            "t:2: field hash_ids: 3 blocks, expected at most 2 for 1024 prompt tokens",
        ),
        (MOONCAKE.replace("[0, 1]", "[0, -1]"), "t:2: field hash_ids: expected a list of ids of at least 0"),
        (MOONCAKE.replace(', "hash_ids": [0, 1]}', "}"), "t:2: field hash_ids: missing"),
        (
            MOONCAKE.replace("input_length", "inputs"),
            "t:1: field input_length: missing, expected it in a trace of mooncake",
        ),
        (MOONCAKE + "[1]\n", r"t:4: '\[1\]', expected a JSON object"),
        ('{"a": 1}', "t:1: .* begins no known trace, expected one of azure"),
    ],
)
def test_broken_files_get_one_line_with_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InstanceError, match=message) as caught:
        read_workload(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_no_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(AZURE.encode() + b"\xff\n")
    with pytest.raises(InstanceError, match=r"t:4: not UTF-8 text"):
        read_workload(path)
    with pytest.raises(InstanceError, match=r"none: cannot be read: No such file"):
        read_workload(tmp_path / "none")
    with pytest.raises(UnknownNameError, match="unknown kind of trace 'azur'; closest: azure"):
        path.write_text(AZURE)
        read_workload(path, "azur")


def test_empty_requests_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(AZURE + "2023-11-16 18:15:51.0,12,0\n")
    with pytest.warns(UserWarning, match="t: 1 requests without prompt or output tokens left out"):
        assert read_workload(path, skip_empty=True).requests == 2


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(1, 5000), st.integers(1, 900)), min_size=1, max_size=20
    ).map(sorted)
)
def test_what_is_written_is_read_back(
    rows: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("traces")
    (folder / "v").write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(f"{t / 1000},{i},{o}\n" for t, i, o in rows)
    )
    lines = [
        {"timestamp": t, "input_length": i, "output_length": o, "hash_ids": list(range(-(-i // 512)))}
        for t, i, o in rows
    ]
    (folder / "m").write_text("\n".join(map(json.dumps, lines)))
    for name in ("v", "m"):
        workload = read_workload(folder / name)
        np.testing.assert_allclose(workload.arrival_s, [(t - rows[0][0]) / 1000 for t, _, _ in rows], atol=1e-6)
        assert workload.prompt_tokens.tolist() == [i for _, i, _ in rows]
        assert workload.output_tokens.tolist() == [o for _, _, o in rows]
    assert np.diff(workload.block_start).tolist() == [i // 512 for _, i, _ in rows]


@NEEDS_DATA
def test_the_real_traces_have_the_published_figures() -> None:
    root = Path(os.environ["SCHEDRL_DATA"], "routing")
    azure = read_workload(root / "azure" / "AzureLLMInferenceTrace_conv.csv")
    assert azure.requests == 19_366
    assert azure.duration_s == pytest.approx(3501.721937)
    assert azure.prompt_tokens.mean() == pytest.approx(1154.697, abs=1e-3)
    assert azure.output_tokens.mean() == pytest.approx(211.126, abs=1e-3)
    recut = read_workload(root / "vidur" / "processed_traces" / "splitwise_conv.csv")
    assert (recut.prompt_tokens == azure.prompt_tokens).all()
    np.testing.assert_allclose(recut.arrival_s, azure.arrival_s, atol=2e-6)
    mooncake = read_workload(root / "mooncake" / "conversation_trace.jsonl")
    assert (mooncake.requests, mooncake.duration_s) == (12_031, pytest.approx(3536.999))
    assert mooncake.prompt_tokens.mean() == pytest.approx(12_035.06, abs=0.01)
    assert mooncake.output_tokens.mean() == pytest.approx(342.62, abs=0.01)
    assert prefix_hit_share(mooncake) == pytest.approx(0.3734, abs=1e-3)
    # The reference run's most possible with prompts cut at 20480: 39.1 %, of blocks.
    assert prefix_hit_share(clipped(mooncake, 20480)) == pytest.approx(0.388, abs=1e-3)
    chats = read_workload(root / "vidur_a30" / "sharegpt_val_10k_llama2_lengths.csv", requests_per_s=1.0)
    assert chats.requests == 10_000
    served = read_workload(root / "llmservingsim" / "sharegpt-llama-3.1-8b-300-sps10.lengths_hash16.jsonl")
    assert (served.requests, served.block_tokens) == (300, 16)


@NEEDS_DATA
def test_infinite_cache_hits_of_mooncake_count_every_listed_block() -> None:
    # The published 36.6 % counts blocks that are not full too, which the reader drops.
    path = Path(os.environ["SCHEDRL_DATA"], "routing", "mooncake", "conversation_trace.jsonl")
    seen: set[int] = set()
    total = 0
    for line in path.read_text().splitlines():
        ids = json.loads(line)["hash_ids"]
        total += len(ids)
        seen.update(ids)
    assert 1 - len(seen) / total == pytest.approx(0.366, abs=5e-4)


def test_kinds_are_listed() -> None:
    assert KINDS == ("azure", "burstgpt", "vidur", "lengths", "mooncake", "llmservingsim")
