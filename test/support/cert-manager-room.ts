import 'reflect-metadata';
import { createPublicKey } from 'node:crypto';
import { Pkcs10CertificateRequest } from '@peculiar/x509';
import type { ExecutionContext } from 'ava';
import { profileProblem, readCa } from '../../src/authority/ca-certificate.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { objectAt, textAt } from '../../src/kubernetes/json.ts';
import type { LogFields } from '../../src/log.ts';
import type { Random } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { Anchors, type AnchorsOptions } from '../../src/upstream/cert-manager/anchors.ts';
import { faultOf } from '../../src/upstream/cert-manager/cert-manager-error.ts';
import { CertificateRequests } from '../../src/upstream/cert-manager/requests.ts';
import { Trouble } from '../../src/upstream/cert-manager/trouble.ts';
import { certificatePem, testCa, type TestCa, type TestCaOptions } from './authorities.ts';
import { FakeClock } from './fake-clock.ts';
import { MemoryRequests } from './memory-requests.ts';
import { settle } from './signers.ts';

export const trustDomain = parseTrustDomain('example.org');
export const ISSUER = { name: 'signet', kind: 'Issuer', group: 'cert-manager.io' };
export const REQUESTS = '/apis/cert-manager.io/v1/namespaces/signet-system/certificaterequests';
const CONFIG_MAPS = '/api/v1/namespaces/signet-system/configmaps';

/** In the ConfigMap from the beginning. */
export const believed = await testCa({ name: 'CN=Believed root' });

/** All that the upstream stands on, on a clock that stands still. */
export interface Room {
  readonly clock: FakeClock;
  readonly client: MemoryRequests;
  readonly trouble: Trouble;
  readonly requests: CertificateRequests;
  readonly anchors: Anchors;
  readonly failed: string[];
  readonly answered: Events['upstreamAnswered'][];
  readonly lines: LogFields[];
  readonly tools: { clock: FakeClock; random: Random; events: EventBus; log: Record<'debug' | 'info' | 'warn' | 'error', (fields: LogFields) => void> };
  /** Lets `ms` pass in steps of a second at most. */
  pass(ms: number): Promise<void>;
  /** What the ConfigMap says from now on. */
  believe(...roots: readonly TestCa[]): void;
  configMap(text: string): void;
}

export function openRoom(t: ExecutionContext, options: { readonly nodeName?: string; readonly anchors?: Partial<AnchorsOptions>; readonly prepare?: (client: MemoryRequests) => void } = {}): Room {
  const [clock, client, events] = [new FakeClock(), new MemoryRequests(), new EventBus()];
  const configMap = (text: string): void => {
    const path = `${CONFIG_MAPS}/signet-roots`;
    client.put(path, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'signet-roots' }, data: { 'ca.crt': text } }, client.objects.has(path) ? 'MODIFIED' : 'ADDED');
  };
  configMap(certificatePem(believed.certificate));
  options.prepare?.(client);
  const [failed, answered, lines]: [string[], Events['upstreamAnswered'][], LogFields[]] = [[], [], []];
  events.on('upstreamFailed', ({ upstream, error }) => void failed.push(upstream === 'cert-manager' ? error : `${upstream}?`));
  events.on('upstreamAnswered', (fact) => void answered.push(fact));
  const note = (fields: LogFields): void => void lines.push(fields);
  let count = 0;
  const random: Random = { fraction: () => 0.5, bytes: (size) => Buffer.alloc(size, (count += 1)) };
  const tools = { clock, random, events, log: { debug: note, info: note, warn: note, error: note } };
  const trouble = new Trouble(tools, () => client.get('/version').catch((error: unknown) => Promise.reject(faultOf(error, 'signet-system'))));
  const judgeRoot = (root: Buffer): string | undefined => profileProblem(readCa(root), trustDomain)?.what;
  const anchors = new Anchors({ files: [], configMap: { namespace: 'signet-system', name: 'signet-roots', key: 'ca.crt' }, ...options.anchors }, { ...tools, client, trouble, judgeRoot });
  const owner = { node: 'Node_1.example', instance: 'abc' };
  const requests = new CertificateRequests({ namespace: 'signet-system', issuer: ISSUER, owner, nodeName: options.nodeName }, { ...tools, client, trouble });
  t.teardown(async () => {
    client.fault = () => undefined;
    await requests.close();
    await anchors.close();
    trouble.close();
  });
  return {
    clock,
    client,
    trouble,
    requests,
    anchors,
    failed,
    answered,
    lines,
    tools,
    pass: async (ms) => {
      for (let left = ms; left > 0; left -= 1_000) {
        await settle();
        clock.advance(Math.min(left, 1_000));
      }
      await settle();
    },
    believe: (...roots) => configMap(roots.map(({ certificate }) => certificatePem(certificate)).join('')),
    configMap,
  };
}

/** The status of a request that was signed. */
export function issued(certificate: string, ca = ''): Readonly<Record<string, unknown>> {
  const encode = (text: string): string => Buffer.from(text).toString('base64');
  const conditions = [{ type: 'Approved', status: 'True', reason: 'cert-manager.io' }, { type: 'Ready', status: 'True', reason: 'Issued' }];
  return { conditions, certificate: encode(certificate), ...(ca === '' ? {} : { ca: encode(ca) }) };
}

export const approved = { conditions: [{ type: 'Approved', status: 'True', reason: 'cert-manager.io' }] };

export function ready(reason: string, message: string): Readonly<Record<string, unknown>> {
  return { conditions: [...approved.conditions, { type: 'Ready', status: 'False', reason, message }] };
}

/** Signs the public key of the one request that there is, as an issuer of cert-manager does: without path length, from this moment on. */
export async function signOpen({ client, clock }: Room, parent: TestCa, changes: TestCaOptions = {}): Promise<Buffer> {
  const [object = {}] = client.requests;
  const spec = objectAt(object, 'spec');
  const csr = new Pkcs10CertificateRequest(Buffer.from(textAt(spec, 'request'), 'base64').toString());
  const publicKey = createPublicKey({ key: Buffer.from(csr.publicKey.rawData), format: 'der', type: 'spki' });
  // Only the public half is looked at.
  const keys = { publicKey, privateKey: parent.privateKey };
  const from = clock.now();
  const to = from + Number.parseInt(textAt(spec, 'duration')) * 1_000;
  const { certificate } = await testCa({ parent, keys, name: csr.subject, uris: ['spiffe://example.org'], from, to, ...changes });
  return certificate;
}
