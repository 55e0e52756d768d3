"""How SNMPv3 messages are protected: our words, and those of pysnmp."""

from pysnmp.hlapi.v3arch import asyncio as snmp

AUTHS = {
    "md5": snmp.usmHMACMD5AuthProtocol,
    "sha1": snmp.usmHMACSHAAuthProtocol,
    "sha224": snmp.usmHMAC128SHA224AuthProtocol,
    "sha256": snmp.usmHMAC192SHA256AuthProtocol,
    "sha384": snmp.usmHMAC256SHA384AuthProtocol,
    "sha512": snmp.usmHMAC384SHA512AuthProtocol,
}
# What pysnmp calls plain is Reeder's way, which is Cisco's.
PRIVACIES = {
    "": snmp.usmNoPrivProtocol,
    "aes128": snmp.usmAesCfb128Protocol,
    "aes192": snmp.usmAesBlumenthalCfb192Protocol,
    "aes256": snmp.usmAesBlumenthalCfb256Protocol,
    "aes192-cisco": snmp.usmAesCfb192Protocol,
    "aes256-cisco": snmp.usmAesCfb256Protocol,
}
