# SPDX-License-Identifier: Apache-2.0
"""The stand-in API server does what interLink's was measured to do: tests that lean on it must not lean on a kinder one."""
import json

import kit
import pytest
from kit import pod


@pytest.fixture
def batch(tmp_path):
    server = kit.ApiServer(tmp_path, "--batch", "--keep", "0.3").start()
    yield server
    server.close()


def test_two_creates_are_two_jobs(batch):
    p = pod()
    batch.created(p)
    batch.created(p)
    assert json.loads(batch.raw("POST", "/_jobs")[1]) == {p["metadata"]["uid"]: 2}
    assert batch.delete(p)[0] == 200
    assert json.loads(batch.raw("POST", "/_jobs")[1]) == {p["metadata"]["uid"]: 1}


def test_one_answer_is_kept_whoever_asks(batch):
    a, b = pod(), pod()
    batch.created(a)
    batch.created(b)
    assert batch.state(a) == {"waiting": {}}
    assert batch.raw("GET", "/status", [b]) == (200, "null")
    kit.wait_for(lambda: batch.raw("GET", "/status", [b])[1] != "null")
    assert batch.state(b) == {"waiting": {}}


def test_answers_from_the_cache_for_another_phase(batch):
    p = pod()
    batch.created(p)
    assert batch.state(p) == {"waiting": {}}
    batch.raw("POST", "/_state", {"uid": p["metadata"]["uid"], "state": {"running": {}}})
    stale = json.loads(batch.raw("GET", "/status", [{**p, "status": {"phase": "Succeeded"}}])[1])
    assert stale[0]["containers"][0]["state"] == {"waiting": {}}
    assert batch.state(p) == {"running": {}}


def test_unknown_delete(batch):
    assert batch.delete(pod()) == (500, "")


def test_plugin_down(batch):
    batch.faults(down=True)
    for path in ("/create", "/delete", "/pinglink"):
        assert batch.raw("POST", path, pod() if path == "/delete" else {"pod": pod()}) == (500, "")
    batch.faults()
    assert batch.raw("POST", "/pinglink")[0] == 200


def test_errors_are_wrapped_and_escaped(batch):
    batch.faults(create="text", fail_text='<bad> "account" & more')
    status, text = batch.create(pod())
    assert status == 504
    assert text.endswith("call exit status: 500. Body: &lt;bad&gt; &#34;account&#34; &amp; more")


def test_one_pod_spoils_the_batch(batch):
    a, b = pod(), pod()
    batch.created(a)
    batch.created(b)
    batch.faults(poison=[b["metadata"]["uid"]])
    assert batch.raw("GET", "/status", [a, b])[0] == 500
    assert batch.state(a) == {"waiting": {}}


def test_an_answer_that_is_lost(batch):
    p = pod()
    batch.faults(create="drop")
    with pytest.raises(OSError):
        batch.create(p)
    assert json.loads(batch.raw("POST", "/_jobs")[1]) == {p["metadata"]["uid"]: 1}


@pytest.mark.parametrize("body", [b"{", b"null", b"[]", b"{}"])
def test_a_malformed_delete_kills_it(batch, body):
    with pytest.raises(OSError):
        batch.raw("DELETE", "/delete", body)
    assert batch.process.wait(timeout=5) == 1


def test_odd_status_bodies(batch):
    for fault, text in (("null", "null"), ("empty", "")):
        batch.faults(status=fault)
        assert batch.raw("GET", "/status", [pod()]) == (200, text)
    batch.faults(status="garbage")
    with pytest.raises(ValueError):
        json.loads(batch.raw("GET", "/status", [pod()])[1])


def test_log_requests_are_checked(batch):
    p = pod()
    assert batch.logs(p)[0] == 200
    assert batch.logs(p, Tail=1, Bytes=1)[0] == 400
    assert batch.logs(p, SinceSeconds=1, SinceTime="2026-01-01T00:00:00Z")[0] == 400
    assert batch.logs(p, container="Not_a_label")[0] == 400
    assert batch.logs(pod(uid="abc"))[0] == 400


# ---- the stock Slurm plugin's ways ----


@pytest.fixture
def stock(tmp_path):
    server = kit.ApiServer(tmp_path, "--stock", str(tmp_path / "jobs"), "--keep", "0.1").start()
    server.dir = tmp_path / "jobs"
    yield server
    server.close()


def scripted(script):
    p = pod(annotation=None)
    p["metadata"]["annotations"] = {"slurm-job.vk.io/pre-exec": script}
    p["spec"]["containers"][0]["env"] = [{"name": "A", "value": "it's"}]
    return p


def ended(server, p):
    return kit.wait_for(lambda: server.state(p).get("terminated"), 10, "its end")


def test_a_batch_script_runs_the_annotation(stock):
    p = scripted('work=$(dirname "$(readlink /proc/$$/fd/1)"); . "$work/agent_envfile.properties"; echo "$A" >"$work/run-agent.out"; '
                 'echo 7 >"$work/run-agent.status"; exit 7')
    stock.created(p)
    assert ended(stock, p)["exitCode"] == 7
    assert stock.logs(p) == (200, "it's\n")
    assert stock.delete(p)[0] == 200
    kit.wait_for(lambda: stock.state(p) == {})
    assert not list(stock.dir.glob("default-*"))
    assert stock.delete(p) == (500, "")


def test_an_exit_code_without_its_file_is_made_up(stock):
    p = scripted("exit 7")
    stock.created(p)
    assert ended(stock, p)["exitCode"] != 7


@pytest.mark.parametrize("volume", [{"secret": {"secretName": "x"}}, {"configMap": {"name": "x"}}, {"hostPath": {"path": "/tmp"}}, None])
def test_what_it_takes_for_granted(stock, volume):
    p = scripted("exit 0")
    p["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    p["spec"]["volumes"] = [{"name": "v", **volume}] if volume else []
    assert stock.create(p) == (500, "")
    assert json.loads(stock.raw("POST", "/_jobs")[1]) == {}


def test_a_null_create_is_a_job(stock):
    assert stock.raw("POST", "/create", b"null")[0] == 200


def test_follow_and_tail(stock):
    p = scripted('work=$(dirname "$(readlink /proc/$$/fd/1)"); sleep 0.3; echo one >"$work/run-agent.out"; sleep 0.3; '
                 'echo two >>"$work/run-agent.out"; echo 0 >"$work/run-agent.status"; exit 0')
    stock.created(p)
    text = stock.logs(p, Follow=True)[1]
    assert "does not exist yet, sleeping before retrying..." in text and text.endswith("one\ntwo\n")
    assert stock.logs(p, Tail=1) == (200, "two\n")
    assert stock.logs(p, Tail=3) == (500, "")  # the number of lines as it counts them
    assert stock.logs(p, Tail=4) == (200, "one\ntwo\n")
