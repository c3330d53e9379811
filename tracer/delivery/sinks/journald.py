# SPDX-License-Identifier: Apache-2.0
"""Send lines to the journal, as entries with fields, by journald's native protocol."""

import errno
import fcntl
import os
import socket
from collections.abc import Sequence

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink, connect
from tracer.delivery.sinks.connect import Peer
from tracer.delivery.sinks.destination import Destination, UriForm
from tracer.delivery.sinks.journald_fields import journal_entry

SOCKET = "/run/systemd/journal/socket"
FORMS = {
    "journald": UriForm(
        "journald[:SOCKET]",
        "The journal: a sentence for people, and every field for `journalctl FIELD=VALUE`.",
        connect.OPTIONS,
        styled=False,
    ),
}
_BATCH_LINES = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if the address is not a path; journald need not run yet."""
    path = destination.address or SOCKET
    if not path.startswith("/"):
        raise TracerError(
            f"output {destination.uri}: not an absolute path", f"write journald, or journald:{SOCKET}", EXIT_USAGE
        )
    return JournaldSink(destination.uri, path, float(destination.options["timeout"] or 0))


class JournaldSink(RemoteSink):
    batch_lines = _BATCH_LINES

    def __init__(self, uri: str, path: str, timeout_s: float) -> None:
        self.uri = uri
        self._peer = Peer(connect.dial_unix(path, socket.SOCK_DGRAM, timeout_s), timeout_s)

    def write(self, lines: Sequence[bytes]) -> int:
        count = 0
        for line in lines:
            try:
                data = journal_entry(line)
            except RejectedError:
                if count:
                    break
                raise
            self._send(data)
            count += 1
        self._peer.wait_acknowledged()
        return count

    def close(self) -> None:
        self._peer.close()

    def _send(self, data: bytes) -> None:
        self._peer.open()
        try:
            self._peer.send(data)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._peer.open()
            descriptor = _make_sealed_file(data)
            try:
                self._peer.send_descriptor(descriptor)
            finally:
                os.close(descriptor)


def _make_sealed_file(data: bytes) -> int:
    """A sealed file in memory, which journald requires for entries that are too large for a datagram."""
    descriptor = os.memfd_create("oomtrace", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
