"""The words that options and keys of `pack` have a choice of. Apart, so that the parser needs nothing else."""

INJECTORS = ("auto", "rootfs", "updates", "initrd")
VERIFY_ISO = ("auto", "true", "false")
COMPRESSORS = ("gzip", "xz", "zstd")  # that a root filesystem can be given
CHAINS = ("db", "shim")  # what starts a signed boot: the firmware, by its `db`, or a shim, by its MOK list
