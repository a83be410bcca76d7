"""The commands beside packing, a module each: `add_arguments` declares what it takes, `run` does it."""
