"""`fetch.lock`: the digests of artifacts that have none in `fetch.yaml` (docs/decisions/0039)."""
