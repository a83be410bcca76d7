"""Run by QEMU's slirp (`guestfwd`) for each connection of the node: passes the connection, fd 0, to the server.

Arguments: the server's Unix socket, and the address the node connected to. It is a script of its own, started with
`python -I -S`, because it has to start within milliseconds; it therefore imports nothing of ours.
"""

import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [sys.argv[2].encode()], [0])
