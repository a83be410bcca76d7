"""An exported layout: its files, its boot entries, server configurations, and relocation to other URLs."""
