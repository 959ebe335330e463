"""Drives the Python packages spiffe and spiffe-tls against a Workload API; the contract is in ../README.md."""

import json
import logging
import queue
import socket
import sys
import time
import warnings

from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier
from OpenSSL import SSL
from spiffe import JwtSource, JwtSvid, SpiffeId, WorkloadApiClient, X509Source
from spiffetls.context import create_ssl_context
from spiffetls.tlsconfig.authorize import authorize_id, authorize_member_of

CALL_TIMEOUT = 30
ROTATE_TIMEOUT = 90
OTHER_AUDIENCE = 'another-audience'


def emit(**line):
    print(json.dumps(line), flush=True)


def x509():
    with WorkloadApiClient(default_timeout=CALL_TIMEOUT) as client:
        context = client.fetch_x509_context()
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    emit(
        id=str(svid.spiffe_id),
        hint=None,  # this client does not keep the hint
        chain=len(svid.cert_chain),
        bundle=len(bundle.x509_authorities),
        notAfter=int(svid.leaf.not_valid_after_utc.timestamp()),
    )


def rotate():
    deadline = time.monotonic() + ROTATE_TIMEOUT
    updates = queue.SimpleQueue()
    serials = set()
    with X509Source(timeout_in_seconds=CALL_TIMEOUT) as source:
        source.subscribe_for_updates(lambda: updates.put(None))
        while True:
            serial = format(source.get_x509_context().default_svid.leaf.serial_number, 'x')
            emit(serial=serial)
            serials.add(serial)
            if len(serials) == 2:
                return
            updates.get(timeout=max(0, deadline - time.monotonic()))


def jwt(audience):
    with (
        WorkloadApiClient(default_timeout=CALL_TIMEOUT) as client,
        JwtSource(client, timeout_in_seconds=CALL_TIMEOUT) as source,
    ):
        fetched = source.fetch_svid({audience})
        bundle = source.get_bundle_for_trust_domain(fetched.spiffe_id.trust_domain)
        local = JwtSvid.parse_and_validate(fetched.token, bundle, {audience})
        remote = client.validate_jwt_svid(fetched.token, audience)
        emit(
            local={'sub': str(local.spiffe_id), 'aud': sorted(local.audience)},
            remote={'sub': str(remote.spiffe_id), 'aud': sorted(remote.audience)},
            refused={
                'local': refusal(lambda: JwtSvid.parse_and_validate(fetched.token, bundle, {OTHER_AUDIENCE})),
                'remote': refusal(lambda: client.validate_jwt_svid(fetched.token, OTHER_AUDIENCE)),
            },
        )


def refusal(call):
    """The text of the error with which the call is refused; empty if it is not."""
    try:
        call()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return ''


def bundles():
    with WorkloadApiClient(default_timeout=CALL_TIMEOUT) as client:
        x509_bundles = client.fetch_x509_bundles().bundles
        jwt_bundles = client.fetch_jwt_bundles().bundles
    emit(
        x509={bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in x509_bundles},
        jwt={bundle.trust_domain.name: sorted(bundle.jwt_authorities) for bundle in jwt_bundles},
    )


def serve():
    with X509Source(timeout_in_seconds=CALL_TIMEOUT) as source, socket.socket() as listener:
        trust_domain = source.get_x509_context().default_svid.spiffe_id.trust_domain
        context = create_ssl_context(SSL.TLS_SERVER_METHOD, source, authorize_member_of(trust_domain))
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        listener.settimeout(CALL_TIMEOUT)
        emit(port=listener.getsockname()[1])
        while True:
            raw, _ = listener.accept()
            raw.setblocking(True)
            try:
                emit(peer=answer(SSL.Connection(context, raw)))
                return
            except (SSL.Error, OSError) as error:
                emit(refused=str(error) or type(error).__name__)
            finally:
                raw.close()


def answer(connection):
    connection.set_accept_state()
    connection.do_handshake()
    peer = peer_id(connection)
    connection.sendall(f'{peer}\n'.encode())
    connection.shutdown()
    return peer


def dial(port, expected):
    with X509Source(timeout_in_seconds=CALL_TIMEOUT) as source, socket.create_connection(('127.0.0.1', int(port))) as raw:
        raw.setblocking(True)
        context = create_ssl_context(SSL.TLS_CLIENT_METHOD, source, authorize_id(SpiffeId(expected)))
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        connection.do_handshake()
        emit(peer=peer_id(connection), seen=read_line(connection))


def read_line(connection):
    line = b''
    while not line.endswith(b'\n'):
        line += connection.recv(1024)
    return line.decode().strip()


def peer_id(connection):
    certificate = connection.get_peer_certificate().to_cryptography()
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    return str(SpiffeId(names.get_values_for_type(UniformResourceIdentifier)[0]))


COMMANDS = {'x509': x509, 'rotate': rotate, 'jwt': jwt, 'bundles': bundles, 'serve': serve, 'dial': dial}


def main(name, *arguments):
    # spiffe-tls 0.4.0 itself calls what spiffe 0.3.2 deprecates.
    warnings.simplefilter('ignore', DeprecationWarning)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        COMMANDS[name](*arguments)
    except Exception as error:
        emit(error=f'{type(error).__name__}: {error}')
        sys.exit(1)


if __name__ == '__main__':
    main(*sys.argv[1:])
