"""A Redis that fails over: a replica that may be cut off, and an address that leads to one of the two, as a proxy or a
floating address does."""
import os
import select
import socket
import threading
from contextlib import suppress

from support.process import free_port
from support.redis import Redis
from support.wait import until


class Address:
    """A TCP forwarder."""

    def __init__(self, port):
        self._target = port
        self._open = set()
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def lead_to(self, port):
        """New connections. Those that are open stay where they are."""
        self._target = port

    def cut(self):
        """Closes the connections that are open."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client, self._target), daemon=True).start()

    def _forward(self, client, port):
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            return
        other = {client: server, server: client}
        self._open.add(client)
        for end in other:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                for end in select.select(list(other), [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    other[end].sendall(data)
        except OSError:
            return
        finally:
            self._open.discard(client)
            client.close()
            server.close()


class Pair:
    """The stack's Redis and a replica of it behind one address; to be made before the services start."""

    def __init__(self, stack):
        folder = os.path.join(stack.folder, "replica")
        os.makedirs(folder)
        self.primary = stack.redis
        self.replica = Redis(folder, os.path.join(stack.folder, "replica.log"))
        self.replica.name = "replica"
        self.address = Address(self.primary.port)
        # What the services are told; the tests' own connections go to the primary of the moment.
        self.primary.url = f"redis://127.0.0.1:{self.address.port}/0"

    def start(self):
        self.primary.start()
        self.replica.start()
        self.follow()

    def follow(self):
        """The replica takes over all that the primary has, and what follows."""
        self.replica.call("REPLICAOF", "127.0.0.1", str(self.primary.port))
        until("the replica follows", self._follows)

    def _follows(self):
        said = dict(line.split(":", 1) for line in self.replica.call("INFO", "replication").splitlines() if ":" in line)
        return said["master_link_status"] == "up" and said["master_sync_in_progress"] == "0"

    def cut(self):
        """From now on the replica falls behind: it is promoted, and nobody is told."""
        self.replica.call("REPLICAOF", "NO", "ONE")

    def fail_over(self, stack):
        """New connections lead to the replica, and the old primary is demoted, as an operator or a sentinel does; those
        who are still connected to it are told when they write."""
        self.address.lead_to(self.replica.port)
        self.primary.call("REPLICAOF", "127.0.0.1", str(self.replica.port))
        self.replica.url = self.primary.url
        self.primary, self.replica = self.replica, self.primary
        stack.redis = self.primary
        until("the old primary follows", self._follows)

    def stop(self):
        self.address.close()
        for redis in (self.primary, self.replica):
            redis.kill()
