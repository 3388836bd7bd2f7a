"""Devices, the links between them, the layers of their memory, and how long work and transfers take on them."""

from schedrl.devices.catalogue import CatalogueEntry, Figure, get_device, load_catalogue
from schedrl.devices.cluster import (
    Cluster,
    ClusterNode,
    cluster_from_dict,
    cluster_to_dict,
    uniform_cluster,
)
from schedrl.devices.memories import MemoryEntry, get_memory_device, load_memories
from schedrl.devices.memory import MemoryDevice, MemoryLayer, memory_device_from_dict
from schedrl.devices.platform import Device, Link, Platform, PowerState
from schedrl.devices.serialisation import platform_from_dict, platform_to_dict

__all__ = [
    "CatalogueEntry",
    "Cluster",
    "ClusterNode",
    "Device",
    "Figure",
    "Link",
    "MemoryDevice",
    "MemoryEntry",
    "MemoryLayer",
    "Platform",
    "PowerState",
    "cluster_from_dict",
    "cluster_to_dict",
    "get_device",
    "get_memory_device",
    "load_catalogue",
    "load_memories",
    "memory_device_from_dict",
    "platform_from_dict",
    "platform_to_dict",
    "uniform_cluster",
]
