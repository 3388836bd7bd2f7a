"""Routers of requests, and the choice of the fleets they route to."""
