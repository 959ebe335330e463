import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { keyPem, testCa } from '../support/authorities.ts';
import { jwkProvisioner, provisionerKey, stepCaMissing, stepIntermediate, stepRoot, withTemplate, x5cProvisioner } from '../support/step-ca-server.ts';
import { NAME, openStep, replaced, stepNode, stepScene, type OpenedStep, type StepScene } from '../support/step-ca-upstream.ts';
import { asking } from '../support/vault-intermediates.ts';
import { directory, listening, until } from '../support/vault-upstream.ts';

const missing = stepCaMissing();
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test.serial : test.skip;
const patience = (): AbortSignal => AbortSignal.timeout(20_000);

const tells = ({ told }: OpenedStep, words: RegExp): boolean => told.failed.some((text) => words.test(text));

/** Signing fails with these words, which are told; after `repair` whoever listens is told to ask again, it works, and nothing is wrong. */
async function passes(t: ExecutionContext, opened: OpenedStep, words: RegExp, repair: () => unknown): Promise<void> {
  const { upstream, told } = opened;
  await until(t, 'the roots are known', () => upstream.roots().length > 0);
  const roots = upstream.roots();
  await t.throwsAsync(upstream.sign(await asking(), patience()), { code: 'authority_unavailable', message: words });
  t.true(tells(opened, words), told.failed.join('\n'));
  t.regex(upstream.problem() ?? '', words);
  // What was known stays: roots that vanish would look like a rotation.
  t.deepEqual(upstream.roots(), roots);
  let nudges = 0;
  const stop = upstream.onChange(() => void (nudges += 1));
  await repair();
  await until(t, 'it is worth asking again', () => nudges > 0);
  await upstream.sign(await asking(), patience());
  await until(t, 'no problem is left', () => upstream.problem() === undefined);
  stop();
}

async function working(t: ExecutionContext, scene: StepScene, options: Parameters<typeof openStep>[2] = {}): Promise<OpenedStep> {
  const opened = openStep(t, scene, options);
  await opened.upstream.sign(await asking(), patience());
  return opened;
}

testIf(title('step-ca stopped: told once as unreachable, and found again when it is back'), async (t) => {
  const scene = await stepScene(t);
  const opened = await working(t, scene);
  await scene.server.stop();
  await until(t, 'it is told', () => tells(opened, /^https:\/\/127\.0\.0\.1:\d+ cannot be reached: ECONNREFUSED/));
  await passes(t, opened, /cannot be reached/, () => scene.server.start());
  t.is(opened.told.failed.filter((text) => text.includes('ECONNREFUSED')).length, 1);
  t.true(opened.told.lines.some(({ event }) => event === 'upstream.returned'));
});

testIf(title('another CA in its place: told as a certificate that is not verified, and found again when caFile has its root'), async (t) => {
  const scene = await stepScene(t);
  const caFile = join(directory(t), 'ca.crt');
  copyFileSync(scene.server.caFile, caFile);
  const opened = await working(t, scene, { pin: { caFile } });
  const root = await stepRoot('another root');
  await scene.server.change({ roots: [root], intermediate: await stepIntermediate(root) });
  await passes(t, opened, /TLS fails: .*not verified by .*ca\.crt\. What to do: put the CA of the server there/, () => copyFileSync(scene.server.caFile, caFile));
});

testIf(title('the provisioner removed: the one 401 of step-ca is told as what it is, and it goes on when it is back'), async (t) => {
  const scene = await stepScene(t);
  const opened = await working(t, scene);
  const { provisioners } = scene.server.parts;
  await scene.server.change({ provisioners: provisioners.filter(({ name }) => name !== NAME) });
  await passes(t, opened, /step-ca refuses the token: step-ca has no provisioner signet-node-ca\. What to do: add it/, () => scene.server.change({ provisioners }));
});

testIf(title('the key of the provisioner replaced: both keys are named, and it goes on when the file has the new one'), async (t) => {
  const scene = await stepScene(t);
  const opened = await working(t, scene);
  const keys = await provisionerKey();
  await scene.server.change({ provisioners: replaced(scene.server.parts.provisioners, await jwkProvisioner(keys)) });
  const file = scene.jwk.key ?? '';
  await passes(t, opened, /the provisioner signet-node-ca has another key \([\w-]{43}\) than .*provisioner\.key \([\w-]{43}\): it was replaced/, () => writeFileSync(file, keyPem(keys)));
});

testIf(title('a key that step-ca knows by a name of its own: the name is told, and taken from the JWK'), async (t) => {
  const scene = await stepScene(t, async ({ provisioners: [jwk, ...others] }) => ({ provisioners: [{ ...jwk, name: NAME, key: { ...(jwk?.['key'] as object), kid: 'signet' } }, ...others] }));
  const opened = openStep(t, scene);
  const file = scene.jwk.key ?? '';
  const jwk = { ...scene.keys.privateKey.export({ format: 'jwk' }), kid: 'signet' };
  await passes(t, opened, /knows its key as signet, and not as [\w-]{43}\. What to do: add "kid": "signet" to the JWK/, () => writeFileSync(file, JSON.stringify(jwk)));
});

testIf(title('a provisioner of another type is named as such'), async (t) => {
  const scene = await stepScene(t);
  const { upstream } = openStep(t, scene, { provisioner: { ...scene.jwk, name: 'signet-x5c' } as never });
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /the provisioner signet-x5c is of the type X5C and not JWK/ });
});

testIf(title('X5C: a certificate that has ended, one under another root, and one with another key are told apart; each passes'), async (t) => {
  const scene = await stepScene(t);
  const provisioner = await scene.x5c(3_600_000);
  const opened = await working(t, scene, { provisioner });
  const fresh = (): Promise<unknown> => scene.x5c(3_600_000);
  await scene.x5c(-60_000);
  await passes(t, opened, /the certificate in .*node\.crt has ended at \d.*What to do: put a new certificate and its key there/, fresh);
  await scene.x5c(3_600_000, await stepRoot('a stranger'));
  await passes(t, opened, /the certificate in .*node\.crt is not under the roots of the provisioner signet-x5c \(O=Signet tests, CN=bootstrap root\)/, fresh);
  writeFileSync(provisioner.key, keyPem(await provisionerKey()));
  await passes(t, opened, /the certificate in .*node\.crt and the key in .*node\.key do not belong together/, fresh);
});

testIf(title('a clock that is behind: the token is made again by the clock of step-ca, and the log says how much'), async (t) => {
  const scene = await stepScene(t);
  const told = listening();
  const behind = new (class extends SystemClock {
    override now(): number {
      return super.now() - 600_000;
    }
  })();
  const opened = openStep(t, scene, {}, { ...told, tools: { ...told.tools, clock: behind } });
  t.is((await opened.upstream.sign(await asking(), patience())).chain.length, 2);
  const lines = told.lines.filter(({ event }) => event === 'upstream.warning').map(({ reason = '' }) => reason);
  t.is(lines.length, 1, lines.join('\n'));
  t.regex(lines[0] ?? '', /^the clock of this machine is (599|600|601) s behind that of step-ca, which has refused a token for it/);
  t.deepEqual(told.failed, []);
});

testIf(title('a life that the provisioner does not allow is told with the claim that does'), async (t) => {
  const scene = await stepScene(t);
  const opened = await working(t, scene);
  const long = { ...(await asking()), ttlMs: 48 * 3_600_000 };
  await t.throwsAsync(opened.upstream.sign(long, patience()), { message: /sign: 403: .*authorized maximum certificate duration.*the claim maxTLSCertDuration/ });
});

const TEMPLATES: readonly (readonly [string, object, RegExp])[] = [
  ['no CA', { template: '{"uris": ["spiffe://example.org"], "keyUsage": ["digitalSignature"]}' }, /it is not a CA/],
  ['no path length', { template: '{"subject": {"organization": "x"}, "uris": ["spiffe://example.org"], "keyUsage": ["certSign"], "basicConstraints": {"isCA": true, "maxPathLen": -1}}' }, /its path length is not limited and not 0/],
  ['another trust domain', { templateData: { trustDomain: 'evil.org' } }, /spiffe:\/\/evil\.org/],
  ['no ID', { template: '{"subject": {"organization": "x"}, "keyUsage": ["certSign"], "basicConstraints": {"isCA": true, "maxPathLen": 0}}' }, /its URI SANs are \[\]/],
  ['no keyCertSign', { template: '{"subject": {"organization": "x"}, "uris": ["spiffe://example.org"], "keyUsage": ["digitalSignature"], "basicConstraints": {"isCA": true, "maxPathLen": 0}}' }, /lacks the key usage keyCertSign/],
  ['an empty subject', { template: '{"uris": ["spiffe://example.org"], "keyUsage": ["certSign"], "basicConstraints": {"isCA": true, "maxPathLen": 0}}' }, /its subject is empty/],
];

for (const [what, template, words] of TEMPLATES) {
  testIf(title(`a template that gives ${what}: refused, while the node CA that there is signs on (X509-SVID §4)`), async (t) => {
    const scene = await stepScene(t);
    const opened = openStep(t, scene);
    const refusals: string[] = [];
    opened.told.tools.events.on('authorityFailed', ({ error }) => void refusals.push(error));
    const privateDir = directory(t);
    const good = await stepNode(t, opened, { privateDir });
    const before = good.issuer().certificate;
    await good.close();
    const { provisioners } = scene.server.parts;
    const [jwk] = provisioners;
    if (jwk === undefined) return void t.fail();
    const { templateFile: _, ...rest } = (jwk['options'] as { x509: Record<string, unknown> }).x509;
    const bare = 'template' in template ? { ...jwk, options: { x509: rest } } : jwk;
    await scene.server.change({ provisioners: replaced(provisioners, withTemplate(bare, template)) });
    // The other constraint makes another node CA due.
    const node = await stepNode(t, opened, { privateDir, nameConstraint: 'uri', acceptUnconstrainedCA: what !== 'no path length' });
    await until(t, 'it is told', () => refusals.some((text) => words.test(text)));
    t.deepEqual(node.issuer().certificate, before);
    t.regex(node.status().failing ?? '', words);
    await scene.server.change({ provisioners: replaced(provisioners, withTemplate(jwk, { templateData: { nameConstraint: 'uri' } })) });
    await until(t, 'another one signs', () => !node.issuer().certificate.equals(before));
    await until(t, 'nothing fails', () => node.status().failing === undefined);
  });
}

testIf(title('a template that cannot be evaluated is told with where to look'), async (t) => {
  const scene = await stepScene(t);
  const opened = await working(t, scene);
  const { provisioners } = scene.server.parts;
  const [jwk] = provisioners;
  if (jwk === undefined) return void t.fail();
  const { templateFile: _, ...x509 } = (jwk['options'] as { x509: Record<string, unknown> }).x509;
  await scene.server.change({ provisioners: replaced(provisioners, { ...jwk, options: { x509: { ...x509, template: '{"uris": {{ toJson .Nothing.There }} ' } } }) });
  await passes(t, opened, /sign: (400|500): /, () => scene.server.change({ provisioners }));
});

testIf(title('a node goes on signing while step-ca is away, a restart included, and renews when it is back'), async (t) => {
  const scene = await stepScene(t);
  const opened = openStep(t, scene);
  const privateDir = directory(t);
  const node = await stepNode(t, opened, { privateDir, ttlMs: 30_000 });
  const first = node.issuer().certificate;
  await scene.server.stop();
  await until(t, 'the failure is told', () => node.status().failing !== undefined);
  await node.close();
  const again = await stepNode(t, opened, { privateDir, ttlMs: 30_000 });
  t.deepEqual(again.issuer().certificate, first);
  await scene.server.start();
  await until(t, 'a new node CA signs', () => !again.issuer().certificate.equals(first));
  t.is(again.status().failing, undefined);
});

testIf(title('x5c roots that are one of several'), async (t) => {
  const [one, other] = [await stepRoot('one'), await testCa({ from: Date.now() - 1_000, to: Date.now() + 3_600_000 })];
  const scene = await stepScene(t, async ({ provisioners }) => {
    const both = [x5cProvisioner(one)['roots'], x5cProvisioner(other)['roots']].map((text) => Buffer.from(String(text), 'base64').toString());
    return { provisioners: replaced(provisioners, x5cProvisioner(one, { name: 'signet-x5c', roots: Buffer.from(both.join('')).toString('base64') })) };
  });
  const provisioner = await scene.x5c(3_600_000, other);
  t.is((await openStep(t, scene, { provisioner }).upstream.sign(await asking(), patience())).chain.length, 2);
});
