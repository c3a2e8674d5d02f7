"""The side of systemd in sd_notify(3)."""
import os
import socket

from support.repeating import Repeating


class Notifications(Repeating):
    """What a service has told, during the `with` block. Read without pause: the socket keeps ten messages
    (net.unix.max_dgram_qlen), and a service does not wait until there is room."""

    def __init__(self, folder):
        self.address = os.path.join(folder, "notify")
        self.told = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(0.1)
        super().__init__(self._take)

    def __exit__(self, failed, *rest):
        super().__exit__(failed, *rest)
        self._socket.close()

    def _take(self):
        try:
            self.told.update(self._socket.recv(4096).decode().split("\n"))
        except TimeoutError:
            pass
