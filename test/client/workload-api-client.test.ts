import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import test from 'ava';
import type { X509Context } from '../../src/client/responses.ts';
import { WorkloadApiClient, type WatchSettings } from '../../src/client/workload-api-client.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { refusal, startFaultyServer, type Behaviour, type FaultyServer } from './faulty-server.ts';
import { ID, mint, mintCa } from './minted.ts';

const ca = await mintCa();
const leaf = await mint();
const GOOD = { svids: [{ spiffe_id: ID, x509_svid: leaf.der, x509_svid_key: leaf.key, bundle: ca.der }] };

async function serverFor(t: { teardown(stop: () => Promise<void>): void }, behaviour: Behaviour): Promise<FaultyServer> {
  const server = await startFaultyServer(behaviour);
  t.teardown(() => server.stop());
  return server;
}

/** Watches until `count` things have happened, moving the clock on past each wait. Returns them in order. */
async function watchUntil(endpoint: string, count: number): Promise<string[]> {
  const clock = new FakeClock();
  const stop = new AbortController();
  const seen: string[] = [];
  const note = (what: string): void => {
    seen.push(what);
    if (seen.length >= count) stop.abort();
  };
  const onTrouble: WatchSettings['onTrouble'] = (error, retryMs) => {
    note(`${'code' in error ? error.code : ''} ${retryMs ?? 'goes on'}`);
    // The wait begins after this call.
    if (retryMs !== undefined) void setImmediate().then(() => clock.advance(retryMs));
  };
  const client = new WorkloadApiClient({ endpoint, clock, random: { fraction: () => 0.5, bytes: (size) => Buffer.alloc(size) } });
  for await (const update of client.watchX509({ signal: stop.signal, onTrouble })) note(`update ${update.identities.length}`);
  return seen;
}

test('WE-07: every request carries the security header', async (t) => {
  const server = await serverFor(t, { FetchX509SVID: (call) => void call.write(GOOD) });
  await withClient(server, async (client) => {
    await client.fetchX509();
    await client.fetchJwtSvids({ audience: ['a'] }).catch(() => undefined);
    await client.validateJwtSvid({ audience: 'a', token: 't' }).catch(() => undefined);
  });
  t.deepEqual(server.headers, [['true'], ['true'], ['true']]);
});

test('WA-08: a watch whose stream ends with OK connects again', async (t) => {
  const server = await serverFor(t, {
    FetchX509SVID: (call) => {
      call.write(GOOD);
      call.end();
    },
  });
  t.deepEqual(await watchUntil(server.endpoint, 4), ['update 1', 'unavailable 100', 'update 1', 'unavailable 200']);
});

test('WE-24: a watch goes on after Unavailable and Internal, with growing waits', async (t) => {
  const server = await serverFor(t, {
    FetchX509SVID: (call, attempt) => {
      if (attempt === 4) call.write(GOOD);
      else call.emit('error', refusal(attempt % 2 === 0 ? status.INTERNAL : status.UNAVAILABLE, 'busy'));
    },
  });
  t.deepEqual(await watchUntil(server.endpoint, 4), ['unavailable 100', 'failed 200', 'unavailable 400', 'update 1']);
});

test('WE-26, WA-27: a watch goes on after PermissionDenied, and says once that everything was withdrawn', async (t) => {
  const server = await serverFor(t, {
    FetchX509SVID: (call, attempt) => {
      if (attempt !== 2 && attempt !== 3) call.write(GOOD);
      if (attempt !== 4) call.emit('error', refusal(status.PERMISSION_DENIED, 'no identity issued'));
    },
  });
  const seen = await watchUntil(server.endpoint, 6);
  t.deepEqual(seen, ['update 1', 'update 0', 'no_identity 1000', 'no_identity 2000', 'no_identity 4000', 'update 1']);
});

for (const [rule, code] of [['WE-22', 'INVALID_ARGUMENT'], ['WE-32', 'UNIMPLEMENTED']] as const) {
  test(`${rule}: a watch ends after ${code}, with one attempt`, async (t) => {
    const server = await serverFor(t, { FetchX509SVID: (call) => void call.emit('error', refusal(status[code], 'no')) });
    await t.throwsAsync(watchUntil(server.endpoint, 2), { code: code.toLowerCase() });
    t.is(server.headers.length, 1);
  });
}

test('WA-18: a malformed update is reported and dropped, and the stream goes on', async (t) => {
  const server = await serverFor(t, {
    FetchX509SVID: (call) => {
      call.write(GOOD);
      call.write({ svids: [{ ...GOOD.svids[0], x509_svid_key: Buffer.alloc(0) }] });
      call.write(GOOD);
    },
  });
  t.deepEqual(await watchUntil(server.endpoint, 3), ['update 1', 'invalid_svid goes on', 'update 1']);
});

test('WA-14, WA-15: a field that is empty in a later update is empty', async (t) => {
  const server = await serverFor(t, {
    FetchX509SVID: (call) => {
      call.write({ svids: [{ ...GOOD.svids[0], hint: 'h' }], crl: [Buffer.from('crl')], federated_bundles: { 'spiffe://partner.test': ca.der } });
      call.write(GOOD);
    },
  });
  const updates: X509Context[] = [];
  for await (const update of new WorkloadApiClient({ endpoint: server.endpoint }).watchX509()) {
    if (updates.push(update) === 2) break;
  }
  t.deepEqual(updates.map(({ bundles, crls, identities }) => [bundles.size, crls.length, identities[0]?.hint]), [[2, 1, 'h'], [1, 0, '']]);
});

test('a watch ends quietly, and its call is cancelled, when its signal is aborted', async (t) => {
  const calls: Promise<unknown>[] = [];
  const server = await serverFor(t, {
    FetchX509SVID: (call) => {
      calls.push(once(call, 'cancelled'));
      call.write(GOOD);
    },
  });
  const stop = new AbortController();
  for await (const _ of new WorkloadApiClient({ endpoint: server.endpoint }).watchX509({ signal: stop.signal })) stop.abort();
  await Promise.all(calls);
  t.is(calls.length, 1);
});

test('a fetch makes one attempt', async (t) => {
  const server = await serverFor(t, { FetchX509SVID: (call) => void call.emit('error', refusal(status.UNAVAILABLE, 'starting')) });
  await withClient(server, (client) => t.throwsAsync(client.fetchX509(), { code: 'unavailable', message: 'starting' }));
  t.is(server.headers.length, 1);
});

test('a fetch whose stream ends with OK and without a message fails', async (t) => {
  const server = await serverFor(t, { FetchX509SVID: (call) => void call.end() });
  await withClient(server, (client) => t.throwsAsync(client.fetchX509(), { code: 'unavailable' }));
});

test('a fetch that is not answered ends at its deadline', async (t) => {
  const server = await serverFor(t, {});
  const client = new WorkloadApiClient({ endpoint: server.endpoint, timeoutMs: 200 });
  await t.throwsAsync(client.fetchX509(), { code: 'timed_out' });
});

test('a fetch rejects with the reason of its signal', async (t) => {
  const stop = new AbortController();
  const server = await serverFor(t, { FetchX509SVID: () => stop.abort(new Error('enough')) });
  await withClient(server, (client) => t.throwsAsync(client.fetchX509({ signal: stop.signal }), { message: 'enough' }));
});

test('WA-52: claims of every kind come through the Struct', async (t) => {
  const claims = {
    fields: {
      text: { stringValue: 'x' },
      empty: { stringValue: '' },
      zero: { numberValue: 0 },
      no: { boolValue: false },
      nothing: { nullValue: 0 },
      list: { listValue: { values: [{ stringValue: 'a' }, { numberValue: 1.5 }] } },
      none: { listValue: {} },
      deep: { structValue: { fields: { a: { structValue: { fields: {} } } } } },
    },
  };
  const server = await serverFor(t, { ValidateJWTSVID: () => ({ spiffe_id: ID, claims }) });
  const expected = { text: 'x', empty: '', zero: 0, no: false, nothing: null, list: ['a', 1.5], none: [], deep: { a: {} } };
  await withClient(server, async (client) => {
    t.deepEqual(await client.validateJwtSvid({ audience: 'a', token: 't' }), { id: ID as never, claims: expected });
  });
});

test('WA-37: audiences and the ID asked for reach the server', async (t) => {
  const requests: object[] = [];
  const server = await serverFor(t, {
    FetchJWTSVID: (request) => {
      requests.push({ ...request });
      return refusal(status.PERMISSION_DENIED, 'no identity issued');
    },
  });
  await withClient(server, (client) => t.throwsAsync(client.fetchJwtSvids({ audience: ['b', 'a'], id: ID as never }), { code: 'no_identity', message: 'no identity issued' }));
  t.deepEqual(requests, [{ audience: ['b', 'a'], spiffe_id: ID }]);
});

async function withClient(server: FaultyServer, work: (client: WorkloadApiClient) => Promise<unknown>): Promise<void> {
  await using client = new WorkloadApiClient({ endpoint: server.endpoint });
  await work(client);
}
