"""Creates a trust store with which Java trusts the machine's certificate authorities instead of its own.

Behind a company's TLS proxy Java's own list is not sufficient. The authorities that Python trusts are written as a Java
key store (JKS): a header, the certificates, and a checksum; the format has not changed since Java 1.2.
"""

import hashlib
import ssl
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_MAGIC: Final = 0xFEEDFEED
_VERSION: Final = 2
_CERTIFICATE_ENTRY: Final = 2
_PASSWORD: Final = "changeit"  # Java's default: the store contains nothing secret.


def java_options(folder: Path) -> list[str]:
    """Write a trust store into `folder` and return the Java options for it; none if Python has no authorities."""
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not authorities:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "trusted.jks"
    store.write_bytes(key_store(authorities))
    return [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=JKS"]


def key_store(certificates: Iterable[bytes]) -> bytes:
    """Return a JKS key store that trusts these certificates (DER)."""
    entries = [
        struct.pack(">I", _CERTIFICATE_ENTRY)
        + _text(f"authority-{number}")
        + struct.pack(">Q", 0)
        + _text("X.509")
        + struct.pack(">I", len(certificate))
        + certificate
        for number, certificate in enumerate(certificates)
    ]
    content = struct.pack(">III", _MAGIC, _VERSION, len(entries)) + b"".join(entries)
    # The checksum of JKS includes this phrase between password and content.
    checksum = hashlib.sha1(_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + content)
    return content + checksum.digest()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
