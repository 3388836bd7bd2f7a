"""Devices, the links between them, the layers of their memory, and how long work and transfers take on them."""

from schedrl.devices.catalogue import CatalogueEntry, Figure, get_device, load_catalogue
from schedrl.devices.cluster import (
    Cluster,
    ClusterNode,
    cluster_from_dict,
    cluster_to_dict,
    uniform_cluster,
)
from schedrl.devices.collectives import all_reduce_s, all_reduce_table, load_all_reduce_tables
from schedrl.devices.language_model import LanguageModel, get_language_model, load_language_models
from schedrl.devices.memories import MemoryEntry, get_memory_device, load_memories
from schedrl.devices.memory import MemoryDevice, MemoryLayer, memory_device_from_dict
from schedrl.devices.platform import Device, Link, Platform, PowerState
from schedrl.devices.serialisation import platform_from_dict, platform_to_dict
from schedrl.devices.serving import kv_capacity_tokens, serving_rates, serving_row
from schedrl.devices.serving_time import ServingRates

__all__ = [
    "CatalogueEntry",
    "Cluster",
    "ClusterNode",
    "Device",
    "Figure",
    "LanguageModel",
    "Link",
    "MemoryDevice",
    "MemoryEntry",
    "MemoryLayer",
    "Platform",
    "PowerState",
    "ServingRates",
    "all_reduce_s",
    "all_reduce_table",
    "cluster_from_dict",
    "cluster_to_dict",
    "get_device",
    "get_language_model",
    "get_memory_device",
    "kv_capacity_tokens",
    "load_all_reduce_tables",
    "load_catalogue",
    "load_language_models",
    "load_memories",
    "memory_device_from_dict",
    "platform_from_dict",
    "platform_to_dict",
    "serving_rates",
    "serving_row",
    "uniform_cluster",
]
