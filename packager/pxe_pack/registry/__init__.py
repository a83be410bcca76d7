"""Layouts and artifacts in container registries (docs/registry.md)."""
