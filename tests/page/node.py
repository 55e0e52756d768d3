"""A node to look at: started with a folder of its own, spoken to over HTTP and, for actions, by the command line."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time

START_S = 60
STOP_S = 30


def free_port():
    """A port that nobody listens on. The node keeps it when it is started anew, as the page expects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Node:
    """One node, which may be stopped and started again."""

    def __init__(self, binary, folder, config=""):
        """`config`: more of its settings, as they stand in the file."""
        self.binary, self.folder, self.port = binary, folder, free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.process = None
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/node.toml", "w") as file:
            file.write(f'[http]\nlisten = "127.0.0.1:{self.port}"\n[traps]\nenabled = false\n[snmp.agent]\nenabled = false\n[collect]\nenabled = false\n{config}')
        self.start()

    def start(self):
        with open(f"{self.folder}/log", "a") as log:
            command = [self.binary, "run", "--config", f"{self.folder}/node.toml", "--data", f"{self.folder}/data"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("the node does not start:\n" + self.log())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self):
        """Ends it as a service manager does. Its log must not tell of errors."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(STOP_S) == 0, "the node ended badly:\n" + self.log()
        bad = [line for line in self.log().splitlines() if "panicked" in line or "ERROR" in line]
        assert not bad, "\n".join(bad)

    def log(self):
        with open(f"{self.folder}/log") as log:
            return log.read()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def report(self, *events):
        """Reports events, at most a request's worth at a time; all must be taken."""
        for first in range(0, len(events), 4000):
            batch = json.dumps(events[first : first + 4000])
            status, _, body = self.request("POST", "/api/v1/events", batch, {"content-type": "application/json"})
            assert status == 200 and json.loads(body)["rejected"] == 0, body

    def raise_(self, resource, alarm_type, severity, text="", **more):
        self.report(dict(resource=resource, alarm_type=alarm_type, severity=severity, text=text, **more))

    def clear(self, resource, alarm_type):
        self.report(dict(resource=resource, alarm_type=alarm_type, severity="cleared"))

    def alarms(self, query=""):
        return json.loads(self.request("GET", f"/api/v1/alarms?limit=10000{query}")[2])["alarms"]

    def id(self, resource):
        found = [alarm["id"] for alarm in self.alarms() if alarm["resource"] == resource]
        assert found, f"there is no alarm on {resource}"
        return found[0]

    def act(self, *arguments):
        """An action on alarms."""
        self.command("alarms", *arguments)

    def command(self, *arguments):
        """Something that only the Unix socket allows, by the command line."""
        command = [self.binary, *arguments, "--node", f"{self.folder}/data/klaxon.sock"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def join(self, below, kind="site"):
        """Takes the node `below` under this one; its name is what its folder is called."""
        name = os.path.basename(below.folder)
        below.command("join", self.base, "--token", self.command("site", "add", name, "--kind", kind).strip())
