"""The collector: takes nodes' reports, reads the servers' logs, and shows every node on a page.

It needs the dependencies of `pxe-pack[serve]`, so nothing else in pxe-pack imports it (docs/decisions/0046). Run it
as `pxe-pack-collector`; docs/collector.md describes it.
"""
