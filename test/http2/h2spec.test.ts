import test from 'ava';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { SystemClock } from '../../src/clock.ts';
import { answer, SessionServer } from '../support/session-server.ts';
import { bridgeTo } from '../support/tcp-bridge.ts';
import { toolchainMissing } from '../support/toolchains.ts';

// https://github.com/summerwind/h2spec says what RFC 7540 and RFC 7541 ask of a server; made once, with Go.
const PROGRAM = 'github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible';
const CACHE = fileURLToPath(new URL('../../.cache/h2spec/', import.meta.url));

const run = promisify(execFile);
const missing = toolchainMissing('go');
const testIf = missing === undefined ? test : test.skip;

testIf(`h2spec finds nothing${missing === undefined ? '' : ` (skipped: ${missing})`}`, async (t) => {
  const program = join(CACHE, 'h2spec');
  mkdirSync(CACHE, { recursive: true });
  if (!existsSync(program)) await run('go', ['install', PROGRAM], { env: { ...process.env, GOBIN: CACHE } });
  const server = await SessionServer.open({
    clock: new SystemClock(),
    // An answer that has a body, and a moment later, so that streams are open at the same time.
    onEnd: (served) => setImmediate(() => {
      served.body.push(Buffer.from('x'));
      answer(served);
    }),
  });
  const bridge = await bridgeTo(server.path);
  t.teardown(() => {
    bridge.close();
    server.close();
  });
  const report = join(CACHE, `report-${process.pid}.xml`);
  const { stdout } = await run(program, ['-h', '127.0.0.1', '-p', String(bridge.port), '-o', '1', '-j', report]).catch((error: { stdout: string }) => error);
  const xml = readFileSync(report, 'utf8');
  t.deepEqual([...xml.matchAll(/classname="([^"]*)"[^>]*>\s*<(?:error|failure)/g)].map(([, name]) => name), []);
  t.regex(stdout, /1\d\d tests, 1\d\d passed, \d skipped, 0 failed/);
  t.deepEqual(server.opened.map(({ session }) => session.hasRequests).length > 100, true);
  bridge.close();
  await Promise.all(server.opened.map(({ closed }) => closed));
  t.is(server.held, 0);
});
