"""`verify.py <roots.pem> <chain.pem>...`: what Python's TLS (OpenSSL) and the package `cryptography` say of each chain.

One line `accept` or `refuse <why>` for each chain, after a line with the version; first for one, then for the other. The key of each
chain is beside it (`.key`).
"""
import ssl
import sys

ROOTS, *CHAINS = sys.argv[1:]


def contexts(chain):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    for context in (server, client):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ROOTS)
        context.load_cert_chain(chain, chain.replace(".pem", ".key"))
    return server, client


def handshake(chain):
    """Both sides show the chain."""
    server_context, client_context = contexts(chain)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up)
    server = server_context.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    for _ in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    if waiting:
        raise RuntimeError("the handshake does not end")


def tell(name, verify):
    print(name)
    for chain in CHAINS:
        try:
            verify(chain)
            print("accept")
        except Exception as error:
            print("refuse", str(error).replace("\n", " "))


tell(f"Python {sys.version.split()[0]} ssl ({ssl.OPENSSL_VERSION})", handshake)

try:
    import cryptography
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store
except ImportError:
    sys.exit(0)


def path(chain):
    with open(ROOTS, "rb") as roots, open(chain, "rb") as certificates:
        store = Store(x509.load_pem_x509_certificates(roots.read()))
        leaf, *between = x509.load_pem_x509_certificates(certificates.read())
    PolicyBuilder().store(store).build_client_verifier().verify(leaf, between)


tell(f"cryptography {cryptography.__version__} (ClientVerifier)", path)
