"""The commands other than packing, one module each: `add_arguments` declares the arguments, `run` runs the command."""
