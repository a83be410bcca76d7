"""The words that options and keys of `pack` have a choice of. Apart, so that the parser needs nothing else."""

AUTO = "auto"
INJECTORS = (AUTO, "rootfs", "updates", "initrd")
VERIFY_ISO = (AUTO, "true", "false")
COMPRESSORS = ("gzip", "xz", "zstd")  # that a root filesystem can be given
CHAINS = ("db", "shim")  # what starts a signed boot: the firmware, by its `db`, or a shim, by its MOK list

# Of a node, as the collector has it: how far it has come, in this order, and how it is.
STAGES = ("DHCP", "shim", "GRUB", "kernel", "initrd", "ISO", "agent", "artifacts", "units", "done")
STATES = ("failed", "silent", "degraded", "booting", "fetching", "done")
ENDED = ("done", "degraded", "failed")
