import { once } from 'node:events';
import { request } from 'node:http';
import net from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { AdminServer, type AdminServerOptions } from '../../src/admin/server.ts';
import type { AdminSource } from '../../src/admin/source.ts';
import { SystemClock } from '../../src/clock.ts';
import { openKernel } from '../../src/kernel.ts';
import type { Log, LogFields } from '../../src/log.ts';

export const kernel = openKernel();

export interface TestAdmin {
  readonly server: AdminServer;
  readonly socketPath: string;
  readonly lines: readonly LogFields[];
}

/** The operator's socket of an agent that is only its source. */
export async function openAdmin(
  t: Pick<ExecutionContext, 'teardown'>,
  source: AdminSource,
  options: Partial<AdminServerOptions> = {},
): Promise<TestAdmin> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-admin-'));
  const lines: LogFields[] = [];
  const record = (fields: LogFields): void => void lines.push(fields);
  const log: Log = { debug: record, info: record, warn: record, error: record };
  const socketPath = join(directory, 'private', 'admin.sock');
  const server = new AdminServer({ socketPath, kernel, clock: new SystemClock(), log, source, ...options });
  t.teardown(async () => {
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  });
  await server.open();
  return { server, socketPath: options.socketPath ?? socketPath, lines };
}

export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: unknown;
}

/** One request, as an operator's program makes it. */
export function ask(socketPath: string, path: string, options: { method?: string; body?: string } = {}): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method: options.method ?? 'GET', agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: JSON.parse(Buffer.concat(parts).toString()),
        }),
      );
      response.on('error', reject);
    });
    asked.on('error', reject);
    asked.end(options.body);
  });
}

/** A connection that says what it is told to; resolves with all that was answered until the end. */
export class RawOperator {
  readonly socket: net.Socket;
  #text = '';

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => void (this.#text += data.toString('latin1')));
  }

  static async connect(t: Pick<ExecutionContext, 'teardown'>, socketPath: string): Promise<RawOperator> {
    const socket = net.connect(socketPath);
    t.teardown(() => void socket.destroy());
    await once(socket, 'connect');
    return new RawOperator(socket);
  }

  async answer(): Promise<string> {
    if (!this.socket.closed) await once(this.socket, 'close');
    return this.#text;
  }
}
