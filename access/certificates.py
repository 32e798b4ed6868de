"""Certificates of the pipeline's own authority, made by the program `openssl`."""

import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Final

AUTHORITY_DAYS: Final = 3650
DAYS: Final = 825
"""The longest time for which clients accept the certificate of a server."""
_RENEWED_BEFORE: Final = 30 * 86_400
"""Seconds before its end at which a certificate is replaced."""
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


class CertificateError(Exception):
    """`openssl` refuses a request; the message has its reason."""


def _openssl(*arguments: str) -> str:
    try:
        completed = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise CertificateError(f"openssl cannot be run: {error}") from None
    if completed.returncode != 0:
        raise CertificateError(f"openssl {arguments[0]}: {' '.join(completed.stderr.split())}")
    return completed.stdout


def _create(name: str, days: int, extensions: tuple[str, ...], issuer: tuple[str, ...] = ()) -> bytes:
    """Return a new private key, and its certificate, as PEM."""
    with tempfile.TemporaryDirectory() as folder:
        # Without the extensions of the machine's own configuration.
        config, key, certificate = (Path(folder, each) for each in ("config", "key", "certificate"))
        config.write_text("[req]\ndistinguished_name=name\n[name]\n")
        added = [argument for extension in extensions for argument in ("-addext", extension)]
        _openssl(
            "req", "-x509", "-config", str(config), *_KEY, "-keyout", str(key), "-out", str(certificate),
            "-days", str(days), "-subj", f"/CN={name}", "-set_serial", str(secrets.randbits(120)), *issuer, *added,
        )  # fmt: skip
        return key.read_bytes() + certificate.read_bytes()


def new_authority() -> bytes:
    """Return the key and the certificate of a new certificate authority, as PEM."""
    extensions = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
    return _create("streaming-analytics", AUTHORITY_DAYS, extensions)


def new_certificate(authority: bytes, name: str, hosts: tuple[str, ...] = ()) -> bytes:
    """Return a key and its certificate from the authority, as PEM: of a server at these hosts, or else of a client."""
    usage = "serverAuth,clientAuth" if hosts else "clientAuth"
    names = ",".join(f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts)
    extensions = (
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={usage}",
        *([f"subjectAltName={names}"] if hosts else []),
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(authority)
        file.flush()
        return _create(name, DAYS, extensions, ("-CA", file.name, "-CAkey", file.name))


def certificate_of(pem: bytes) -> bytes:
    """Return the certificate alone, of a key with its certificate."""
    begin = b"-----BEGIN CERTIFICATE-----"
    return begin + pem.partition(begin)[2]


def key_of(pem: bytes) -> bytes:
    """Return the key alone, of a key with its certificate."""
    return pem.partition(b"-----BEGIN CERTIFICATE-----")[0]


def is_valid(pem: bytes, authority: bytes) -> bool:
    """Return whether the certificate is from this authority, and does not end within a month."""
    with tempfile.TemporaryDirectory() as folder:
        file, issuer = Path(folder, "certificate"), Path(folder, "authority")
        file.write_bytes(certificate_of(pem))
        issuer.write_bytes(certificate_of(authority))
        try:
            _openssl("verify", "-CAfile", str(issuer), str(file))
            _openssl("x509", "-in", str(file), "-noout", "-checkend", str(_RENEWED_BEFORE))
        except CertificateError:
            return False
    return True
