"""Devices, the links between them, and how long work and transfers take on them."""

from schedrl.devices.catalogue import CatalogueEntry, Figure, get_device, load_catalogue
from schedrl.devices.platform import Device, Link, Platform, PowerState
from schedrl.devices.serialisation import platform_from_dict, platform_to_dict

__all__ = [
    "CatalogueEntry",
    "Device",
    "Figure",
    "Link",
    "Platform",
    "PowerState",
    "get_device",
    "load_catalogue",
    "platform_from_dict",
    "platform_to_dict",
]
