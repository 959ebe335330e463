import type { KeyPair } from '../../../src/authority/keys.ts';
import { jwkProvisioner, provisionerKey, stepIntermediate, stepRoot, withTemplate } from '../../support/step-ca-server.ts';
import { NodeAgent } from '../agents.ts';
import { stepCaOrAgentMissing } from '../missing.ts';
import { announced, Pair, unannounced } from '../rotation.ts';
import { DAY_MS, StepCa } from '../step-ca.ts';
import type { Step } from '../step.ts';
import { byClients } from './clients.ts';
import { rideFaults, type Fault } from './faults.ts';
import { rideOutage } from './outage.ts';

/** What the documentation asks for: the roots are looked at each 30 s. */
const OVERLAP_MS = 60_000;

/** As `outage`, under step-ca. */
export const outageStepCa: Step = {
  title: 'step-ca is stopped for 3 minutes under load, 60 s SVIDs, the agent killed and restarted in the middle',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const ca = await StepCa.open(started);
    await rideOutage(report, started, { name: 'step-ca', config: ca.under('jwk'), stop: () => ca.server.stop(), start: () => ca.server.start() });
  },
};

/** A second root in ca.json, then an intermediate under it, then the former root goes. */
export const rotationStepCa: Step = {
  title: 'the root of step-ca is replaced, 50 connections a second between two agents',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const ca = await StepCa.open(started);
    const { root, server } = ca;
    const [next, last] = [await stepRoot('second root'), await stepRoot('third root')];
    // A node that starts after the change could not know the first root by its fingerprint.
    const pair = await Pair.start(ca.under('jwk', { pin: 'caFile' }), started);
    await announced(report, pair, {
      publish: () => server.change({ roots: [root, next] }),
      swap: async () => server.change({ intermediate: await stepIntermediate(next, 'second intermediate') }),
      remove: () => server.change({ roots: [next] }),
      roots: 2,
      waitMs: OVERLAP_MS,
    });
    await unannounced(report, pair, async () => server.change({ roots: [next, last], intermediate: await stepIntermediate(last, 'third intermediate') }));
  },
};

/** The published clients of test/interop, and OpenSSL, against an agent under step-ca. */
export const clientsStepCa: Step = {
  title: 'all methods by the published clients, under step-ca with an X5C provisioner',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const ca = await StepCa.open(started);
    // Of two minutes, so that node CAs follow themselves by their keys, under one name, while the clients look.
    const agent = started.use(await NodeAgent.start(['interop'], { ...ca.under('x5c', { ttl: '2m' }), x509: { ttl: '60s' } }));
    await byClients(report, 'step-ca', agent.socket, { hasPathLength: true });
  },
};

/** Each fault of step-ca has a log line and a metric of its own, and is over without a restart of the agent. */
export const faultsStepCa: Step = {
  title: 'faults of step-ca: each is named, and is over without a restart of the agent',
  missing: stepCaOrAgentMissing,
  async run(report) {
    // A node CA of a minute is renewed each 30 s, so that what is wrong shows soon.
    const short = { ttl: '1m', renew: false } as const;
    const svids = { x509: { ttl: '30s' }, jwt: { ttl: '30s' } };
    for (const type of ['jwk', 'x5c'] as const) {
      await using ofType = new AsyncDisposableStack();
      const ca = await StepCa.open(ofType);
      const config = { ...ca.under(type, { ...short, pin: 'copy' }), ...svids };
      await rideFaults(report, ofType, { label: type, upstream: 'step-ca', config, faults: type === 'jwk' ? jwkFaults(ca) : x5cFaults(ca), isSigned: 'issuers' });
    }
  },
};

function jwkFaults(ca: StepCa): readonly Fault[] {
  const { server } = ca;
  const { roots, intermediate, provisioners: [jwk, x5c] } = server.parts;
  if (jwk === undefined || x5c === undefined) throw new Error('step-ca has no provisioners');
  let keys: KeyPair | undefined;
  const replaceKey = async (): Promise<void> => {
    keys = await provisionerKey();
    await server.change({ provisioners: [await jwkProvisioner(keys), x5c] });
  };
  const foreign = withTemplate(jwk, { templateData: { trustDomain: 'other.example' } });
  const stranger = async (): Promise<void> => {
    const root = await stepRoot('another root');
    await server.change({ roots: [root], intermediate: await stepIntermediate(root) });
  };
  return [
    { name: 'provisioner removed', cause: () => server.change({ provisioners: [x5c] }), line: /step-ca has no provisioner signet-node-ca/, repair: () => server.change({ provisioners: [jwk, x5c] }) },
    { name: 'template of another trust domain', cause: () => server.change({ provisioners: [foreign, x5c] }), line: /is refused: .*spiffe:\/\/other\.example/, repair: () => server.change({ provisioners: [jwk, x5c] }) },
    { name: 'key of the provisioner replaced', cause: replaceKey, line: /has another key .*it was replaced/, repair: async () => ca.giveKey(keys ?? (await provisionerKey())) },
    { name: 'another CA at its address', cause: stranger, line: /TLS fails: .*not verified by/, repair: () => server.change({ roots, intermediate }) },
  ];
}

function x5cFaults(ca: StepCa): readonly Fault[] {
  const repair = (): Promise<void> => ca.certify(DAY_MS);
  return [
    { name: 'certificate ended', cause: () => ca.certify(-60_000), line: /the certificate in .* has ended at/, repair },
    { name: 'certificate of another root', cause: async () => ca.certify(DAY_MS, await stepRoot('a stranger')), line: /is not under the roots of the provisioner signet-x5c/, repair },
  ];
}
