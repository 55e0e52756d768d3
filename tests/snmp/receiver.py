"""Receives SNMP notifications at 127.0.0.1 by pysnmp. It prints {"port": …}, reads one line of settings, prints {"ready": true}, and then
what each notification says, one JSON object a line. Informs are confirmed. The settings are a JSON object:

communities  those of v2c that are taken
users        name, auth, auth_password, privacy and privacy_password of those of v3
engine_id    who sends traps of v3, as hexadecimal digits
"""

import asyncio
import json
import socket
import sys

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import ntfrcv
from pysnmp.proto.rfc1902 import OctetString

from protocols import AUTHS, PRIVACIES

LEVELS = {1: "noAuthNoPriv", 2: "authNoPriv", 3: "authPriv"}


def say(what):
    print(json.dumps(what), flush=True)


def value(of):
    """Octets as hexadecimal digits, numbers and object identifiers as they are written."""
    name = type(of).__name__
    if name == "OctetString":
        return name, bytes(of).hex()
    if name == "Integer":
        return "Integer32", str(int(of))
    return name, of.prettyPrint()


async def main():
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.bind(("127.0.0.1", 0))
    ours.setblocking(False)
    say({"port": ours.getsockname()[1]})
    settings = json.loads(sys.stdin.readline())

    receiver = engine.SnmpEngine()
    config.add_transport(receiver, udp.DOMAIN_NAME, udp.UdpAsyncioTransport().open_server_mode(sock=ours))
    for community in settings["communities"]:
        config.add_v1_system(receiver, community, community)
    for user in settings["users"]:
        keys = (AUTHS[user["auth"]], user["auth_password"], PRIVACIES[user["privacy"]], user["privacy_password"])
        # Of informs the engine is this one, of traps it is their sender.
        config.add_v3_user(receiver, user["name"], *keys)
        config.add_v3_user(receiver, user["name"], *keys, securityEngineId=OctetString(hexValue=settings["engine_id"]))

    how = {}

    def came(_engine, _point, variables, _context):
        how.update(
            pdu=type(variables["pdu"]).__name__,
            version=str(int(variables["messageProcessingModel"])),
            level=LEVELS[int(variables["securityLevel"])],
            who=str(variables["securityName"]),
        )

    def told(_engine, _reference, _context_engine, _context_name, variables, _context):
        say({**how, "varbinds": [[str(oid), *value(of)] for oid, of in variables]})

    receiver.observer.register_observer(came, "rfc3412.receiveMessage:request")
    ntfrcv.NotificationReceiver(receiver, told)
    receiver.transport_dispatcher.job_started(1)
    say({"ready": True})
    await asyncio.Event().wait()


asyncio.run(main())
