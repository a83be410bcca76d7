"""Initrds: the archives they consist of, what they can do, and what pxe-pack appended to them."""
