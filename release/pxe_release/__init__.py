"""A release of one commit: sdist, wheel, Debian package, container image, SBOM, checksums, signature."""
