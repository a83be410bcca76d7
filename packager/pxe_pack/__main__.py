"""`python -m pxe_pack`."""

from pxe_pack.cli import main

raise SystemExit(main())
