const TLS_HANDSHAKE = 0x16;

/** What a connection that does not begin with HTTP/2 seems to begin with, for a message. */
export function describeOpening(bytes: Buffer): string {
  if (bytes[0] === TLS_HANDSHAKE) return 'a TLS handshake';
  return /^[A-Z]{2,20} /.test(bytes.toString('latin1', 0, 32)) ? 'an HTTP/1.1 request' : 'other bytes';
}
