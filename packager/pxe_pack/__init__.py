"""The packager: puts the agent into a LiveOS image and exports a PXE layout ready to serve."""
