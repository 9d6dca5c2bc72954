#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a test needs of systemctl(1), where systemd does not run: services by the units in /etc/systemd/system, one supervisor each.

Known of a unit: Type (simple, notify), ExecStart, Environment, EnvironmentFile, Restart, RestartSec, KillMode, TimeoutStartSec,
TimeoutStopSec, WatchdogSec, {Runtime,State,Configuration}Directory{,Mode}. A notify service is active from its READY=1 on, and is
killed when no sign of life comes. All else is left to `systemd-analyze verify`. State and logs are in $SYSTEMCTL_STATE."""
import configparser
import contextlib
import os
import pathlib
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time

STATE = pathlib.Path(os.environ["SYSTEMCTL_STATE"])
UNITS = pathlib.Path("/etc/systemd/system")
FOLDERS = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "ConfigurationDirectory": "/etc"}


class Service(configparser.ConfigParser):
    """The [Service] section, last value of a name first; drop-ins over it."""

    optionxform = staticmethod(str)

    def __init__(self, name):
        super().__init__(strict=False, interpolation=None, comment_prefixes=("#", ";"), delimiters=("=",))
        path = UNITS / f"{name}.service"
        if not path.exists():
            sys.exit(f"Unit {name}.service could not be found.")
        self.read([path, *sorted((UNITS / f"{name}.service.d").glob("*.conf"))])
        self.values = self["Service"]

    def seconds(self, name, default):
        text = self.values.get(name, "")
        found = re.fullmatch(r"(\d+)(s|min|)", text)
        return int(found[1]) * (60 if found[2] == "min" else 1) if found else default

    def environment(self):
        values = {"PATH": os.environ["PATH"]}
        for part in shlex.split(self.values.get("Environment", "")):
            values.update([part.split("=", 1)])
        file = self.values.get("EnvironmentFile", "")
        if file and pathlib.Path(file.lstrip("-")).exists():
            for line in pathlib.Path(file.lstrip("-")).read_text().splitlines():
                if "=" in line and not line.startswith("#"):
                    key, value = line.split("=", 1)
                    values[key] = " ".join(shlex.split(value))
        return values

    def command(self, environment):
        """$NAME as a word of its own becomes several words."""
        words = []
        for word in shlex.split(self.values["ExecStart"]):
            words += environment.get(word[1:], "").split() if word.startswith("$") else [word]
        return words

    def folders(self):
        for key, top in FOLDERS.items():
            for name in self.values.get(key, "").split():
                folder = pathlib.Path(top, name)
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(int(self.values.get(key + "Mode", "0755"), 8))


def state(name, word=None):
    path = STATE / f"{name}.state"
    if word is not None:
        path.write_text(word)
    return path.read_text() if path.exists() else "inactive"


def supervise(name, service):
    """Runs the service until we get SIGTERM; never returns."""
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    path = STATE / f"{name}.notify"
    path.unlink(missing_ok=True)
    manager.bind(str(path))
    patience = service.seconds("WatchdogSec", 0)
    notify = service.values.get("Type") == "notify"
    while True:
        service.folders()
        environment = service.environment()
        if notify:
            environment["NOTIFY_SOCKET"] = str(path)
        if patience:
            environment["WATCHDOG_USEC"] = str(patience * 1000000)
        with (STATE / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(service.command(environment), env=environment, cwd="/", stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log, start_new_session=True)
        (STATE / f"{name}.main").write_text(str(child.pid))
        state(name, "activating" if notify else "active")
        alive = time.monotonic()
        while child.poll() is None and not stopping:
            with contextlib.suppress(InterruptedError):
                select.select([manager], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                while lines := manager.recv(4096).decode().splitlines():
                    alive = time.monotonic()
                    if "READY=1" in lines:
                        state(name, "active")
                    for line in lines:
                        if line.startswith("STATUS="):
                            (STATE / f"{name}.status").write_text(line[7:])
            if patience and state(name) == "active" and time.monotonic() - alive > patience:
                child.send_signal(signal.SIGABRT)
        if stopping:
            break
        if service.values.get("Restart", "no") == "no":
            state(name, "failed")
            sys.exit()
        state(name, "activating")
        time.sleep(service.seconds("RestartSec", 1))
    if service.values.get("KillMode", "control-group") == "process":
        child.terminate()
    else:
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(service.seconds("TimeoutStopSec", 90))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    state(name, "inactive")
    sys.exit()


def start(name):
    if state(name) in ("active", "activating"):
        return
    service = Service(name)
    state(name, "activating")
    if os.fork() == 0:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        (STATE / f"{name}.pid").write_text(str(os.getpid()))
        supervise(name, service)
    end = time.monotonic() + service.seconds("TimeoutStartSec", 90)
    while state(name) != "active":
        if state(name) == "failed" or time.monotonic() > end:
            sys.exit(f"Job for {name}.service failed: {status(name)}")
        time.sleep(0.05)


def stop(name):
    if state(name) in ("inactive", "failed"):
        return
    os.kill(int((STATE / f"{name}.pid").read_text()), signal.SIGTERM)
    while state(name) != "inactive":
        time.sleep(0.05)


def status(name):
    path = STATE / f"{name}.status"
    return f"{state(name)}; {path.read_text() if path.exists() else ''}"


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    verb, names = words[0], [w.removesuffix(".service") for w in words[1:]]
    now = "--now" in sys.argv
    if verb == "daemon-reload":
        return
    for name in names:
        if verb == "is-active":
            print(state(name))
            if state(name) != "active":
                sys.exit(3)
        elif verb == "status":
            print(f"Loaded: {'loaded' if (UNITS / (name + '.service')).exists() else 'not-found'}\nActive: {status(name)}")
        elif verb == "is-enabled":
            print("enabled")
        elif verb == "start" or (verb == "enable" and now):
            Service(name)
            start(name)
        elif verb == "stop" or (verb == "disable" and now):
            stop(name)
        elif verb == "restart":
            stop(name)
            start(name)
        elif verb not in ("enable", "disable"):
            sys.exit(f"Unknown command verb {verb}.")


main()
