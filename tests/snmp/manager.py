"""Asks the SNMP agent at 127.0.0.1 and the port that is given, by pysnmp, and prints what came of it as a JSON object. The users are
those of tests/snmp_agent.rs."""

import asyncio
import json
import sys

from pysnmp.hlapi.v3arch.asyncio import (
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    OctetString,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    bulk_walk_cmd,
    get_cmd,
    set_cmd,
    walk_cmd,
)

from protocols import AUTHS, PRIVACIES

NAME = "1.3.6.1.2.1.1.5.0"


def user(name, auth=None, privacy="", auth_key="authentic"):
    if auth is None:
        return UsmUserData(name)
    keys = {"authKey": auth_key, "authProtocol": AUTHS[auth], "privProtocol": PRIVACIES[privacy]}
    if privacy:
        keys["privKey"] = "concealed"
    return UsmUserData(name, **keys)


def outcome(answer):
    indication, status, _, bindings = answer
    if indication:
        return str(indication)
    return status.prettyPrint() if status else str(bindings[0][1])


async def main(port):
    async def ask(command, who, value=None, patience=5, retries=2):
        # An engine of its own for each, so that nobody's keys are taken for another's.
        to = await UdpTransportTarget.create(("127.0.0.1", port), timeout=patience, retries=retries)
        variable = ObjectType(ObjectIdentity(NAME), *([] if value is None else [OctetString(value)]))
        return outcome(await command(SnmpEngine(), who, to, ContextData(), variable))

    async def walk(command, who, *more):
        to = await UdpTransportTarget.create(("127.0.0.1", port), timeout=5, retries=2)
        root = ObjectType(ObjectIdentity("1.3"))
        count = 0
        async for indication, status, _, bindings in command(SnmpEngine(), who, to, ContextData(), *more, root):
            if indication or status:
                return str(indication or status.prettyPrint())
            count += len(bindings)
        return str(count)

    hidden = user("hidden", "sha256", "aes128")
    said = {
        "v1": await ask(get_cmd, CommunityData("public", mpModel=0)),
        "v2c": await ask(get_cmd, CommunityData("public")),
        "open": await ask(get_cmd, user("open")),
        "proved": await ask(get_cmd, user("proved", "sha1")),
        "hidden": await ask(get_cmd, hidden),
        "walk": await walk(walk_cmd, CommunityData("public")),
        "bulk walk": await walk(bulk_walk_cmd, hidden, 0, 20),
        "wrong community": await ask(get_cmd, CommunityData("private"), patience=1, retries=0),
        "wrong password": await ask(get_cmd, user("proved", "sha1", auth_key="authentik"), retries=0),
        "too little": await ask(get_cmd, user("hidden", "sha256")),
        "set openly": await ask(set_cmd, CommunityData("public"), "mine"),
        "set": await ask(set_cmd, hidden, "mine"),
    }
    for auth in AUTHS:
        for privacy in PRIVACIES:
            name = f"{auth}-{privacy}"
            said[name] = await ask(get_cmd, user(name, auth, privacy))
    json.dump(said, sys.stdout)


asyncio.run(main(int(sys.argv[1])))
