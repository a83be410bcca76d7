"""The agent: fetches a node's artifacts at boot, verifies them, and places them all or nothing."""

__version__ = "0.2.0"
