# SPDX-License-Identifier: Apache-2.0
"""Many pods at once on a real Slurm: each is one job, no job is anybody else's, and nothing is left."""
import json
import re

from slurm_site import Plugin, kit, pod, uid, until

COUNT = 60
# What plays the agent: says whose it is, and ends with a code of its own or waits for TERM.
AGENT = """#!/bin/sh
echo "pod $WHO"
[ -z "$CODE" ] || exit "$CODE"
trap 'exit 0' TERM
while :; do sleep 0.5; done
"""


def test_sixty_pods_at_once(site, folder):
    """More than the site has processors for: some run, the others wait, and everyone's turn comes."""
    plugin = Plugin(site, folder, kit.script(folder, AGENT)).start()
    try:
        pods = []
        for i in range(COUNT):
            env = [{"name": "WHO", "value": str(i)}] + ([{"name": "CODE", "value": str(i % 7)}] if i % 2 else [])
            pods.append(pod({"interlink.eu/flags": "--mem=1"}, {"cpu": "1"}, container={"env": env}, terminationGracePeriodSeconds=1))
        jids = [plugin.created(p) for p in pods]
        assert len(set(jids)) == COUNT
        assert [plugin.created(p) for p in pods[:5]] == jids[:5]
        # Half of them end by themselves, whenever their turn comes; the others are ended as soon as they run.
        left = set(range(COUNT))

        def turn():
            states = plugin.states(*[pods[i] for i in left])
            for i in list(left):
                state = states[uid(pods[i])]
                if "terminated" in state:
                    assert i % 2 and state["terminated"]["exitCode"] == i % 7, (i, state)
                    assert f"pod {i}\n" in plugin.logs(pods[i])[1]
                    left.discard(i)
                elif "running" in state and not i % 2:
                    until(lambda i=i: f"pod {i}\n" in plugin.logs(pods[i])[1], what=f"the log of pod {i}")
                    assert plugin.delete(pods[i], grace=1)[0] == 200
                    left.discard(i)
            return not left

        until(turn, 180, "every pod's turn")
        of_ours = [j for j in site.jobs() if any(j["Name"].endswith("." + uid(p)) for p in pods)]
        assert sorted(j["JobID"] for j in of_ours) == sorted(jids), "one job a pod"
        assert [plugin.state(p) for p in pods[::2]] == [{}] * len(pods[::2])
        for p in pods[1::2]:
            assert plugin.delete(p)[0] == 200
        assert not list((plugin.dir / "jobs").iterdir()) and not list((plugin.dir / "records").iterdir())
        assert json.loads(plugin.raw("GET", "/status", [pods[0]])[1])[0]["JID"] == ""
        assert not re.search("ERROR|error ", plugin.text()), plugin.text()[-2000:]
    finally:
        plugin.stop()
        plugin.close()
