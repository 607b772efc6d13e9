"""A cable between a browser and a server that a test can cut and mend: plain TCP in threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Cable:
    """Forwards every connection to `target`; `cut` breaks all of them and refuses new ones."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname, urlsplit(target).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._whole = True
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name="cable")
        self._thread.start()

    def cut(self) -> None:
        """Break every connection, and each new one until `mend`."""
        with self._lock:
            self._whole = False
            for side in self._open:
                _break(side)
            self._open.clear()

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Break everything and stop."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            _break(near)
            return
        far.settimeout(None)
        with self._lock:
            if not self._whole:
                _break(near)
                far.close()
                return
            self._open |= {near, far}
        threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
        self._pump(far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, sink}


def _break(side: socket.socket) -> None:
    # A thread that reads from it wakes up only by this; closing alone would leave it waiting.
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()


@contextmanager
def cable(target: str) -> Iterator[Cable]:
    """Run a cable to a server for the length of a block."""
    one = Cable(target)
    try:
        yield one
    finally:
        one.close()
