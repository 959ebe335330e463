import { createServer, request, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { IncomingMessage, ServerResponse } from 'node:http';

export interface Upstream {
  readonly host: string;
  readonly port: number;
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** Stands before the API server, lets everything through as `upstream`'s user, and counts what is asked. */
export class CountingProxy {
  readonly #server: Server;
  readonly #upstream: Upstream;
  readonly #counts = new Map<string, number>();

  constructor(upstream: Upstream, own: { cert: Buffer; key: Buffer }) {
    this.#upstream = upstream;
    this.#server = createServer(own, (incoming, answer) => this.#forward(incoming, answer));
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  /** `list pods: 1, watch pods: 1`, in the order in which they came first. */
  get summary(): string {
    return [...this.#counts].map(([what, count]) => `${what}: ${count}`).join(', ');
  }

  count(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  clear(): void {
    this.#counts.clear();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #forward(incoming: IncomingMessage, answer: ServerResponse): void {
    const what = kindOf(incoming);
    this.#counts.set(what, this.count(what) + 1);
    const { authorization: _none, ...headers } = incoming.headers;
    const outgoing = request(
      { ...this.#upstream, agent: false, method: incoming.method, path: incoming.url, headers },
      (response) => {
        answer.writeHead(response.statusCode ?? 502, response.headers);
        answer.flushHeaders();
        response.pipe(answer);
      },
    );
    outgoing.on('error', () => answer.destroy());
    answer.on('close', () => outgoing.destroy());
    incoming.pipe(outgoing);
  }
}

function kindOf({ method, url = '' }: IncomingMessage): string {
  const { pathname, searchParams } = new URL(url, 'https://server');
  const resource = pathname
    .split('/')
    .slice(pathname.startsWith('/api/') ? 3 : 4)
    .join('/');
  if (method !== 'GET') return `${method} ${resource}`;
  return `${searchParams.get('watch') === null ? 'get' : 'watch'} ${resource}`;
}
