"""Play an exported policy with numpy and onnxruntime; no torch.

``encoder.onnx`` embeds one graph: node_features (N, Fn) f32, edge_index (2, E) i64, edge_type (E,) i64 ->
node_embeddings (N, k, D), graph_embedding (1, D). ``decoder.onnx`` scores the valid candidates of B decisions,
flattened to R rows: node_embeddings (N, k, D) and graph_embeddings (G, D) of all graphs end to end,
row_decision (R,) i64, row_nodes (R, k) i64, row_features (R, Fc) f32, decision_graph (B,) i64,
context (B, Fg) f32 -> logits (R,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from schedrl.arrays import F32, I32, I64
from schedrl.errors import BundleError, ConfigError, UnknownNameError
from schedrl.export.manifest import DECODER, ENCODER, Manifest, feature_difference, read_archive
from schedrl.graphs import DecisionBatch, StaticGraph

__all__ = ["BundlePolicy", "Embedding", "load", "open_sessions"]


class Embedding(NamedTuple):
    """What the encoder makes of one graph."""

    nodes: F32  # (N, k, D) contribution of a node in each of the k places of a candidate
    graph: F32  # (D,) contribution of the whole graph


def load(path: Path | str, *, family: str | None = None, threads: int = 1) -> BundlePolicy:
    """Return the policy in a bundle.

    Args:
        path: a ``.schedrl`` file.
        family: refuse policies of another family.
        threads: onnxruntime threads per call; networks are too small to gain from more, except in big batches.

    Raises:
        BundleError: unreadable, damaged or of a newer schema, of another family, or trained on features that
            differ from those of the installed family.
    """
    manifest, members = read_archive(path)
    if family is not None and manifest.family != family:
        raise BundleError(f"{path}: a policy of family {manifest.family!r}, expected {family!r}")
    _require_installed_features(manifest, str(path))
    return BundlePolicy(manifest, open_sessions(members, threads=threads, source=str(path)))


class BundlePolicy:
    """An exported policy; see ``schedrl.schedulers.Policy`` for the contract of ``begin`` and ``select``.

    The episodes prepared by ``begin`` belong to the object. ``session`` gives an independent object on the
    same networks, one for each thread or for each set of running episodes.
    """

    def __init__(self, manifest: Manifest, sessions: Mapping[str, onnxruntime.InferenceSession]) -> None:
        self._manifest, self._sessions = manifest, sessions
        self._embeddings: Mapping[str, F32] = {}
        self._graph: I64 = np.zeros(0, dtype=np.int64)  # (B,) graph of each row
        self._first_node: I64 = np.zeros(0, dtype=np.int64)  # (B,)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about the policy."""
        return self._manifest

    def session(self) -> BundlePolicy:
        """Return a policy without episodes that shares the networks; costs nothing."""
        return BundlePolicy(self._manifest, self._sessions)

    def encode(self, graph: StaticGraph) -> Embedding:
        """Embed one graph.

        Raises:
            BundleError: the graph has another number of node features.
        """
        expected = len(self._manifest.features.node)
        if graph.node_features.shape[1:] != (expected,):
            raise BundleError(f"graph: node features of shape {graph.node_features.shape}, expected (N, {expected})")
        nodes, whole = self._sessions[ENCODER].run(
            None,
            {
                "node_features": np.ascontiguousarray(graph.node_features, dtype=np.float32),
                "edge_index": graph.edge_index.astype(np.int64),
                "edge_type": graph.edge_type.astype(np.int64),
            },
        )
        return Embedding(nodes, whole[0])

    def begin(self, graphs: Sequence[StaticGraph]) -> None:
        """Encode every distinct graph object once; row b of later calls belongs to ``graphs[b]``."""
        distinct = {id(graph): graph for graph in graphs}
        number = {key: position for position, key in enumerate(distinct)}
        encoded = [self.encode(graph) for graph in distinct.values()]
        ends = np.cumsum([len(embedding.nodes) for embedding in encoded], dtype=np.int64)
        self._graph = np.array([number[id(graph)] for graph in graphs], dtype=np.int64)
        self._first_node = np.concatenate([[0], ends[:-1]]).astype(np.int64)[self._graph]
        self._embeddings = {
            "node_embeddings": np.concatenate([embedding.nodes for embedding in encoded]),
            "graph_embeddings": np.stack([embedding.graph for embedding in encoded]),
        }

    def logits(self, decision: DecisionBatch) -> F32:
        """Return (B, C) logits, -inf where a slot holds no candidate.

        Raises:
            BundleError: another number of rows than ``begin`` got, or of features than the policy expects.
        """
        self._require_shapes(decision)
        valid = np.arange(decision.candidates.shape[1]) < decision.count[:, None]
        logits: F32 = np.full(valid.shape, -np.inf, dtype=np.float32)
        row = np.repeat(np.arange(len(valid), dtype=np.int64), decision.count)
        if len(row):
            logits[valid] = self._sessions[DECODER].run(
                None,
                {
                    **self._embeddings,
                    "row_decision": row,
                    "row_nodes": decision.candidates[valid] + self._first_node[row, None],
                    "row_features": decision.candidate_features[valid],
                    "decision_graph": self._graph,
                    "context": np.ascontiguousarray(decision.context),
                },
            )[0]
        return logits

    def select(self, decision: DecisionBatch, rng: np.random.Generator | None = None, temperature: float = 1.0) -> I32:
        """Return the chosen slot of every row (B,), -1 for rows without candidates.

        Args:
            decision: one decision per row.
            rng: None for the best candidate, the lowest slot among equals; otherwise samples from the softmax.
            temperature: the logits are divided by it before sampling; below 1 sharpens.

        Raises:
            BundleError: see ``logits``.
            ConfigError: the temperature is not positive.
        """
        if not temperature > 0.0:
            raise ConfigError(f"temperature: {temperature}, expected above 0; rng=None plays greedily")
        logits = self.logits(decision)
        # The maximum after Gumbel noise is a draw from the softmax.
        scores = logits if rng is None else logits / temperature + rng.gumbel(size=logits.shape)
        action: I32 = scores.argmax(axis=1).astype(np.int32)
        action[decision.count == 0] = -1
        return action

    def _require_shapes(self, decision: DecisionBatch) -> None:
        features, rows = self._manifest.features, len(self._graph)
        found = (len(decision.count), decision.candidate_features.shape[2], decision.context.shape[1])
        expected = (rows, len(features.candidate), len(features.context))
        if found != expected:
            raise BundleError(f"decision: (rows, candidate features, context features) {found}, expected {expected}")


def open_sessions(members: Mapping[str, bytes], *, threads: int, source: str) -> dict[str, Any]:
    """Return an onnxruntime session per member; raises BundleError where it cannot run one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads burn the cores that the scheduled work itself needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = {}
    for name, content in members.items():
        try:
            sessions[name] = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen kinds
            raise BundleError(f"{source}: {name}: onnxruntime cannot load it: {' '.join(str(error).split())}") from None
    return sessions


def _require_installed_features(manifest: Manifest, source: str) -> None:
    from schedrl.families import family_names, get_family

    if manifest.family.partition(":")[0] not in family_names():
        known = ", ".join(family_names())
        raise BundleError(f"{source}: a policy of family {manifest.family!r}, which is none of {known}")
    try:
        installed = get_family(manifest.family).features
    except UnknownNameError as error:
        raise BundleError(f"{source}: a policy of {error}") from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("schedrl"):
            raise
        # Without the family's own dependencies nothing here can build observations, right ones or wrong ones.
        return
    difference = feature_difference(manifest.features, installed)
    if difference is not None:
        raise BundleError(f"{source}: trained on other features than this version's {manifest.family}: {difference}")
