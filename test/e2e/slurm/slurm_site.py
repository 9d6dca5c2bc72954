# SPDX-License-Identifier: Apache-2.0
"""A private Slurm (test/fixtures/slurm) and our plugin before it."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interlink"))
import kit  # noqa: E402

TOP = pathlib.Path(__file__).resolve().parents[3]
FIXTURE = TOP / "test" / "fixtures" / "slurm"
NOBODY = 65534
FIELDS = ("JobID", "State", "exit_code", "NodeList", "Reason", "Name")


class Site:
    """Slurm with two nodes. Everything below .root, which anybody may read. `enter`: what a command begins with to be in the network
    that Slurm is in; empty: this one. `cgroups`: whether to try them; names in there are those of one Slurm a machine."""

    def __init__(self, root, enter=(), cgroups=True):
        self.wanted = ("1", "0") if cgroups else ("0",)
        self.enter = [str(word) for word in enter]
        self.root = pathlib.Path(root)
        self.dir = self.root / "slurm"
        port = random.randrange(20000, 30000, 10)
        self.name = f"t{port}n"
        self.nodes = [f"{self.name}1", f"{self.name}2"]
        self.env = {**os.environ, "SLURM_CONF": str(self.dir / "slurm.conf"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                    "SLURMFIX_DIR": str(self.dir), "SLURMFIX_PORT": str(port), "SLURMFIX_NAME": self.name, "SLURMFIX_CPUS": "4",
                    "SLURMFIX_GPUS": "2", "SLURMFIX_EXTRA": "PreemptType=preempt/partition_prio\nPreemptMode=CANCEL\n"
                    "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP OverSubscribe=NO"}
        self.cgroups = False

    def up(self):
        # Memory limits need control groups that Slurm can use here.
        for cgroups in self.wanted:
            self.env["SLURMFIX_CGROUP"] = cgroups
            done = subprocess.run([*self.enter, FIXTURE / "slurm-up.sh"], env=self.env, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                self.cgroups = cgroups == "1"
                return self
            self.down()
        raise AssertionError(done.stdout + done.stderr)

    def down(self):
        subprocess.run([*self.enter, FIXTURE / "slurm-down.sh"], env=self.env, capture_output=True, timeout=60, check=False)

    def run(self, *command, check=True):
        done = subprocess.run([*self.enter, *command], env={**self.env, "TZ": "UTC0"}, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self, uid=None):
        """What squeue says, as dictionaries; of one pod's jobs alone when its uid is given."""
        text = self.run("squeue", "-h", "-t", "all", "--Format=" + ",".join(f"{f}:|" for f in FIELDS))
        found = [dict(zip(FIELDS, line.split("|"))) for line in text.splitlines()]
        return [j for j in found if uid is None or j["Name"].endswith("." + uid)]

    def job(self, jid):
        return next(j for j in self.jobs() if j["JobID"] == jid)

    def start_requeued(self, jid):
        """Of a requeued job that is PENDING: Slurm lets it wait two minutes, counted from when the first run has been cleared away, so that
        the first run's credential is no longer known. slurmd tells the two credentials apart by whole seconds: what would start in the second
        in which the first run was ended is "already killed", FAILED with exit code 1 before its script has begun."""
        seen = time.time()
        kit.wait_for(lambda: time.time() > seen + 1, what="a later second than that of the first run's end")

        def runs():
            found = self.job(jid)["State"]
            if found == "PENDING":
                self.scontrol("update", f"JobId={jid}", "StartTime=now", check=False)
                time.sleep(3)  # time for a turn of the scheduler
            return found == "RUNNING"
        try:
            kit.wait_for(runs, 180, f"job {jid} to run again")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.scontrol('show', 'job', jid)}{self.scontrol('show', 'nodes')}") from error

    def scontrol(self, *words, check=True):
        return self.run("scontrol", *words, check=check)

    def controller(self, up):
        if up:
            subprocess.run([*self.enter, "slurmctld", "-f", str(self.dir / "slurm.conf")], env=self.env, check=True)
            kit.wait_for(lambda: "UP" in self.scontrol("ping", check=False), 30, "slurmctld")
            return
        pid = int((self.dir / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        kit.wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 30, "the end of slurmctld")

    def node_down(self, node):
        """Its slurmd is killed; an administrator sees it before Slurm does."""
        os.kill(int((self.dir / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        self.scontrol("update", f"nodename={node}", "state=down", "reason=gone")

    def node_up(self, node):
        subprocess.run([*self.enter, "slurmd", "-N", node, "-f", str(self.dir / "slurm.conf")], env=self.env, check=True)
        try:
            kit.wait_for(self.idle(node), 60, f"{node} to be up again")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.scontrol('show', 'node', node)}") from error

    def idle(self, node):
        def check():
            shown = self.scontrol("-o", "show", "node", node)
            words = next(w for w in shown.split() if w.startswith("State=")).removeprefix("State=").split("+")
            # The scheduler may have plans for it (PLANNED) already.
            if words[0] == "IDLE" and not {"DRAIN", "NOT_RESPONDING", "COMPLETING"} & set(words):
                return True
            if words[0] == "DOWN" or "DRAIN" in words:
                self.scontrol("update", f"nodename={node}", "state=resume", check=False)
            time.sleep(0.3)
            return False

        return check


class Plugin(kit.Plugin):
    """Our plugin with the slurm backend, in a folder of its own, as root or as an ordinary user. `settings`: lines below `Slurm:`."""

    def __init__(self, site, folder, program, settings="", user=None, environment=None):
        self.site = site
        self.folder = pathlib.Path(folder)
        self.user = user
        self.settings = "  PollMin: 200ms\n" + settings
        config = self.folder / "plugin.yaml"
        config.write_text(f"Backend: slurm\nSlurm:\n{self.settings}")
        os.chmod(self.folder, 0o755)
        if user is not None:
            os.chown(self.folder, user, user)
        super().__init__(folder, program, "--config", str(config))
        if not program:
            at = self.command.index("--program")
            del self.command[at:at + 2]
        if user is not None:
            self.command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *self.command]
        self.command = [*site.enter, *self.command]
        # A sanitizer's finding stays in a file.
        findings = self.folder / "findings"
        findings.mkdir(exist_ok=True)
        findings.chmod(0o777)
        self.env = {**site.env, **(environment or {}), "ASAN_OPTIONS": f"log_path={findings}/report:detect_leaks=0",
                    "UBSAN_OPTIONS": f"log_path={findings}/report:print_stacktrace=1:halt_on_error=1"}

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.env)
        kit.wait_for(self.answers, 20, "the plugin's first answer")
        return self

    def text(self):
        return pathlib.Path(self.log.name).read_text()

    def wait_phase(self, pod, phase, seconds=30.0):
        """Until its state has this key; the state's content."""
        return kit.wait_for(lambda: self.state(pod).get(phase) is not None and (self.state(pod).get(phase) or True), seconds,
                            f"{phase}; now {self.state(pod)}")

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        reports = list((self.folder / "findings").iterdir())
        assert not reports, reports[0].read_text()[:4000]


def pod(annotations=None, resources=None, **spec):
    made = kit.pod(**spec)
    made["metadata"]["annotations"].update(annotations or {})
    if resources:
        made["spec"]["containers"][0]["resources"] = {"limits": resources}
    return made


def uid(the_pod):
    return the_pod["metadata"]["uid"]


def wrapper(folder, name, script):
    """A program of the site's, replaced; the real one is $REAL."""
    path = pathlib.Path(folder) / f"{name}.sh"
    path.write_text(f"#!/bin/sh\nREAL=$(command -v {name})\n{script}\n")
    path.chmod(0o755)
    return str(path)


def until(condition, seconds=30.0, what="condition"):
    return kit.wait_for(condition, seconds, what)


def read_json(text):
    return json.loads(text)


def sleep(seconds):
    time.sleep(seconds)
