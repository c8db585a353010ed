"""TLS of a connection to the broker: whom to believe, who this node is, what an error means.

The standard library is enough; certificates are made elsewhere (`ddnn pki`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ddnn.errors import ConfigError

__all__ = ["Certificate", "Credentials", "TlsFiles", "explain", "read_certificate"]

#: From here on a node says in its status that its certificate is about to expire.
WARN_BEFORE_DAYS = 30
_CREDENTIAL = "credential:"


class TlsFiles(NamedTuple):
    """PEM files of one node; without `cert` and `key` it stays anonymous."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, ca: str, cert: str, key: str) -> TlsFiles | None:
        """Three settings -> files, or None where no CA is given: a connection without TLS.

        Raises:
            ConfigError: a certificate without its key, without a CA, or a credential that systemd
                did not hand over.
        """
        if bool(cert) != bool(key):
            raise ConfigError("tls_cert and tls_key belong together: give both or none")
        if not ca:
            if cert:
                raise ConfigError("tls_cert without tls_ca: say which CA signs the broker")
            return None
        return cls(_path(ca), *((_path(cert), _path(key)) if cert else ()))


def _path(setting: str) -> Path:
    """A setting's file: a path, or `credential:NAME` for one of systemd's `LoadCredential=`."""
    if not setting.startswith(_CREDENTIAL):
        return Path(setting)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(
            f"{setting!r} is handed over by systemd (LoadCredential=) and $CREDENTIALS_DIRECTORY "
            "is not set; give a file name when starting by hand"
        )
    return Path(folder, setting.removeprefix(_CREDENTIAL))


class Certificate(NamedTuple):
    """What a node needs to know of a certificate."""

    name: str
    not_before: datetime
    not_after: datetime

    def note(self, now: datetime) -> str | None:
        """What a person should know of its validity; None while all is well."""
        if now < self.not_before:
            return f"not valid before {self.not_before:%Y-%m-%d %H:%M} UTC; is the clock right?"
        days = (self.not_after - now).days
        if now >= self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d}: renew it (ddnn site build)"
        if days < WARN_BEFORE_DAYS:
            return f"expires on {self.not_after:%Y-%m-%d}, in {days} days: renew it"
        return None


def read_certificate(path: Path) -> Certificate:
    """The first certificate of a PEM file.

    Raises:
        ConfigError: it cannot be read or is no certificate.
    """
    try:
        # The standard library's only reader of a certificate file. It is private; a test sees to
        # it that it is there.
        fields: dict[str, Any] = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read a certificate from {path}: {_reason(error)}") from None
    subject = {key: value for ((key, value),) in fields.get("subject", ())}
    first, last = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(fields[name]), UTC)
        for name in ("notBefore", "notAfter")
    )
    return Certificate(subject.get("commonName", ""), first, last)


class Credentials:
    """A TLS context that takes renewed files without a restart.

    Args:
        files: read at once, so that a mistake is an error at the start.

    Raises:
        ConfigError: a file is missing, unreadable or does not fit the others.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(self.context, files)
        self.certificate = read_certificate(files.cert) if files.cert else None
        self._seen = self._stamps()

    def refresh(self) -> bool:
        """Load the files again if they changed; True if so.

        Connections made from now on use them; the present one goes on. An old CA is believed,
        beside the new one, until the process ends.

        Raises:
            ConfigError: they do not fit (a renewal half done): the ones in use stay.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.files)  # first see whether they fit
        _load(self.context, self.files)
        if self.files.cert:
            self.certificate = read_certificate(self.files.cert)
        self._seen = stamps
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for path in self.files:
            stamps.append(None)
            if path is not None:
                with contextlib.suppress(OSError):
                    found = path.stat()
                    stamps[-1] = (found.st_ino, found.st_mtime_ns)
        return stamps


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls_ca {files.ca}: {_reason(error)}") from None
    if files.cert and files.key:
        for name, path in (("tls_cert", files.cert), ("tls_key", files.key)):
            try:
                path.open("rb").close()
            except OSError as error:
                raise ConfigError(f"{name} {path}: {_reason(error)}") from None
        try:
            # Without a password the library would ask for one on the terminal.
            context.load_cert_chain(files.cert, files.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"tls_cert {files.cert} and tls_key {files.key} do not fit: {_reason(error)}"
            ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; a service needs it without a password, mode 0600")


def readable_by_others(path: Path) -> bool:
    """Whether users other than the owner and its group may read a private key."""
    return bool(stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if "NO_CERTIFICATE" in str(error) or "NO_START_LINE" in str(error):
            return "it holds no PEM certificate"
        if "KEY_VALUES_MISMATCH" in str(error):
            return "the key belongs to another certificate"
        return error.reason or str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


#: OpenSSL's verification errors (X509_V_ERR_...), as the broker's certificate shows them.
_BROKER_CERTIFICATE = {
    9: "the broker's certificate is not valid yet: is this machine's clock right?",
    10: "the broker's certificate has expired: renew it (ddnn site build) and reload the broker",
    18: "the broker's certificate is signed by nobody: tls_ca must name the CA of its site",
    19: "the broker's certificate is of another CA than tls_ca",
    20: "the broker's certificate is of another CA than tls_ca",
    21: "the broker's certificate is of another CA than tls_ca",
    23: "the broker's certificate was revoked",
    62: "the broker's certificate is for another host name than this one: connect by a name that "
    "it holds, or add this one to site.toml ([broker] names) and run ddnn site build",
    64: "the broker's certificate does not hold this address: connect by name, or add it to "
    "site.toml ([broker] names) and run ddnn site build",
}
#: TLS alerts: what the broker thought of this node.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "the broker wants a certificate: set tls_cert and tls_key",
    "HANDSHAKE_FAILURE": "the broker wants a certificate, or another TLS version",
    "CERTIFICATE_EXPIRED": "the broker refuses this node's certificate as expired, or its own "
    "clock is wrong: renew it (ddnn site build)",
    "CERTIFICATE_REVOKED": "this node's certificate was revoked: ddnn pki issue gives it a new one",
    "UNKNOWN_CA": "the broker does not know the CA of this node's certificate",
    "DECRYPT_ERROR": "the broker does not know the CA of this node's certificate",
    "BAD_CERTIFICATE": "the broker refuses this node's certificate (not valid yet, or of a wrong "
    "kind)",
    "UNSUPPORTED_CERTIFICATE": "the broker refuses this node's certificate: it is of a wrong kind",
    "PROTOCOL_VERSION": "the broker speaks no TLS version that this node accepts (1.2, 1.3)",
}


def ask_why(
    host: str, port: int, context: ssl.SSLContext, timeout_s: float = 3.0
) -> OSError | None:
    """What a broker says that ended the connection of a client before it answered.

    In TLS 1.3 its verdict on the client's certificate comes after the handshake, and is lost when
    the client has sent something meanwhile. So connect once more and only listen.
    """
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as sock,
        ):
            sock.settimeout(timeout_s)
            sock.recv(1)
    except OSError as error:
        return error
    return None


def explain(error: BaseException) -> tuple[str, bool]:
    """Why a connection failed, in words that say what to do.

    Returns:
        The text, and whether it is a matter of configuration, so that waiting will not mend it.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _BROKER_CERTIFICATE.get(error.verify_code)
        return text or f"the broker's certificate is refused: {error.verify_message}", True
    if isinstance(error, ssl.SSLEOFError):
        return "the broker ended the connection during the TLS handshake; speaks it TLS?", False
    if isinstance(error, ssl.SSLError):
        # A bare SSLError, which the library does not raise, has no reason at all.
        reason = getattr(error, "reason", None) or str(error)
        for alert, text in _ALERTS.items():
            if reason.endswith(alert):
                return text, True
        if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "what answers on this port speaks no TLS: is it the right port?", True
        return f"TLS error {reason}", False
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})", False
    if isinstance(error, TimeoutError):
        return "no answer in time", False
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there", False
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__, False
