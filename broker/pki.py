"""A small certificate authority for one owner's brokers and nodes.

It is a folder: `ca.crt`, `ca.key` (mode 0600, encrypted if a password is given), `crl.pem`, and
`issued/` with every certificate it has signed. There is no other database, so that nothing can
disagree: what was issued is in `issued/`, what was revoked is in the list that brokers read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ddnn import private_file
from ddnn.errors import ConfigError, DdnnError

CA_DAYS = 3650
NODE_DAYS = 365
#: A clock that is a little behind must not find a fresh certificate "not yet valid".
BACKDATE = timedelta(minutes=10)
#: Renew from this on; the same number of days from which nodes warn.
RENEW_BEFORE = timedelta(days=30)

Kind = Literal["node", "broker"]


class PkiError(DdnnError):
    """The authority's folder or a request to it is not right."""


class Issued(NamedTuple):
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


class Record(NamedTuple):
    """One certificate that the authority has signed."""

    identity: str
    kind: Kind
    serial: int
    not_before: datetime
    not_after: datetime
    hosts: tuple[str, ...]
    revoked: bool

    def state(self, now: datetime) -> str:
        """`valid`, `expiring`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        if now >= self.not_after:
            return "expired"
        return "expiring" if self.not_after - now < RENEW_BEFORE else "valid"


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, in one step: there is no half-written key.

    Raises:
        PkiError: it cannot be written.
    """
    try:
        private_file.write_private(path, data)
    except OSError as error:
        raise PkiError(f"cannot write {path}: {error.strerror}") from error


class Authority:
    """An opened authority.

    Args:
        folder: made by `Authority.create`.
        password: of its key, if it was given one.

    Raises:
        PkiError: it is no authority's folder, or the password is wrong.
    """

    def __init__(self, folder: Path, password: bytes | None = None) -> None:
        self.folder = folder
        try:
            pem = (folder / "ca.key").read_bytes()
            self.certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        except FileNotFoundError as error:
            raise PkiError(
                f"{folder} holds no certificate authority ({Path(error.filename).name} is missing);"
                f" `ddnn pki init --ca {folder}` makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise PkiError(f"cannot read the authority in {folder}: {error}") from error
        try:
            key = serialization.load_pem_private_key(pem, password)
        except (TypeError, ValueError):
            raise PkiError(
                f"the key {folder / 'ca.key'} cannot be read: is its password right? "
                "(--password-file or DDNN_CA_PASSWORD_FILE)"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PkiError(f"{folder / 'ca.key'} is no key of this program")
        self._key = key

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        now: datetime,
        *,
        days: int = CA_DAYS,
        password: bytes | None = None,
    ) -> Authority:
        """Make a new authority in a folder that holds none.

        Raises:
            PkiError: there is one already, or the folder cannot be written.
        """
        if (folder / "ca.key").exists():
            raise PkiError(f"{folder} holds a certificate authority already; it is left as it is")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(folder / "ca.key", _key_pem(key, password))
        write_private(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
        folder.chmod(0o700)
        authority = cls(folder, password)
        authority._write_list([], now)
        return authority

    def issue(
        self,
        identity: str,
        now: datetime,
        *,
        kind: Kind = "node",
        hosts: Iterable[str] = (),
        days: int = NODE_DAYS,
    ) -> Issued:
        """Sign a certificate for a new key.

        Args:
            identity: becomes the common name, by which the broker knows the node.
            now: it is valid from here on.
            kind: a node may only be a TLS client, a broker only a server.
            hosts: names and addresses by which a broker is called.
            days: how long it is valid; never longer than the authority itself.

        Raises:
            PkiError: a broker without a name, a bad name, or the authority has expired.
        """
        hosts = tuple(dict.fromkeys(hosts))
        if (kind == "broker") != bool(hosts):
            raise PkiError(
                "a broker's certificate needs the names by which it is called (--host), "
                "and a node's has none"
            )
        if not 1 <= len(identity) <= 64:
            raise PkiError(f"identity {identity!r} must have 1 to 64 characters")
        if now >= self.certificate.not_valid_after_utc:
            raise PkiError(
                f"the authority {self.folder} has expired; make a new one and exchange "
                "every node's ca.crt"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        purpose = (
            ExtendedKeyUsageOID.SERVER_AUTH if kind == "broker" else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + timedelta(days=days), self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_private(self.folder / "issued" / f"{certificate.serial_number:040x}.crt", pem)
        return Issued(pem, _key_pem(key, None))

    def records(self) -> list[Record]:
        """Every certificate signed so far, by identity, the newest last.

        Raises:
            PkiError: a file in the folder is damaged.
        """
        revoked = {entry.serial_number for entry in self._list()}
        found = []
        for path in (self.folder / "issued").glob("*.crt"):
            try:
                found.append(_record(x509.load_pem_x509_certificate(path.read_bytes()), revoked))
            except (OSError, ValueError, IndexError) as error:
                raise PkiError(f"cannot read {path}: {error}") from error
        return sorted(found, key=lambda record: (record.identity, record.not_after))

    def revoke(
        self, identity: str, now: datetime, *, serial: int | None = None, keep: int | None = None
    ) -> list[Record]:
        """Put an identity's certificates on the list of revoked ones.

        Args:
            identity: whose.
            now: written in the list.
            serial: only this one; None: all that are valid.
            keep: but not this one.

        Raises:
            PkiError: there is none to revoke.
        """
        wanted = [
            record
            for record in self.records()
            if record.identity == identity
            and not record.revoked
            and record.serial != keep
            and serial in (None, record.serial)
        ]
        if not wanted:
            raise PkiError(f"there is no certificate of {identity!r} to revoke; `ddnn pki list`")
        entries = [
            *self._list(),
            *(
                x509.RevokedCertificateBuilder()
                .serial_number(record.serial)
                .revocation_date(now)
                .build()
                for record in wanted
            ),
        ]
        self._write_list(entries, now)
        return wanted

    def _list(self) -> list[x509.RevokedCertificate]:
        path = self.folder / "crl.pem"
        try:
            return list(x509.load_pem_x509_crl(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise PkiError(f"cannot read the list of revoked certificates {path}: {error}") from (
                error
            )

    def _write_list(self, entries: Iterable[x509.RevokedCertificate], now: datetime) -> None:
        """The list is valid as long as the authority.

        A broker refuses every client once its list is out of date. The list comes from this
        folder by hand, not from a server that could fail to refresh it: a short life would lock a
        site out and protect nobody.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATE)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        signed = builder.sign(self._key, hashes.SHA256())
        write_private(self.folder / "crl.pem", signed.public_bytes(serialization.Encoding.PEM))


def read_record(path: Path) -> Record:
    """What a certificate file says; `revoked` is False here.

    Raises:
        PkiError: it cannot be read.
    """
    try:
        return _record(x509.load_pem_x509_certificate(path.read_bytes()), set())
    except (OSError, ValueError, IndexError) as error:
        raise PkiError(f"cannot read a certificate from {path}: {error}") from error


def _record(certificate: x509.Certificate, revoked: set[int]) -> Record:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(entry.value) for entry in found)
    except x509.ExtensionNotFound:
        hosts = ()
    return Record(
        identity=str(name.value),
        kind="broker" if hosts else "node",
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        hosts=hosts,
        revoked=certificate.serial_number in revoked,
    )


def now_utc() -> datetime:
    """This moment, to the second, as certificates count."""
    return datetime.now(UTC).replace(microsecond=0)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    labels = text.split(".")
    if (
        not text.isascii()
        or len(text) > 253
        or not all(1 <= len(label) <= 63 and label.replace("-", "").isalnum() for label in labels)
    ):
        raise ConfigError(f"{text!r} is neither a host name nor an address")
    return x509.DNSName(text)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        how = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
