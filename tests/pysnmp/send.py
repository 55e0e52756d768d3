"""Sends a trap or an inform of SNMPv3 with pysnmp: send.py trap|inform PORT USER AUTH PRIVACY. Prints what went wrong."""

import asyncio
import sys

from pysnmp.hlapi.v3arch import asyncio as snmp

AUTH = {"sha1": snmp.USM_AUTH_HMAC96_SHA, "sha256": snmp.USM_AUTH_HMAC192_SHA256, "sha512": snmp.USM_AUTH_HMAC384_SHA512}
PRIVACY = {
    "aes128": snmp.USM_PRIV_CFB128_AES,
    "aes192": snmp.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "aes256": snmp.USM_PRIV_CFB256_AES_BLUMENTHAL,
    "aes256-cisco": snmp.USM_PRIV_CFB256_AES,
}


async def main(kind, port, user, auth, privacy):
    sender = snmp.UsmUserData(
        user, "password", "hush-hush", authProtocol=AUTH[auth], privProtocol=PRIVACY[privacy]
    )
    target = await snmp.UdpTransportTarget.create(("127.0.0.1", int(port)), timeout=5, retries=2)
    cold_start = snmp.NotificationType(snmp.ObjectIdentity("1.3.6.1.6.3.1.1.5.1"))
    error, *_ = await snmp.send_notification(
        snmp.SnmpEngine(), sender, target, snmp.ContextData(), kind, cold_start
    )
    return error


error = asyncio.run(main(*sys.argv[1:]))
sys.exit(str(error) if error else 0)
