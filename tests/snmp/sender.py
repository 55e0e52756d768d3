"""Sends a trap or an inform of SNMPv3 with pysnmp: sender.py trap|inform PORT USER AUTH PRIVACY. Prints what went wrong."""

import asyncio
import sys

from pysnmp.hlapi.v3arch import asyncio as snmp

from protocols import AUTHS, PRIVACIES


async def main(kind, port, user, auth, privacy):
    sender = snmp.UsmUserData(
        user, "password", "hush-hush", authProtocol=AUTHS[auth], privProtocol=PRIVACIES[privacy]
    )
    target = await snmp.UdpTransportTarget.create(("127.0.0.1", int(port)), timeout=5, retries=2)
    cold_start = snmp.NotificationType(snmp.ObjectIdentity("1.3.6.1.6.3.1.1.5.1"))
    error, *_ = await snmp.send_notification(
        snmp.SnmpEngine(), sender, target, snmp.ContextData(), kind, cold_start
    )
    return error


error = asyncio.run(main(*sys.argv[1:]))
sys.exit(str(error) if error else 0)
