import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Metadata, Server, ServerCredentials, status, type ServerDuplexStream, type ServiceError, type UntypedServiceImplementation } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { spkiOf } from '../../src/authority/certificate.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { LeafMint } from '../../src/authority/leaf-mint.ts';
import { SystemClock } from '../../src/clock.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { SpireConnection, type SpireIdentity } from '../../src/upstream/spire/connection.ts';
import { loadSpireApi, type AttestAgentRequest, type AttestAgentResponse } from '../../src/upstream/spire/messages.ts';
import { proofOf } from '../../src/upstream/spire/node-attestor.ts';
import { SpireError } from '../../src/upstream/spire/spire-error.ts';
import { certificatePem, keyPem, testIssuer } from '../support/authorities.ts';
import { popMaterial, scratch, trustDomain } from './spire-tools.ts';

const { signal: never } = new AbortController();
const SERVER = 'spiffe://example.org/spire/server';
const HOUR = 3_600_000;

interface Script {
  /** Answers GetBundle; never, when undefined. */
  readonly getBundle?: (settle: (error: Partial<ServiceError> | null, value?: object) => void) => void;
  readonly attest?: (call: ServerDuplexStream<AttestAgentRequest, AttestAgentResponse>) => void;
}

/** A server that does what no SPIRE server can be made to do. */
async function scripted(t: ExecutionContext, script: Script, { id = SERVER, callMs = 5_000, trusted = true } = {}) {
  const now = Math.floor(Date.now() / 1000) * 1000;
  const ca = await testIssuer(now - HOUR, now + HOUR);
  const keys = await newKeyPair('ec-p256');
  const { der } = await new LeafMint(systemRandom).mint(ca, { id: parseSpiffeId(id), publicKey: spkiOf(keys.publicKey), dnsNames: [], notBefore: now - 60_000, notAfter: now + HOUR });
  const api = await loadSpireApi();
  const method = (path: string, stream: boolean) => ({ path, requestStream: stream, responseStream: stream, requestSerialize: (value: Buffer) => value, requestDeserialize: (bytes: Buffer) => bytes, responseSerialize: (value: Buffer) => value, responseDeserialize: (bytes: Buffer) => bytes });
  const server = new Server();
  // The codecs of the agent are those of a client; a server needs their other halves.
  const wire = await import('@grpc/proto-loader').then((loader) => loader.load(join(import.meta.dirname, '../../proto/spire-server.proto'), { longs: Number, oneofs: true }));
  const type = (name: string) => wire[`spire.${name}`] as { serialize(value: object): Buffer; deserialize(bytes: Buffer): object };
  const implementation: UntypedServiceImplementation = {
    GetBundle: (_call: unknown, callback: (error: Partial<ServiceError> | null, value?: Buffer) => void) => script.getBundle?.((error, value) => callback(error, value && type('Bundle').serialize(value))),
    AttestAgent: (call: ServerDuplexStream<Buffer, Buffer>) => {
      const adapted = {
        on: (name: string, listener: (value: object) => void) => call.on(name, (bytes: Buffer) => listener(name === 'data' ? type('AttestAgentRequest').deserialize(bytes) : {})),
        write: (value: object) => call.write(type('AttestAgentResponse').serialize(value)),
        end: () => call.end(),
        emit: (name: string, error: Error) => call.emit(name, error),
      };
      script.attest?.(adapted as unknown as ServerDuplexStream<AttestAgentRequest, AttestAgentResponse>);
    },
  };
  server.addService({ GetBundle: method(api.codecOf('GetBundle').path, false), AttestAgent: method(api.attest.path, true) }, implementation);
  const pair = { private_key: Buffer.from(keyPem(keys)), cert_chain: Buffer.from(certificatePem(der)) };
  const port = await new Promise<number>((resolve, reject) => server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(Buffer.from(certificatePem(ca.certificate)), [pair], false), (error, bound) => (error ? reject(error) : resolve(bound))));
  t.teardown(() => server.forceShutdown());
  const roots = trusted ? [ca.certificate] : [(await testIssuer(now - HOUR, now + HOUR)).certificate];
  const connection = new SpireConnection({ host: '127.0.0.1', port, trustDomain, bundleFile: '/bundle.pem', callMs }, { clock: new SystemClock(), roots: async () => roots });
  t.teardown(() => connection.close());
  const ask = (identity?: SpireIdentity) => connection.call('GetBundle', { outputMask: { x509Authorities: true, jwtAuthorities: true, refreshHint: true, sequenceNumber: true } }, { identity, signal: never });
  return { connection, ask, server, ca };
}

async function faultOf(promise: Promise<unknown>): Promise<{ fault: string; message: string }> {
  const error = await promise.then(() => undefined, (reason: unknown) => reason);
  return error instanceof SpireError ? { fault: error.fault, message: error.message } : { fault: 'none', message: String(error) };
}

test('an answer is read as it is written', async (t) => {
  const { ask } = await scripted(t, { getBundle: (settle) => settle(null, { trustDomain: 'example.org', x509Authorities: [{ asn1: Buffer.from('x'), tainted: true }], refreshHint: 7 }) });
  t.deepEqual(await ask(), { trustDomain: 'example.org', x509Authorities: [{ asn1: Buffer.from('x'), tainted: true }], jwtAuthorities: [], refreshHint: 7, sequenceNumber: 0 } as never);
});

test('a workload of the same trust domain is not the server (X509-SVID §5.2)', async (t) => {
  const { ask } = await scripted(t, { getBundle: (settle) => settle(null, {}) }, { id: 'spiffe://example.org/ns/a/sa/b' });
  const { fault, message } = await faultOf(ask());
  t.is(fault, 'tls');
  t.regex(message, /cannot be authenticated: it is not the SPIRE server of the trust domain: its certificate is for \["spiffe:\/\/example\.org\/ns\/a\/sa\/b"\]/);
});

test('a server under other roots is not believed, and told the same way each time', async (t) => {
  const { ask } = await scripted(t, { getBundle: (settle) => settle(null, {}) }, { trusted: false });
  const [one, other] = [await faultOf(ask()), await faultOf(ask())];
  t.is(one.fault, 'tls');
  t.regex(one.message, /cannot be authenticated: .*certificate.*\. What to do: .*\/bundle\.pem$/);
  t.is(one.message, other.message);
});

test('a server that does not answer is away, and whoever gives up is let go at once', async (t) => {
  const { ask } = await scripted(t, {}, { callMs: 200 });
  t.like(await faultOf(ask()), { fault: 'timed_out' });
  const { connection } = await scripted(t, {});
  const giving = new AbortController();
  const asked = connection.call('GetBundle', { outputMask: { x509Authorities: true, jwtAuthorities: true, refreshHint: true, sequenceNumber: true } }, { signal: giving.signal });
  giving.abort(new Error('enough'));
  await t.throwsAsync(asked, { message: 'enough' });
});

test('nobody at the port is told in the same words each time', async (t) => {
  const { ask, server } = await scripted(t, {});
  server.forceShutdown();
  const [one, other] = [await faultOf(ask()), await faultOf(ask())];
  t.is(one.fault, 'unreachable');
  t.regex(one.message, /^the SPIRE server at 127\.0\.0\.1:\d+ cannot be reached: connect ECONNREFUSED 127\.0\.0\.1:\d+$/);
  t.is(one.message, other.message);
});

for (const [reason, number, fault] of [['AGENT_EXPIRED', 1, 'expired'], ['AGENT_NOT_ATTESTED', 2, 'evicted'], ['AGENT_NOT_ACTIVE', 3, 'inactive'], ['AGENT_BANNED', 4, 'banned'], ['AGENT_MUST_REATTEST', 5, 'reattest'], ['no reason', undefined, 'denied']] as const) {
  test(`PermissionDenied with ${reason} is the fault ${fault}`, async (t) => {
    const details = number === undefined ? undefined : deniedDetails(number);
    const metadata = new Metadata();
    if (details !== undefined) metadata.set('grpc-status-details-bin', details);
    const { ask } = await scripted(t, { getBundle: (settle) => settle({ code: status.PERMISSION_DENIED, details: 'authorization denied', metadata }) });
    t.like(await faultOf(ask()), { fault });
  });
}

/** google.rpc.Status with one detail, byte by byte. */
function deniedDetails(reason: number): Buffer {
  const field = (number: number, value: Buffer): Buffer => Buffer.concat([Buffer.from([(number << 3) | 2, value.length]), value]);
  const any = Buffer.concat([field(1, Buffer.from('type.googleapis.com/spire.api.types.PermissionDeniedDetails')), field(2, Buffer.from([0x08, reason]))]);
  return Buffer.concat([Buffer.from([0x08, 7]), field(3, any)]);
}

for (const [code, fault] of [[status.INVALID_ARGUMENT, 'refused'], [status.NOT_FOUND, 'not_found'], [status.RESOURCE_EXHAUSTED, 'rate_limited'], [status.INTERNAL, 'server_error'], [status.UNIMPLEMENTED, 'server_error'], [status.UNAUTHENTICATED, 'denied']] as const) {
  test(`status ${code} is the fault ${fault}, in the words of the server on one line`, async (t) => {
    const { ask } = await scripted(t, { getBundle: (settle) => settle({ code, details: 'why\nnot' }) });
    const found = await faultOf(ask());
    t.is(found.fault, fault);
    t.regex(found.message, /^GetBundle at the SPIRE server 127\.0\.0\.1:\d+: why not/);
  });
}

test('an attestation that ends without a result, or never does, is refused', async (t) => {
  const first = { params: { data: { type: 'join_token', payload: Buffer.from('x') }, params: { csr: Buffer.from('y') } } };
  const respond = (): Buffer => Buffer.from('z');
  const ended = await scripted(t, { attest: (call) => void call.on('data', () => call.end()) });
  t.like(await faultOf(ended.connection.attest(first, respond, never)), { fault: 'malformed' });
  const challenging = await scripted(t, { attest: (call) => void call.on('data', () => call.write({ challenge: Buffer.from('again') })) });
  const { fault, message } = await faultOf(challenging.connection.attest(first, respond, never));
  t.is(fault, 'malformed');
  t.regex(message, /neither a result nor a challenge/);
});

test('a join token is one word, and answers no challenge', async (t) => {
  const tokenFile = join(scratch(t), 'token');
  writeFileSync(tokenFile, ' word \n');
  const proof = await proofOf({ method: 'join_token', tokenFile }, systemRandom);
  t.is(proof.payload.toString(), 'word');
  t.throws(() => proof.respond(Buffer.from('{}')), { message: /a challenge for a token/ });
  for (const [text, why] of [['two words', /not one word/], ['', /empty/]] as const) {
    writeFileSync(tokenFile, text);
    await t.throwsAsync(proofOf({ method: 'join_token', tokenFile }, systemRandom), { message: why });
  }
  await t.throwsAsync(proofOf({ method: 'join_token', tokenFile: `${tokenFile}.no` }, systemRandom), { message: /cannot join the SPIRE server: the join token in .*ENOENT/ });
});

test('x509pop refuses what cannot prove anything, and a challenge of another kind', async (t) => {
  const directory = scratch(t);
  const { certificate, key } = popMaterial(directory, 'ec');
  const proof = await proofOf({ method: 'x509pop', certificate, key }, systemRandom);
  t.is((JSON.parse(proof.payload.toString()) as { certificates: string[] }).certificates.length, 1);
  for (const challenge of ['', '{}', '{"rsa_signature":{"nonce":"AAAA"}}', '{"ecdsa_signature":{"nonce":"AAAA"}}', '{"ecdsa_signature":null}']) {
    t.throws(() => proof.respond(Buffer.from(challenge)), { message: /no challenge of x509pop for our key \(ecdsa_signature\)/ }, challenge);
  }
  const other = join(directory, 'other.key');
  for (const [text, why] of [
    [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'pem', type: 'pkcs8' }), /do not belong together/],
    [generateKeyPairSync('ed25519').privateKey.export({ format: 'pem', type: 'pkcs8' }), /neither an EC nor an RSA key/],
    [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-128-cbc', passphrase: 'x' }), /it is encrypted/],
    ['nothing', /cannot be used/],
  ] as const) {
    writeFileSync(other, text);
    await t.throwsAsync(proofOf({ method: 'x509pop', certificate, key: other }, systemRandom), { message: why });
  }
  await t.throwsAsync(proofOf({ method: 'x509pop', certificate: key, key }, systemRandom), { message: /holds no certificate in PEM/ });
});
