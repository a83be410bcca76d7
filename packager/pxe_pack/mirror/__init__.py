"""A folder with everything that a configuration fetches, for sites without the internet (docs/decisions/0052)."""
