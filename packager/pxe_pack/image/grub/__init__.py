"""GRUB: its configuration made fit for the network, its script language, and what its EFI program contains."""
