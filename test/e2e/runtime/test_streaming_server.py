# SPDX-License-Identifier: Apache-2.0
"""What servers of their own are needed for: the Streaming keys, bounds, the end of serve."""
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.parse

import pytest
import spdy
import streams
from cri import refused
from serving import Pod, Serve


@pytest.fixture
def start(images):
    """start(configuration) -> Serve with images."""
    servers = []

    def make(config):
        root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
        os.chmod(root, 0o755)
        server = Serve(root, config=config).start()
        servers.append(server)
        loaded = server.ctl("load", str(images))
        assert loaded.returncode == 0, loaded.stderr + server.tail()
        return server
    yield make
    for server in servers:
        server.finish()


def certificate(folder):
    """(certificate, key), self-signed."""
    names = [str(pathlib.Path(folder) / n) for n in ("cert.pem", "key.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-out", names[0], "-keyout", names[1]], check=True, capture_output=True)
    return names


def test_tls_short_time_outs_and_the_end_of_serve(start, tmp_path):
    cert, key = certificate(tmp_path)
    serve = start(f"Streaming: {{Address: '::1', CertFile: {cert}, KeyFile: {key}, IdleTimeout: 5s, CreationTimeout: 1s}}\n")
    pod = Pod(serve, serve.client, "tls")
    container = pod.run("sleep", "100000")

    url = streams.exec_url(serve.client, container, "sh", "-c", "cat; exit 3", stdin=True)
    assert url.startswith("https://[::1]:")
    for how in ("spdy-v4", "v5"):
        with streams.run(serve.client, container, "sh", "-c", "cat; exit 3", stdin=True, how=how) as c:
            c.write(bytes(300000))
            c.close_stdin()
            assert c.finish() == (bytes(300000), b"", 3)

    # The client creates the error stream only.
    with spdy.Connection(url, ["v4.channel.k8s.io"]) as c:
        error = c.open(streamType="error")
        assert "did not create all of its streams within 1 s" in streams.code_of(error.read_all(), 4)
    # Nothing is said for longer than the idle time-out.
    begin = time.monotonic()
    with streams.run(serve.client, container, "sh", "-c", "echo up; cat; sleep 4715", stdin=True) as c:
        c.wait_output(b"up")
        with c.connection.news:
            assert c.connection.news.wait_for(lambda: c.connection.over, 12)
        assert 4.9 < time.monotonic() - begin < 14
    while b"4715" in serve.client.exec_sync(container, "ps").stdout:
        assert time.monotonic() - begin < 17
        time.sleep(0.05)
    # A half of a port forward.
    with streams.Forward(streams.forward_url(serve.client, pod.id)) as f:
        error = f.connection.open(streamType="error", port=1, requestID=7)
        assert "did not create both of its streams within 1 s" in error.read_all().decode()

    # Its clients are told that serve ends.
    with streams.run(serve.client, container, "sh", "-c", "echo up; yes; sleep 4716", how="spdy-v4") as c, \
            streams.run(serve.client, container, "sh", "-c", "echo up; yes; sleep 4716", how="v5") as d:
        for command in (c, d):
            command.wait_output(b"up")
        serve.process.terminate()
        assert "interlink-cri is being stopped" in c.finish()[2] and "interlink-cri is being stopped" in d.finish()[2]
    serve.process.wait(10)
    serve.start()
    pod.wait_for_agent()
    assert b"4716" not in serve.client.exec_sync(container, "ps").stdout


def test_switched_off(start):
    serve = start("Streaming: {Enabled: false}\n")
    pod = Pod(serve, serve.client, "off")
    container = pod.run("sleep", "100000")
    with refused("FAILED_PRECONDITION", "Streaming.Enabled"):
        streams.exec_url(serve.client, container, "true")
    assert serve.client.exec_sync(container, "echo", "x").stdout == b"x\n"


def test_a_port_of_one_s_choice_and_bounded_promises(start):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = start(f"Streaming: {{Port: {port}}}\n")
    pod = Pod(serve, serve.client, "port")
    container = pod.run("sleep", "100000")
    first = streams.exec_url(serve.client, container, "true")
    assert urllib.parse.urlsplit(first).port == port
    with refused("RESOURCE_EXHAUSTED", "60 s"):
        for _ in range(1001):
            streams.exec_url(serve.client, container, "true")
    with streams.command(first, "v5") as c:
        assert c.finish()[2] == 0


def test_an_address_for_others_needs_a_certificate(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("Streaming: {Address: 0.0.0.0}\n")
    from serving import BINARY
    ended = subprocess.run([BINARY, "serve", "--config", config, "--socket", tmp_path / "s"], capture_output=True, text=True,
                           timeout=20, check=False)
    assert ended.returncode != 0 and "can be reached from other machines" in ended.stderr
