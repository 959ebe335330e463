import { PassThrough } from 'node:stream';
import test from 'ava';
import { createLog, type LogFields } from '../src/log.ts';

test('a line is one JSON object with level, time, event and message', async (t) => {
  const out = new PassThrough();
  createLog('info', out).info({ event: 'agent.ready', path: '/run/api.sock' }, 'ready');
  const line = JSON.parse(String(out.read())) as Record<string, unknown>;
  t.like(line, { level: 'info', event: 'agent.ready', path: '/run/api.sock', msg: 'ready' });
  t.regex(String(line['time']), /^\d{4}-\d\d-\d\dT.*Z$/);
});

test('levels below the chosen one are not written', (t) => {
  const out = new PassThrough();
  const log = createLog('warn', out);
  log.debug({ event: 'a' }, 'a');
  log.info({ event: 'b' }, 'b');
  log.error({ event: 'c' }, 'c');
  t.is(String(out.read()).trim().split('\n').length, 1);
});

test('what has the name of a secret is cut, should it ever be logged', (t) => {
  const out = new PassThrough();
  const fields = { event: 'x', token: 'eyJ-secret', svid: 'secret-svid', nested: { privateKey: 'secret-key' } };
  createLog('info', out).info(fields as unknown as LogFields, 'x');
  t.notRegex(String(out.read()), /secret-|eyJ-secret/);
});
