"""Transports and accounts: one account per distinct trunk policy, made when the first leg needs it.

A policy is what PJSIP keeps per account: transport, SRTP, certificate checking and credentials. Buyers with the same
policy share an account, so ten thousand trunks on plain UDP are one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import structlog

from book.model import Prack, SessionTimer, Srtp, Transport, TrunkPolicy
from book.sip_uri import host_of
from router.sip.pjlib import EngineConfig, EngineUnusableError, Listener
from router.sip.port import Target
from router.sip.wire import host_for_from, user_part

if TYPE_CHECKING:
    from types import ModuleType

REGISTER_RETRY_S = 30
_TIMERS = {
    SessionTimer.OFF: "INACTIVE",
    SessionTimer.OPTIONAL: "OPTIONAL",
    SessionTimer.REQUIRED: "REQUIRED",
    SessionTimer.ALWAYS: "ALWAYS",
}
_PRACKS = {Prack.OPTIONAL: "OPTIONAL", Prack.MANDATORY: "MANDATORY"}
_log = structlog.get_logger("sip")
OWN_IDENTITY = "sip:baton@baton.invalid"  # RFC 2606: never a real name; the From of a leg is set per call


def _key(target: Target, way: LocalAddress) -> tuple[object, ...]:
    """What makes two trunks the same to PJSIP."""
    policy = _of_accounts(target.policy)
    return (target.transport, target.srtp, target.verify_tls, target.username, target.password, policy, way)


@lru_cache(maxsize=4096)
def _of_accounts(policy: TrunkPolicy) -> TrunkPolicy:
    """Headers, redirects, probes and limits are not PJSIP's business."""
    return replace(
        policy,
        codecs=(),
        caller_id="",
        asserted_identity=False,
        transfer_header="",
        lead_headers=(),
        redirect_hosts=(),
        max_calls=0,
        probe_s=0,
        nat=False,
    )


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """The listener and local address by which a leg leaves; `address` is empty where the route is not known."""

    listener: Listener | None = None
    address: str = ""


def _is_any(address: str) -> bool:
    return not address or ipaddress.ip_address(address).is_unspecified


class Accounts:
    """The engine's transports and accounts."""

    def __init__(self, pj: ModuleType, endpoint: Any, config: EngineConfig, new_account: Callable[[], Any]) -> None:
        self._pj = pj
        self._endpoint = endpoint
        self._config = config
        self._new_account = new_account
        self._accounts: dict[tuple[object, ...], Any] = {}
        self._plain: dict[Listener | None, int] = {}  # transports of listeners, and None: to dial from over UDP
        first = next((one for one in config.listeners if one.transport is Transport.UDP), None)
        self._first_way = LocalAddress(
            listener=first, address="" if first is None or _is_any(first.address) else first.address
        )
        self._trunk_tls: dict[tuple[object, ...], int] = {}
        self._registered: dict[int, bool] = {}
        self._registering: set[tuple[object, ...]] = set()
        # Kept: pjsua2 copies the option, but not the value it points to.
        self._no_delay = pj.SockOpt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        """Open the configured listeners, and plain transports to dial from where there is none. Raises on failure."""
        pj = self._pj
        for one in self._config.listeners:
            config = self._transport_config(one.address, one.port, one.public_address)
            if one.transport is Transport.TLS:
                self._secure(config, one.certificate, one.key, one.ca_file, verify=False)
                config.tlsConfig.verifyClient = config.tlsConfig.requireClientCert = bool(one.ca_file)
            try:
                self._plain[one] = self._endpoint.transportCreate(self._kind(one.transport, one.address), config)
            except pj.Error as error:
                raise EngineUnusableError(
                    f"cannot listen on {one.transport.value}:{one.address}:{one.port}: {error.reason}"
                ) from error
            pj.baton_listens(self._kind(one.transport, one.address), one.address, one.port, one.public_address)
        pj.baton_rtp_binds(self._config.rtp_address)
        have = {one.transport for one in self._config.listeners}
        for transport in (Transport.UDP, Transport.TCP):
            if transport not in have:
                config = self._transport_config(self._own_address, 0, "")
                number = self._endpoint.transportCreate(self._kind(transport, self._own_address), config)
                if transport is Transport.UDP:
                    self._plain[None] = number
        srtp = next((one.srtp for one in self._config.listeners if one.srtp is not Srtp.OFF), Srtp.OFF)
        self._accounts[()] = self._make(OWN_IDENTITY, Target(uri="", srtp=srtp))

    def for_target(self, target: Target, way: LocalAddress | None = None) -> Any:
        """The account whose policy fits. Raises pj.Error where its transport cannot be made."""
        way = way or self.way_to(target)
        key = _key(target, way)
        if key not in self._accounts:
            identity = f"sip:trunk{len(self._accounts)}@baton.invalid"
            if target.policy.registrar:
                identity = f"sip:{user_part(target.username)}@{host_of(target.policy.registrar)}"
            self._accounts[key] = self._make(identity, target, way)
        return self._accounts[key]

    def registration(self, account: Any, code: int, *, good: bool) -> None:
        """The registrar's answer; kept by the account's number."""
        number = account.getId()
        if self._registered.get(number) != good:
            (_log.info if good else _log.warning)("registration", account=number, code=code, good=good)
        self._registered[number] = good

    def registered(self, target: Target) -> bool:
        """True where the trunk asks for no registration, or has one that holds. Makes the account, which registers."""
        if not target.policy.registrar:
            return True
        way = self.way_to(target)
        key = _key(target, way)
        if key in self._accounts and key not in self._registering:  # it is wanted again
            self._accounts[key].setRegistration(True)
        self._registering.add(key)
        return self._registered.get(self.for_target(target, way).getId(), False)

    def keep_registered(self, targets: Sequence[Target]) -> None:
        """Take back the registrations of trunks that are none of these any more."""
        wanted = {_key(one, self.way_to(one)) for one in targets if one.policy.registrar}
        for key in [key for key in self._registering if key not in wanted]:
            self._registering.discard(key)
            account = self._accounts[key]
            self._registered.pop(account.getId(), None)
            with contextlib.suppress(self._pj.Error):
                account.setRegistration(False)

    def close(self) -> None:
        """Shut the accounts down and let go of the library, of which a process may have but one at a time."""
        for account in self._accounts.values():
            account.shutdown()
        self._accounts.clear()
        self._endpoint = None

    def _kind(self, transport: Transport, address: str) -> int:
        """PJSIP's transport type; each has a twin for IPv6."""
        name = f"PJSIP_TRANSPORT_{transport.value.upper()}" + ("6" if ":" in address else "")
        kind: int = getattr(self._pj, name)
        return kind

    def way_to(self, target: Target) -> LocalAddress:
        """By which listener a leg leaves: the one that has the address of the route there."""
        if len(self._config.listeners) == 1:  # there is no other
            return self._first_way
        ours: str = self._pj.baton_local_for(host_of(target.uri))
        fits = [one for one in self._config.listeners if one.transport is target.transport]
        best = [one for one in fits if one.address == ours] or [one for one in fits if _is_any(one.address)] or fits
        return LocalAddress(best[0] if best else None, ours)

    def host_for_from(self, way: LocalAddress) -> str:
        """Our host in the From of a leg: what its far end knows us by, or a name that is nobody's."""
        if way.listener is not None and way.listener.public_address:
            return way.listener.public_address
        if way.listener is not None and not _is_any(way.listener.address):
            return way.listener.address
        return way.address or host_for_from(self._config)

    def _udp_contact(self, way: LocalAddress) -> str:
        """Where callees on UDP send their BYE; empty where only the system knows our address."""
        one = way.listener
        if one is None or not one.port or _is_any(one.address):
            return ""
        host = one.public_address or one.address
        return f"<sip:baton@{f'[{host}]' if ':' in host else host}:{one.port}>"

    @property
    def _own_address(self) -> str:
        return self._config.listeners[0].address if self._config.listeners else ""

    def _transport_config(self, address: str, port: int, public: str) -> Any:
        config = self._pj.TransportConfig()
        config.port = port
        config.boundAddress = address
        config.publicAddress = public
        return config

    def _secure(self, config: Any, certificate: str, key: str, ca_file: str, *, verify: bool) -> None:
        """TLS 1.2 and 1.3 only (RFC 8996), and no waiting.

        Without TCP_NODELAY an INVITE behind another on the same connection waits for an ACK that the far end may delay
        by 40 ms, after its dial-out was noted: time that would count against the buyer.
        """
        pj = self._pj
        config.tlsConfig.certFile = certificate
        config.tlsConfig.privKeyFile = key
        config.tlsConfig.CaListFile = ca_file
        config.tlsConfig.verifyServer = verify
        config.tlsConfig.verifyClient = False
        config.tlsConfig.sockOptParams.sockOpts.append(self._no_delay)
        config.tlsConfig.proto = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3

    def _trunk_transport(self, target: Target) -> int:
        """One for each way to verify and to be verified: connections are shared within it, never across."""
        mine, policy = self._config, target.policy
        certificate = policy.certificate_file or mine.trunk_certificate
        key_file = policy.key_file if policy.certificate_file else mine.trunk_key
        ca_file = policy.ca_file or mine.trunk_ca_file
        key = (target.verify_tls, ca_file, certificate, key_file)
        if key not in self._trunk_tls:
            config = self._transport_config(self._own_address, 0, "")
            self._secure(config, certificate, key_file, ca_file, verify=target.verify_tls)
            kind = self._kind(Transport.TLS, self._own_address)
            self._trunk_tls[key] = self._endpoint.transportCreate(kind, config)
        return self._trunk_tls[key]

    def _make(self, identity: str, target: Target, way: LocalAddress | None = None) -> Any:
        pj = self._pj
        default, way = way is None, way or LocalAddress()
        config = pj.AccountConfig()
        config.idUri = identity
        policy = target.policy
        config.regConfig.registerOnAdd = bool(policy.registrar)
        config.regConfig.registrarUri = policy.registrar
        config.regConfig.retryIntervalSec = REGISTER_RETRY_S
        config.callConfig.timerUse = getattr(pj, f"PJSUA_SIP_TIMER_{_TIMERS[policy.session_timer]}")
        config.callConfig.timerSessExpiresSec = policy.session_expires_s
        config.callConfig.timerMinSESec = policy.session_min_s
        prack = "NOT_USED" if default else _PRACKS[policy.prack]  # a 180 to the dialer needs no acknowledgement
        config.callConfig.prackUse = getattr(pj, f"PJSUA_100REL_{prack}")
        media = config.mediaConfig
        media.transportConfig.port = self._config.rtp_port_min
        media.transportConfig.portRange = self._config.rtp_port_max - self._config.rtp_port_min
        media.transportConfig.boundAddress = self._config.rtp_address
        media.srtpUse = {
            Srtp.OFF: pj.PJMEDIA_SRTP_DISABLED,
            Srtp.OPTIONAL: pj.PJMEDIA_SRTP_OPTIONAL,
            Srtp.MANDATORY: pj.PJMEDIA_SRTP_MANDATORY,
        }[target.srtp]
        media.srtpSecureSignaling = 0  # whether the signalling is secure is the book's to check: Endpoint.secure
        media.lockCodecEnabled = False
        config.natConfig.iceEnabled = False
        config.natConfig.contactRewriteUse = 0
        config.natConfig.viaRewriteUse = 0
        config.natConfig.sdpNatRewriteUse = 0
        contact = self._udp_contact(way) if target.transport is Transport.UDP and not default else ""
        if contact:  # otherwise PJSIP opens and connects a socket per leg to learn its own address
            config.sipConfig.contactForced = contact
        if target.transport is Transport.TLS:
            config.sipConfig.transportId = self._trunk_transport(target)
        elif target.transport is Transport.UDP and len(self._config.listeners) > 1 and not default:
            config.sipConfig.transportId = self._plain[way.listener]
        if target.username:
            config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", target.username, 0, target.password))
        account = self._new_account()
        account.create(config, default)
        return account
