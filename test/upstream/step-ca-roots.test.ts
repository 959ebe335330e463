import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { certificatePem } from '../support/authorities.ts';
import { stepCaMissing, stepIntermediate, stepRoot } from '../support/step-ca-server.ts';
import { openStep, stepNode, stepScene } from '../support/step-ca-upstream.ts';
import { asking, leafOf, openssl } from '../support/vault-intermediates.ts';
import { directory, until } from '../support/vault-upstream.ts';

const missing = stepCaMissing();
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test.serial : test.skip;

testIf(title('a root is replaced: in the bundle first, signing after the overlap, the connection by fingerprint goes on; then the former one leaves'), async (t) => {
  const scene = await stepScene(t);
  // A look takes time, and the old one must still be found signing after it.
  const opened = openStep(t, scene, { pollMs: 1_500 });
  const node = await stepNode(t, opened);
  const before = node.issuer().certificate;
  const next = await stepRoot('next root');
  await scene.server.change({ roots: [scene.root, next] });
  await until(t, 'both roots are in the bundle', () => node.current().x509Authorities.length === 2);
  t.deepEqual(node.issuer().certificate, before);
  await scene.server.change({ intermediate: await stepIntermediate(next, 'next intermediate') });
  await until(t, 'the new node CA signs', () => !node.issuer().certificate.equals(before));
  t.is(node.intermediates().length, 2);
  t.regex(openssl(t, [await leafOf(node), ...node.intermediates()], [next.certificate]), /: OK/);
  await scene.server.change({ roots: [next] });
  await until(t, 'the former root is left', () => opened.upstream.roots().length === 1);
  // What stands under it may still be in use.
  t.is(node.current().x509Authorities.length, 2);
  await opened.upstream.sign(await asking(), AbortSignal.timeout(20_000));
  t.is(opened.upstream.problem(), undefined);
});

testIf(title('a node CA under a new root that nobody has yet signs only after the overlap; until then the old one does'), async (t) => {
  const scene = await stepScene(t);
  const opened = openStep(t, scene, { pollMs: 1_500, pin: { caFile: scene.server.caFile } });
  const node = await stepNode(t, opened);
  const before = node.issuer().certificate;
  const next = await stepRoot('next root');
  await scene.server.change({ roots: [scene.root, next], intermediate: await stepIntermediate(next) });
  await until(t, 'both roots are in the bundle', () => node.current().x509Authorities.length === 2);
  t.deepEqual(node.issuer().certificate, before);
  await until(t, 'the new node CA signs', () => !node.issuer().certificate.equals(before));
  t.regex(openssl(t, [await leafOf(node), ...node.intermediates()], [next.certificate]), /: OK/);
});

testIf(title('further roots come from files; those of a federation and of another trust domain are not believed'), async (t) => {
  const scene = await stepScene(t);
  const further = await stepRoot('further root');
  const file = join(directory(t), 'further.pem');
  writeFileSync(file, certificatePem(further.certificate));
  const opened = openStep(t, scene, { roots: [file] });
  await until(t, 'both are known', () => opened.upstream.roots().length === 2);
  const foreign = await stepRoot('foreign root', { uris: ['spiffe://other.example'] });
  await scene.server.change({ roots: [scene.root, foreign] });
  await until(t, 'it is told', () => opened.told.lines.some(({ reason = '' }) => /a root in step-ca is left out: .*spiffe:\/\/other\.example/.test(reason)));
  t.deepEqual(opened.upstream.roots(), [scene.root.certificate, further.certificate]);
});
