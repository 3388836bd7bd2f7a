"""Tracing: worked functions with every operation written out, mutation, views, training steps, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from schedrl import cli, families  # noqa: E402
from schedrl.devices.memories import get_memory_device  # noqa: E402
from schedrl.envs import memmap  # noqa: E402
from schedrl.envs.memmap.formats import read_instance  # noqa: E402
from schedrl.envs.memmap.fusion import fuse  # noqa: E402
from schedrl.envs.memmap.instance import MemoryMapInstance  # noqa: E402
from schedrl.envs.memmap.torch_target import trace_target  # noqa: E402
from schedrl.envs.memmap.trace import trace, trace_module  # noqa: E402
from schedrl.errors import ConfigError  # noqa: E402

functional = torch.nn.functional


def described(program: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """Label, operands and results of every operation, buffers by label."""
    name = [buffer["label"] for buffer in program["buffers"]]
    return [(o["label"], [name[b] for b in o["reads"]], [name[b] for b in o["writes"]]) for o in program["ops"]]


def outputs(program: dict[str, Any]) -> list[str]:
    return [buffer["label"] for buffer in program["buffers"] if buffer.get("output")]


def test_a_product_and_a_view_by_hand() -> None:
    def function(x: Any, w: Any) -> Any:
        return (x @ w).view(6, 2).relu()

    program = trace(function, torch.zeros(3, 5), torch.zeros(5, 4), name="hand", labels=["x", "w"])
    assert described(program) == [("mm", ["x", "w"], ["mm"]), ("relu", ["mm"], ["relu"])]
    assert [buffer["size"] for buffer in program["buffers"]] == [60, 80, 48, 48]
    assert [buffer["elements"] for buffer in program["buffers"]] == [15, 20, 12, 12]
    assert [o["flops"] for o in program["ops"]] == [2 * 3 * 5 * 4, 0]
    assert [o.get("pointwise", False) for o in program["ops"]] == [False, True]
    assert outputs(program) == ["relu"]


def test_a_view_moves_only_what_it_shows() -> None:
    def function(x: Any, table: Any, rows: Any) -> Any:
        return x[2:4].exp() + functional.embedding(rows, table) + x[:1].expand(2, 4)

    program = trace(
        function,
        torch.zeros(8, 4),
        torch.zeros(1000, 4),
        torch.zeros(2, dtype=torch.long),
        labels=["x", "table", "rows"],
    )
    assert described(program)[:2] == [("exp", ["x"], ["exp"]), ("embedding", ["table", "rows"], ["embedding"])]
    assert [o.get("read_bytes") for o in program["ops"]] == [[32], [32, 16], None, [32, 16]]


def test_two_parts_of_one_buffer_are_one_operand() -> None:
    program = trace(lambda x: x[:2] * x[2:4] + x[:2] * x[:2], torch.zeros(8, 4), labels=["x"])
    assert [(o["label"], o["reads"], o.get("read_bytes")) for o in program["ops"][:2]] == [
        ("mul", [0], [64]),
        ("mul_1", [0], [32]),
    ]


def test_a_change_in_place_defines_a_new_buffer() -> None:
    def function(x: Any) -> Any:
        y = x.exp()
        y.add_(1)
        y[0].zero_()
        x.copy_(y)
        return y.sum()

    program = trace(function, torch.zeros(4, 4), labels=["x"])
    assert described(program) == [
        ("exp", ["x"], ["exp"]),
        ("add_", ["exp"], ["add_"]),
        ("zero_", ["add_"], ["zero_"]),
        ("copy_", ["zero_"], ["copy_"]),
        ("sum_1", ["zero_"], ["sum_1"]),
    ]
    assert outputs(program) == ["copy_", "sum_1"]  # the new value of x is one


def test_what_nothing_uses_is_left_out() -> None:
    def function(x: Any, unused: Any) -> Any:
        x.exp()
        return functional.layer_norm(x, (4,))

    program = trace(function, torch.zeros(2, 4), torch.zeros(3), labels=["x", "unused"])
    assert described(program) == [("native_layer_norm", ["x"], ["native_layer_norm"])]


def test_an_output_may_be_a_view_and_inputs_may_be_nested() -> None:
    program = trace(lambda d: {"a": [d["x"].exp().t()]}, {"x": torch.zeros(2, 3)}, labels=["x"])
    assert outputs(program) == ["exp"]


def test_random_bits_are_drawn_once_and_not_recomputed() -> None:
    def step(x: Any) -> Any:
        y = functional.dropout(x, 0.5, training=True)
        return y.relu() + y.exp()

    labels = [o["label"] for o in fuse(trace(step, torch.zeros(4, 4)))["ops"]]
    assert sum("bernoulli_" in label for label in labels) == 1


def test_attention_counts_two_products() -> None:
    size = (2, 3, 16, 8)
    program = trace(functional.scaled_dot_product_attention, *(torch.zeros(size) for _ in range(3)))
    assert sum(o["flops"] for o in program["ops"]) == 2 * (2 * 2 * 3 * 16 * 16 * 8)


class Scaled(torch.nn.Module):
    """A linear layer, a constant that is no parameter, a frozen parameter and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3, bias=False)
        self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        self.constant = torch.ones(3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: Any) -> Any:
        if self.training:
            self.seen.add_(1)
        return self.linear(x) * self.frozen * self.constant


def test_a_module_in_inference() -> None:
    program = trace_module(Scaled(), (torch.zeros(2, 4),), name="scaled")
    assert program["name"] == "scaled"
    assert described(program) == [
        ("mm", ["input.0", "linear.weight"], ["mm"]),
        ("mul", ["mm", "frozen"], ["mul"]),
        ("mul_1", ["mul", "_tensor_constant0"], ["mul_1"]),
    ]
    sizes = {buffer["label"]: buffer["size"] for buffer in program["buffers"]}
    assert (sizes["linear.weight"], sizes["input.0"]) == (3 * 4 * 2, 2 * 4 * 2)  # bfloat16


def test_a_training_step_has_loss_gradient_and_update() -> None:
    program = trace_module(
        Scaled(),
        {"x": torch.zeros(2, 4)},
        train=True,
        loss=functional.mse_loss,
        targets=(torch.zeros(2, 3),),
        dtype="float32",
    )
    names = [o["label"] for o in program["ops"]]
    assert [name for name in names if name.startswith("mm")] == ["mm", "mm_1"]  # no gradient in the input
    assert outputs(program) == ["add_", "mse_loss", "sub"]  # buffer, loss, the one parameter that is trained
    update = next(o for o in described(program) if o[0] == "sub")
    assert update[1][0] == "linear.weight"
    assert {"input.x", "target.0", "seen"} <= {buffer["label"] for buffer in program["buffers"]}


def test_statistics_of_batch_norm_are_updated_in_training_only() -> None:
    inputs = (torch.zeros(2, 3, 4, 4),)
    infer = trace_module(torch.nn.BatchNorm2d(3), inputs)
    assert [o.get("pointwise") for o in infer["ops"]] == [True]
    assert len(infer["ops"][0]["reads"]) == 5
    train = trace_module(torch.nn.BatchNorm2d(3), inputs, train=True)
    norm = next(o for o in train["ops"] if o["label"] == "native_batch_norm")
    assert "pointwise" not in norm
    assert len(norm["writes"]) == 5  # both statistics, the result, and mean and deviation for its gradient
    backward = next(o for o in train["ops"] if o["label"] == "native_batch_norm_backward")
    assert len(backward["reads"]) == 5  # gradient, input, weight, mean and deviation, but no statistics
    assert [b["label"] for b in train["buffers"] if b.get("output")][:2] == ["add_", "native_batch_norm"]


def test_tied_weights_are_one_buffer() -> None:
    first, second = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    program = trace_module(torch.nn.Sequential(first, second), (torch.zeros(2, 4),))
    assert [buffer["label"] for buffer in program["buffers"]][:2] == ["0.weight", "input.0"]


def test_modules_of_torch_itself_trace_with_training_and_fusion() -> None:
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 2)
            self.lstm = torch.nn.LSTM(32, 16, batch_first=True)

        def forward(self, x: Any) -> Any:
            return {"sequence": self.lstm(self.encoder(x))[0]}

    memory = get_memory_device("tpu-v4i")
    for train in (False, True):
        program = trace_module(Mixed(), (torch.zeros(2, 8, 32),), train=train)
        fused = fuse(program)
        before, after = (MemoryMapInstance.from_program(data, memory=memory) for data in (program, fused))
        assert after.ops < before.ops
        assert after.flops.sum() == before.flops.sum()
        assert after.access_bytes.sum() < before.access_bytes.sum()


@pytest.mark.parametrize("dtype", ["int8", "bfloat", "nn"])
def test_unknown_types_are_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"field dtype: '{dtype}'"):
        trace_module(Scaled(), (torch.zeros(2, 4),), dtype=dtype)


def test_a_module_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(ConfigError, match="no parameter to train"):
        trace_module(torch.nn.ReLU(), (torch.zeros(2),), train=True)


USER_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]  # needs values: no fake construction

    def forward(self, x):
        return self.linear(x).relu()

class Tokens(nn.Embedding):
    def __init__(self):
        super().__init__(50, 8)

class Branch(Net):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

class Select(Net):
    def forward(self, x):
        return x[x > 0]

class Wrong(Net):
    def forward(self, x):
        return self.linear(x.t())

def example(batch, width=4):
    return Net(), torch.zeros(batch, width)

def trained(batch):
    return Net(), [torch.zeros(batch, 4)], nn.functional.mse_loss, torch.zeros(batch, 3)

def alone(batch):
    return Net()

def nothing():
    return 3

def bad_loss(batch):
    return Net(), torch.zeros(batch, 4), "loss"

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a user's modules."""
    (tmp_path / "user_nets.py").write_text(USER_MODULE)
    (tmp_path / "user_needs.py").write_text("import a_module_that_is_nowhere\n")
    (tmp_path / "user_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("user_nets", "user_needs", "user_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``schedrl memmap trace ...``: exit code, stdout, stderr."""
    monkeypatch.setitem(families._FAMILIES, "memmap", "schedrl.envs.memmap.family:FAMILY")
    monkeypatch.setattr(memmap, "COMMANDS", {"trace": "schedrl.envs.memmap.commands:trace"}, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["memmap", "trace", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_the_command_writes_a_program_that_reads_back(folder: Path, command: Command) -> None:
    code, out, err = command("user_nets:example", "--batch", "5", "--capacity-mib", "2", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["file"] == "example-infer.mmap.json"
    assert (facts["operations"], facts["flops"], facts["capacity_bytes"]) == (1, 2 * 5 * 4 * 3, 2 << 20)
    instance = read_instance(folder / facts["file"])
    assert isinstance(instance, MemoryMapInstance)
    assert instance.op_labels == ("addmm+relu",)
    assert instance.buffer_labels == ("linear.weight", "linear.bias", "input.0", "relu")


def test_options_of_the_command(folder: Path, command: Command) -> None:
    assert command("user_nets:example", "--batch", "5", "--no-fuse", "--out", "sub/a.mmap.json")[0] == 0
    apart = read_instance("sub/a.mmap.json")
    assert isinstance(apart, MemoryMapInstance) and apart.ops == 2
    assert command("user_nets:trained", "--batch", "5", "--train", "--dtype", "float32", "--device", "tpu-v5e")[0] == 0
    trained = read_instance("trained-train.mmap.json")
    assert isinstance(trained, MemoryMapInstance)
    assert (trained.memory.name, int(trained.output.sum())) == ("tpu-v5e", 3)  # loss, weight, bias
    assert command("user_nets:Net", "--input-shape", "6x4")[0] == 0
    assert command("user_nets:Tokens", "--input-shape", "2x7:int64")[0] == 0
    tokens = read_instance("Tokens-infer.mmap.json")
    assert isinstance(tokens, MemoryMapInstance) and tokens.access_bytes is not None
    assert tokens.access_bytes.tolist() == [2 * 7 * 8 * 2, 2 * 7 * 8, 2 * 7 * 8 * 2]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["user_nets"], ["user_nets: expected module:function"]),
        (["user_nowhere:f"], ["no module named user_nowhere in "]),
        (["user_needs:f"], ["user_needs needs the module a_module_that_is_nowhere"]),
        (["user_broken:f"], ["importing user_broken failed: ZeroDivisionError"]),
        (["user_nets:absent"], ["user_nets has no attribute absent"]),
        (["user_nets:number"], ["number is not callable, but a int"]),
        (["user_nets:nothing"], ["it returned int, expected (module, inputs)"]),
        (["user_nets:alone", "--batch", "2"], ["a module alone", "--input-shape"]),
        (["user_nets:bad_loss", "--batch", "2"], ["it returned str for a loss"]),
        (["user_nets:example"], ["calling it with () failed: TypeError"]),
        (["user_nets:example", "--batch", "2", "--set", "hight=3"], ["unexpected keyword argument 'hight'"]),
        (["user_nets:example", "--batch", "2", "--input-shape", "2x4"], ["--input-shape is for modules"]),
        (["user_nets:Net", "--input-shape", "2xa"], ["--input-shape 2xa: expected sizes"]),
        (["user_nets:Net", "--input-shape", "2x4:zeros"], ["--input-shape 2x4:zeros"]),
        (["user_nets:example", "--batch", "2", "--dtype", "int8"], ["field dtype: 'int8'"]),
        (["user_nets:example", "--batch", "2", "--device", "tpu-v9"], ["unknown memory device 'tpu-v9'"]),
        (["user_nets:example", "--batch", "2", "--capacity-mib", "0"], ["--capacity-mib 0"]),
        (["user_nets:Branch", "--input-shape", "2x4"], ["aten._local_scalar_dense", "user_nets.py:20"]),
        (["user_nets:Select", "--input-shape", "2x4"], ["aten.nonzero depends on the values", "user_nets.py:24"]),
        (["user_nets:Wrong", "--input-shape", "2x4"], ["tracing failed: RuntimeError", "user_nets.py:28"]),
    ],
)
def test_errors_take_one_line(folder: Path, command: Command, arguments: list[str], fragments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for fragment in fragments:
        assert fragment in err


def test_without_torch_the_command_says_what_to_install(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoTorch:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == "torch":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])
    for name in [key for key in sys.modules if key.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = command("user_nets:example", "--batch", "2")
    assert code == 2
    assert err == "error: this needs the module torch: pip install 'schedrl[train]'\n"


def test_importing_the_tracer_does_not_import_torch() -> None:
    check = (
        "import sys, schedrl.envs.memmap.programs, schedrl.envs.memmap.commands, schedrl.envs.memmap.torch_target;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_target_is_traced_without_allocating_its_weights() -> None:
    # A terabyte of weights: construction under the fake mode allocates none of them.
    program = trace_target(
        "schedrl.envs.memmap.models.mlp:mlp", options={"batch": 8, "width": 400_000, "layers": 3, "classes": 10}
    )
    assert max(buffer["size"] for buffer in program["buffers"]) == 400_000**2 * 2
