"""Run by QEMU's slirp for each connection of the node: gives the connection (our fd 0) to the server, and ends.

Arguments: the server's Unix socket, the address that the node connected to. A program of its own, started with
`python -I -S`, because it has to be up in milliseconds; so it imports nothing of ours.
"""

import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [sys.argv[2].encode()], [0])
