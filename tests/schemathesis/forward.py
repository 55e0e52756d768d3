"""Forwards TCP connections to a Unix socket: what tests the interface speaks TCP only, and acting needs the socket.

forward.py SOCKET PORT_FILE: takes any free port of 127.0.0.1 and writes it to PORT_FILE.
"""

import os
import socket
import sys
import threading


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client, path):
    with client, socket.socket(socket.AF_UNIX) as node:
        node.connect(path)
        back = threading.Thread(target=pump, args=(node, client), daemon=True)
        back.start()
        pump(client, node)
        back.join()


path, port_file = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
with open(port_file + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(port_file + ".new", port_file)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], path), daemon=True).start()
