"""Install verified downloads: files, decompressed files, trees; and the disk space that they need."""
