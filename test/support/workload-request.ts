import { Flag, FrameType } from '../../src/http2/frames.ts';
import { CLIENT_SETTINGS, data, frame, grpcMessage, grpcRequest, headers, SETTINGS_ACK, WireEncoder, type WireClient } from './http2-wire.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const WINDOW_UPDATE = frame(8, 0, 0, Buffer.from([0, 1, 0, 0]));

/** All that a client sends for one FetchX509SVID, in one piece. */
export function x509Request(): Buffer {
  const block = new WireEncoder().block([...grpcRequest('/SpiffeWorkloadAPI/FetchX509SVID', 'localhost'), ['workload.spiffe.io', 'true']]);
  return Buffer.concat([PREFACE, CLIENT_SETTINGS, SETTINGS_ACK, headers(1, block), data(1, grpcMessage(Buffer.alloc(0)), true), WINDOW_UPDATE]);
}

/** What came of one FetchX509SVID: an SVID, the gRPC status, or a connection that was closed without either. */
export type Outcome = 'svid' | 'closed' | `status ${string}`;

/** Asks for an X.509-SVID over a connection on which nothing was said yet; it stays open. */
export async function askForSvid(client: WireClient): Promise<Outcome> {
  client.send(x509Request());
  try {
    await client.heard(({ streamId, type, flags }) => streamId === 1 && (type === FrameType.data || (flags & Flag.endStream) !== 0));
  } catch {
    return 'closed';
  }
  const status = client.fields(1).flat().find(([name]) => name === 'grpc-status');
  return status === undefined ? 'svid' : `status ${status[1]}`;
}
