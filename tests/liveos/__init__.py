"""Builds the LiveOS images that the tests and the quickstart boot: real ISOs in Image Customizer's layout.

`shapes` is the face: `shapes.cached(shapes.SHAPES["tiny"])` gives an ISO to read, `shapes.build(…)` writes one.
"""
