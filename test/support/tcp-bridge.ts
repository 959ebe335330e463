import { once } from 'node:events';
import net from 'node:net';

/** A port on the loopback whose connections go on to a Unix socket, for programs that speak TCP only. */
export interface TcpBridge {
  readonly port: number;
  close(): void;
}

export async function bridgeTo(socketPath: string): Promise<TcpBridge> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = net.connect({ path: socketPath, allowHalfOpen: true });
    for (const [from, to] of [[near, far], [far, near]] as const) {
      sockets.add(from);
      // Whichever side goes, the other one goes too.
      from.on('error', () => undefined);
      from.on('close', () => {
        sockets.delete(from);
        to.destroySoon();
      });
      from.pipe(to);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  return {
    port,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
