"""How much memory a node needs while it boots and runs, and how much its file systems in memory can hold."""

from pxe_pack.node_memory.model import NodeMemory, Space, node_memory
from pxe_pack.node_memory.table import document, lines

__all__ = ["NodeMemory", "Space", "document", "lines", "node_memory"]
