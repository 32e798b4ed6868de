"""Kafka with TLS: librdkafka's and Java's clients trust the certificate authority in `KAFKA_CA_FILE`."""

import subprocess
from pathlib import Path

import pytest
from mirakuru.exceptions import ExecutorError

from local_stack import servers
from local_stack.java import JAVA_HOME
from local_stack.services import PRODUCER, STREAM
from tests.pipeline import Pipeline, eventually

_PASSWORD = "not-a-secret"


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Create a key store with a certificate for the loopback address, and the certificate as PEM."""
    store, pem = folder / "broker.p12", folder / "broker.pem"
    keytool = [str(JAVA_HOME / "bin" / "keytool"), "-keystore", str(store), "-storepass", _PASSWORD, "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1", "-storetype", "PKCS12"]
    subprocess.run([*keytool, *make], check=True, capture_output=True)
    subprocess.run([*keytool, "-exportcert", "-rfc", "-file", str(pem)], check=True, capture_output=True)
    return store, pem


@pytest.mark.usefixtures("cache")
def test_interactions_reach_the_lake_over_tls_and_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    store, pem = _certificate(tmp_path)
    port = servers.free_port()
    tls = {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SSL",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": _PASSWORD,
        # The broker connects to itself as a client.
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(pem),
    }
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", "http://none", "tls", tmp_path)
    secure = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_CA_FILE": pem}
    with servers.kafka(tmp_path / "broker", port, properties=tls):
        with own_pipeline.running(PRODUCER, PRODUCER_RATE="0.01", **secure), own_pipeline.running(STREAM, **secure):
            eventually(lambda: _assert_some(own_pipeline.lake_count()))
        distrustful = own_pipeline.service(PRODUCER, KAFKA_SECURITY_PROTOCOL="SSL")
        distrustful._timeout = 10
        with pytest.raises(ExecutorError):
            distrustful.start()
        distrustful.kill()
    assert "certificate verify failed" in own_pipeline.log(PRODUCER)


def _assert_some(count: int) -> None:
    assert count > 0
