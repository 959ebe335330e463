import test, { type ExecutionContext } from 'ava';
import { KubernetesError, refusal } from '../../src/kubernetes/api-error.ts';
import { objectAt, textAt } from '../../src/kubernetes/json.ts';
import { CertManagerError, type CertManagerFault } from '../../src/upstream/cert-manager/cert-manager-error.ts';
import type { Issued } from '../../src/upstream/cert-manager/certificate-request.ts';
import { approved, issued, openRoom, ready, REQUESTS, type Room } from '../support/cert-manager-room.ts';
import { settle } from '../support/signers.ts';

const CSR = Buffer.from('csr');
const PEM = '-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n';
const DAY = 86_400_000;
const MINUTE = 60_000;

interface Asked {
  readonly outcome: Promise<Issued | CertManagerError>;
  readonly signal: AbortController;
  state: 'waiting' | 'over';
}

function ask({ requests }: Room, isCA = true): Asked {
  const signal = new AbortController();
  const outcome = requests.issue({ csr: CSR, ttlMs: DAY, isCA }, signal.signal).catch((error: unknown) => error as CertManagerError);
  const asked: Asked = { outcome, signal, state: 'waiting' };
  void outcome.then(() => (asked.state = 'over'));
  return asked;
}

/** What it fails with, which must be due by now. */
async function failure(t: ExecutionContext, asked: Asked): Promise<CertManagerError> {
  await settle();
  t.is(asked.state, 'over');
  const error = await asked.outcome;
  if (error instanceof CertManagerError) return error;
  throw new Error(`it did not fail: ${JSON.stringify(error)}`);
}

test('what is asked for: an object whose usages are those of its request, which belongs to the Node', async (t) => {
  const room = openRoom(t, {
    nodeName: 'n1',
    prepare: (client) => void client.put('/api/v1/nodes/n1', { kind: 'Node', metadata: { name: 'n1', uid: 'u1' } }),
  });
  const asked = ask(room);
  await settle();
  const [object = {}] = room.client.requests;
  t.like(objectAt(object, 'spec'), { isCA: true, usages: ['cert sign', 'crl sign'], duration: '86400s', issuerRef: { name: 'signet', kind: 'Issuer', group: 'cert-manager.io' } });
  t.regex(Buffer.from(textAt(objectAt(object, 'spec'), 'request'), 'base64').toString(), /^-----BEGIN CERTIFICATE REQUEST-----\n/);
  t.like(objectAt(object, 'metadata'), { labels: { 'signet.dev/instance': 'abc' }, annotations: { 'signet.dev/node': 'Node_1.example' }, ownerReferences: [{ kind: 'Node', name: 'n1', uid: 'u1', apiVersion: 'v1' }] });
  t.regex(textAt(objectAt(object, 'metadata'), 'name'), /^signet-node-1\.example-[0-9a-f]{10}$/);
  room.client.answer(issued(PEM));
  t.deepEqual(await asked.outcome, { certificate: PEM, ca: '' });
});

test('an answer comes by the watch, without the clock, and the request is deleted', async (t) => {
  const room = openRoom(t);
  const asked = ask(room, false);
  await settle();
  t.deepEqual(objectAt(room.client.requests[0] ?? {}, 'spec')['usages'], ['digital signature', 'server auth', 'client auth']);
  room.client.answer(approved);
  room.client.answer(issued(PEM, PEM));
  t.deepEqual(await asked.outcome, { certificate: PEM, ca: PEM });
  await settle();
  t.deepEqual(room.client.requests, []);
  t.is(room.answered.length, 1);
  t.deepEqual(room.failed, []);
});

test('the watch ends when nothing is asked for half a minute, and begins again', async (t) => {
  const room = openRoom(t);
  await settle();
  const watches = room.client.watching;
  const first = ask(room);
  await settle();
  t.is(room.client.watching, watches + 1);
  room.client.answer(issued(PEM));
  await first.outcome;
  await room.pass(31_000);
  t.is(room.client.watching, watches);
  const second = ask(room);
  await settle();
  room.client.answer(issued(PEM));
  t.like(await second.outcome, { certificate: PEM });
});

const REFUSED: readonly (readonly [what: string, status: Readonly<Record<string, unknown>>, fault: CertManagerFault, words: RegExp])[] = [
  ['denied', { conditions: [{ type: 'Denied', status: 'True', reason: 'Policy', message: 'no\n CA' }] }, 'denied', /was denied: Policy: no CA\. What to do: let an approver/],
  ['denied, although it is approved too', { conditions: [...approved.conditions, { type: 'Denied', status: 'True', reason: 'Policy' }] }, 'denied', /was denied: Policy/],
  ['denied, as the issuer tells it', ready('Denied', 'by an approval controller'), 'denied', /by an approval controller/],
  ['failed', ready('Failed', 'Vault failed to sign certificate: unknown role'), 'failed', /Issuer signet has refused .*unknown role/],
  ['an invalid request', { conditions: [{ type: 'InvalidRequest', status: 'True', reason: 'Bad', message: 'usages' }] }, 'invalid_request', /is taken for invalid: Bad: usages/],
  ['ready without a certificate', { conditions: [{ type: 'Ready', status: 'True', reason: 'Issued' }] }, 'malformed', /holds no certificate/],
  ['a certificate without end', issued('x'.repeat(70_000)), 'malformed', /more than 65536/],
];

for (const [what, status, fault, words] of REFUSED) {
  test(`${what}: told at once under its own name, and the request stays until the next one has ended`, async (t) => {
    const room = openRoom(t);
    const asked = ask(room);
    await settle();
    room.client.answer(status);
    const error = await failure(t, asked);
    t.is(error.fault, fault);
    t.is(error.code, 'authority_unavailable');
    t.regex(error.message, words);
    t.deepEqual(room.failed, [error.message]);
    t.is(room.trouble.problem(), error.message);
    t.is(room.client.requests.length, 1, 'for kubectl describe');
    room.client.objects.clear();
    const next = ask(room);
    await settle();
    room.client.answer(issued(PEM));
    await next.outcome;
    await settle();
    t.is(room.trouble.problem(), undefined);
    t.is(room.lines.filter(({ event }) => event === 'upstream.returned').length, 1);
    t.is(room.client.calls.filter((call) => call.startsWith('delete')).length, 2, 'the refused one too');
  });
}

const STANDING: readonly (readonly [what: string, status: Readonly<Record<string, unknown>> | undefined, fault: CertManagerFault, tellMs: number, endMs: number, words: RegExp])[] = [
  ['nobody approves it', undefined, 'not_approved', 10_000, 300_000, /nobody has approved or denied .*see that cert-manager's controller runs, and let an approver/],
  ['nobody takes it up', approved, 'not_taken', 10_000, 120_000, /is approved, and nobody has taken it up.*its kind and group are right/],
  ['the issuer does not exist', ready('Pending', 'Referenced "Issuer" not found: issuer.cert-manager.io "signet" not found'), 'no_issuer', 3_000, 120_000, /Issuer signet does not exist.*authority\.certManager\.issuer/],
  ['the issuer is not ready', ready('Pending', 'Referenced issuer does not have a Ready status condition'), 'issuer_not_ready', 3_000, 120_000, /Issuer signet is not ready/],
  ["the issuer's Secret is missing", ready('Pending', 'Referenced secret signet-system/signet-root not found: secret "signet-root" not found'), 'issuer_not_ready', 3_000, 120_000, /Issuer signet is not ready/],
  ['the issuer takes its time', ready('Pending', 'Waiting on certificate issuance from order'), 'pending', 30_000, 120_000, /has not signed .* yet: Pending: Waiting on/],
];

for (const [what, status, fault, tellMs, endMs, words] of STANDING) {
  test(`${what}: told after ${tellMs / 1_000} s, once, waited for, and given up after ${endMs / 1_000} s`, async (t) => {
    const room = openRoom(t);
    const asked = ask(room);
    await settle();
    if (status !== undefined) room.client.answer(status);
    await room.pass(tellMs - 1_000);
    t.deepEqual(room.failed, []);
    await room.pass(1_000);
    t.is(room.failed.length, 1);
    t.regex(room.failed[0] ?? '', words);
    await room.pass(endMs - tellMs - 1_000);
    t.is(asked.state, 'waiting');
    await room.pass(1_000);
    const error = await failure(t, asked);
    t.is(error.fault, fault);
    t.regex(error.message, words);
    t.regex(error.message, new RegExp(`given up after ${endMs / 1_000} s`));
  });

  test(`${what}: answered at last, it is as if nothing had been`, async (t) => {
    const room = openRoom(t);
    const asked = ask(room);
    await settle();
    if (status !== undefined) room.client.answer(status);
    await room.pass(tellMs + 1_000);
    t.is(room.failed.length, 1);
    room.client.answer(issued(PEM));
    t.like(await asked.outcome, { certificate: PEM });
    t.is(room.trouble.problem(), undefined);
  });
}

test('each step begins a new patience', async (t) => {
  const room = openRoom(t);
  const asked = ask(room);
  await room.pass(299_000);
  room.client.answer(approved);
  await room.pass(119_000);
  t.is(asked.state, 'waiting');
  room.client.answer(ready('Pending', 'working'));
  await room.pass(119_000);
  t.is(asked.state, 'waiting');
  await room.pass(1_000);
  t.is((await failure(t, asked)).fault, 'pending');
});

test('deleted by somebody while it is waited for', async (t) => {
  const room = openRoom(t);
  const asked = ask(room);
  await room.pass(2_000);
  const path = [...room.client.objects.keys()].at(-1) ?? '';
  await room.client.delete(path);
  t.is((await failure(t, asked)).fault, 'deleted');
});

const ANSWERS: readonly (readonly [what: string, error: () => Error, fault: CertManagerFault, words: RegExp])[] = [
  ['no right', () => refusal('POST x', 403, { reason: 'Forbidden', message: 'certificaterequests is forbidden: User "a" cannot create resource' }), 'forbidden', /What to do: let the agent create, get, list, watch and delete certificaterequests in signet-system/],
  ['an admission policy', () => refusal('POST x', 403, { reason: 'Forbidden', message: 'is forbidden: ValidatingAdmissionPolicy "p" denied request: no' }), 'rejected', /denied request: no$/],
  ['no valid token', () => refusal('POST x', 401, { reason: 'Unauthorized' }), 'unauthenticated', /token or client certificate/],
  ['no cert-manager', () => refusal('POST x', 404, { reason: 'NotFound' }), 'not_installed', /install cert-manager/],
  ['a webhook that is away', () => refusal('POST x', 500, { message: 'failed calling webhook "webhook.cert-manager.io": connection refused' }), 'webhook', /cert-manager's webhook runs/],
  ['a webhook that refuses', () => refusal('POST x', 400, { message: 'admission webhook "webhook.cert-manager.io" denied the request: csr key usages' }), 'rejected', /csr key usages/],
  ['too many requests', () => refusal('POST x', 429, {}, '7'), 'overloaded', /429/],
  ['an overloaded server', () => refusal('POST x', 503, {}), 'overloaded', /503/],
  ['no server', () => new KubernetesError('unavailable', 'POST x: connect ECONNREFUSED'), 'unreachable', /the API server cannot be asked: .*ECONNREFUSED/],
  ['a silent server', () => new KubernetesError('timed_out', 'POST x: no answer'), 'timed_out', /no answer/],
  ['another CA', () => new KubernetesError('unavailable', 'POST x: self-signed certificate in certificate chain'), 'tls', /the cluster's CA/],
];

for (const [what, error, fault, words] of ANSWERS) {
  test(`${what}: told, and the next request may work`, async (t) => {
    const room = openRoom(t);
    room.client.fault = (verb) => {
      if (verb === 'create') throw error();
    };
    const failed = await failure(t, ask(room));
    t.is(failed.fault, fault);
    t.regex(failed.message, words);
    t.deepEqual(room.failed, [failed.message]);
    if (fault === 'overloaded' && /429/.test(failed.message)) t.is(failed.retryAfterMs, 7_000);
    room.client.fault = () => undefined;
    const next = ask(room);
    await settle();
    room.client.answer(issued(PEM));
    t.like(await next.outcome, { certificate: PEM });
  });
}

test('while the API server is away it is looked for, and its return is told at once', async (t) => {
  const room = openRoom(t);
  let returned = 0;
  room.trouble.onReturn(() => void (returned += 1));
  room.client.fault = () => {
    throw new KubernetesError('unavailable', 'connect ECONNREFUSED');
  };
  await failure(t, ask(room));
  await room.pass(5 * MINUTE);
  t.is(returned, 0);
  const probes = room.client.calls.filter((call) => call === 'get /version').length;
  t.true(probes >= 50 && probes <= 90, `${probes} probes in 5 minutes`);
  room.client.fault = () => undefined;
  await room.pass(5_000);
  t.is(returned, 1);
  await room.pass(MINUTE);
  t.is(returned, 1);
});

test('a watch that breaks off for good is what is told, and not that nobody approves', async (t) => {
  const room = openRoom(t);
  room.client.fault = (verb, path) => {
    if (path === REQUESTS && (verb === 'list' || verb === 'watch')) throw new KubernetesError('unavailable', 'GET certificaterequests: 502');
  };
  const asked = ask(room);
  await room.pass(11_000);
  t.regex(room.failed.at(-1) ?? '', /what becomes of CertificateRequests is not told: GET certificaterequests: 502/);
  room.client.fault = () => undefined;
  await room.pass(10_000);
  room.client.answer(issued(PEM));
  t.like(await asked.outcome, { certificate: PEM });
});

test('an answer that was lost: what may have been made is deleted', async (t) => {
  const room = openRoom(t);
  room.client.fault = (verb) => {
    if (verb !== 'create') return;
    room.client.put(`${REQUESTS}/signet-node-1.example-0101010101`, { kind: 'CertificateRequest', metadata: { name: 'signet-node-1.example-0101010101' } }, 'ADDED');
    throw new KubernetesError('timed_out', 'no answer');
  };
  await failure(t, ask(room));
  await settle();
  t.deepEqual(room.client.requests, []);
});

test('whoever gives up leaves nothing behind, and others go on', async (t) => {
  const room = openRoom(t);
  const [one, other] = [ask(room), ask(room)];
  await settle();
  t.is(room.client.requests.length, 2);
  one.signal.abort(new Error('not any more'));
  t.is(((await one.outcome) as Error).message, 'not any more');
  await settle();
  t.is(room.client.requests.length, 1);
  room.client.answer(issued(PEM));
  t.like(await other.outcome, { certificate: PEM });
  t.deepEqual(room.failed, []);
});

test('what a predecessor has left is deleted at the start, and nothing of anybody else', async (t) => {
  const make = (name: string, instance: string) => ({ kind: 'CertificateRequest', metadata: { name, labels: { 'signet.dev/instance': instance } } });
  const room = openRoom(t, {
    prepare: (client) => {
      for (let index = 0; index < 5; index += 1) client.put(`${REQUESTS}/old-${index}`, make(`old-${index}`, 'abc'));
      client.put(`${REQUESTS}/other`, make('other', 'xyz'));
    },
  });
  await settle();
  await settle();
  t.deepEqual(room.client.requests.map((object) => textAt(objectAt(object, 'metadata'), 'name')), ['other']);
  t.like(room.lines.find(({ event }) => event === 'upstream.leftovers'), { count: 5 });
});

test('what cannot be deleted is tried again, and told once', async (t) => {
  const room = openRoom(t);
  room.client.fault = (verb) => {
    if (verb === 'delete') throw refusal('DELETE x', 403, { reason: 'Forbidden' });
  };
  const asked = ask(room);
  await settle();
  room.client.answer(issued(PEM));
  await asked.outcome;
  await room.pass(2 * MINUTE);
  t.is(room.client.requests.length, 1);
  t.is(room.lines.filter(({ event }) => event === 'upstream.warning').length, 1);
  room.client.fault = () => undefined;
  await room.pass(31_000);
  t.deepEqual(room.client.requests, []);
});

test('the end of the agent: whoever waits hears of it, the request goes, and a server that is away does not hold it up', async (t) => {
  const room = openRoom(t);
  const asked = ask(room);
  await settle();
  await room.requests.close();
  t.regex(((await asked.outcome) as Error).message, /the agent stops/);
  t.deepEqual(room.client.requests, []);
  await t.throwsAsync(room.requests.issue({ csr: CSR, ttlMs: DAY, isCA: true }, new AbortController().signal), { code: 'stopped' });
});

test('the same trouble of one request after the other is told once', async (t) => {
  const room = openRoom(t);
  for (let count = 0; count < 5; count += 1) {
    const asked = ask(room);
    await settle();
    const [object = {}] = room.client.requests.slice(-1);
    room.client.put(`${REQUESTS}/${textAt(objectAt(object, 'metadata'), 'name')}`, { ...object, status: ready('Failed', 'no') });
    await failure(t, asked);
  }
  t.is(room.failed.length, 1);
  t.true(room.client.requests.length <= 2, 'only the last stays');
});
