"""ISO 9660 images: directory tree, Rock Ridge attributes, El Torito boot images."""
