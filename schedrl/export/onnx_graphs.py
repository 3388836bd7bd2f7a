"""The policy network as two ONNX graphs; ``schedrl.export.runtime`` documents their inputs and outputs."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from schedrl.export.manifest import DECODER, ENCODER
from schedrl.graphs import FeatureTable
from schedrl.policies.network import Decisions, Embeddings, PolicyNetwork, Rows

__all__ = ["OPSET", "to_onnx"]

OPSET = 20


def to_onnx(network: PolicyNetwork, features: FeatureTable) -> dict[str, bytes]:
    """Return encoder and decoder as serialised ONNX models, by member name; equal weights give equal bytes."""
    # Tracing must neither move nor change a network that may be in training.
    network = copy.deepcopy(network).cpu().eval()
    encoder, decoder = _Encoder(network), _Decoder(network)
    return {
        ENCODER: _export(encoder, _encoder_inputs(features), _ENCODER_SHAPES, ["node_embeddings", "graph_embedding"]),
        DECODER: _export(decoder, _decoder_inputs(network, features), _DECODER_SHAPES, ["logits"]),
    }


class _Encoder(nn.Module):
    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_type: Tensor) -> tuple[Tensor, Tensor]:
        node_graph = torch.zeros_like(node_features[:, 0], dtype=torch.int64)
        embeddings = self.network.encode(node_features, edge_index, edge_type, node_graph, 1)
        return embeddings.nodes, embeddings.graphs


class _Decoder(nn.Module):
    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        node_embeddings: Tensor,
        graph_embeddings: Tensor,
        row_decision: Tensor,
        row_nodes: Tensor,
        row_features: Tensor,
        decision_graph: Tensor,
        context: Tensor,
    ) -> Tensor:
        # Gathering the rows' own embeddings first keeps the cost of a decision independent of the graph's size;
        # the network's indexing by place would copy whole columns of the embedding table.
        places = self.network.places
        own = node_embeddings.flatten(0, 1)[row_nodes * places + torch.arange(places)]
        nodes = torch.arange(row_nodes.shape[0])[:, None].expand(-1, places)
        logits, _ = self.network.decode(
            Embeddings(own, graph_embeddings),
            Rows(row_decision, nodes, row_features),
            Decisions(decision_graph, context),
        )
        return logits


# The least size of a dynamic dimension only steers tracing; the graphs run with sizes 0 and 1 as well.
_NODES, _EDGES = Dim("nodes", min=2), Dim("edges", min=2)
_GRAPHS, _ROWS, _DECISIONS = Dim("graphs", min=2), Dim("rows", min=2), Dim("decisions", min=2)
_ENCODER_SHAPES = {"node_features": {0: _NODES}, "edge_index": {1: _EDGES}, "edge_type": {0: _EDGES}}
_DECODER_SHAPES = {
    "node_embeddings": {0: _NODES},
    "graph_embeddings": {0: _GRAPHS},
    "row_decision": {0: _ROWS},
    "row_nodes": {0: _ROWS},
    "row_features": {0: _ROWS},
    "decision_graph": {0: _DECISIONS},
    "context": {0: _DECISIONS},
}


def _encoder_inputs(features: FeatureTable) -> tuple[Tensor, ...]:
    nodes, edges = 11, 29
    index = torch.arange(2 * edges).reshape(2, edges) % nodes
    return torch.zeros(nodes, len(features.node)), index, torch.arange(edges) % max(len(features.edge_types), 1)


def _decoder_inputs(network: PolicyNetwork, features: FeatureTable) -> tuple[Tensor, ...]:
    nodes, graphs, rows, decisions, places = 11, 3, 17, 5, network.places
    width = network.config.candidate_width
    return (
        torch.zeros(nodes, places, width),
        torch.zeros(graphs, width),
        torch.arange(rows) % decisions,
        torch.arange(rows * places).reshape(rows, places) % nodes,
        torch.zeros(rows, len(features.candidate)),
        torch.arange(decisions) % graphs,
        torch.zeros(decisions, len(features.context)),
    )


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], shapes: Mapping[str, Mapping[int, Any]], outputs: list[str]
) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: dict(dimensions) for name, dimensions in shapes.items()},
            input_names=list(shapes),
            output_names=outputs,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model: Any = program.model_proto
    _strip(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(model: Any) -> None:
    """Remove the exporter's notes: source paths and stack traces of the exporting machine."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on packages that are not installed and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    children = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("torch.onnx")]
    levels = [(one, one.level) for one in (logger, *children)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one, _ in levels:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in levels:
                one.setLevel(level)
