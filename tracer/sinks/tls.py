# SPDX-License-Identifier: Apache-2.0
"""TLS to whoever takes the lines: verified, unless the output's URI says otherwise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tracer.errors import TracerError
from tracer.sinks.target import Option, Target
from tracer.stderr import tell

if TYPE_CHECKING:
    import ssl

OPTIONS: Mapping[str, Option] = {
    "ca-file": Option("Certificates to trust; the system's.", None, "path"),
    "cert-file": Option("Certificate to show, PEM.", None, "path"),
    "key-file": Option("Its key, PEM.", None, "path"),
    "server-name": Option("Name that the other side's certificate must have; the URI's host."),
    "verify": Option("Whether its certificate is checked.", True, "flag"),
}


def context(target: Target) -> "ssl.SSLContext":
    """A client's, of the output's options.

    Raises TracerError where a file of certificates or keys cannot be used.
    """
    import ssl  # takes 5 MB, of those who want TLS

    options = target.options
    ca_file, cert_file, key_file = (options[name] for name in ("ca-file", "cert-file", "key-file"))
    try:
        made = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        if cert_file:
            made.load_cert_chain(str(cert_file), str(key_file) if key_file else None, password=_no_password)
    except (OSError, ValueError) as error:
        files = ", ".join(str(name) for name in (ca_file, cert_file, key_file) if name) or "the system's certificates"
        reason = getattr(error, "strerror", None) or error
        hint = "PEM files are needed, the key without a password"
        raise TracerError(f"cannot use {files} ({reason})", hint) from error
    if not options["verify"]:
        tell(f"{target.scheme}: the other side's certificate is not checked (verify=no)")
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def server_name(target: Target, host: str) -> str:
    """The name that its certificate must have."""
    return str(target.options["server-name"] or host)


def _no_password() -> str:
    raise ValueError("the key has a password")
