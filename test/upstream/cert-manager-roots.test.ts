import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Anchors } from '../../src/upstream/cert-manager/anchors.ts';
import { certificatePem, testCa } from '../support/authorities.ts';
import { believed, openRoom, type Room } from '../support/cert-manager-room.ts';
import { settle } from '../support/signers.ts';

const [second, leafy] = [await testCa({ name: 'CN=Second' }), await testCa({ name: 'CN=Below', parent: believed })];
const foreign = await testCa({ name: 'CN=Foreign', uris: ['spiffe://other.org'] });

function rootFile(t: ExecutionContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-cert-manager-roots-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'ca.crt');
  writeFileSync(path, text);
  return path;
}

/** Lets the files be read, which takes real time. */
async function until(isSo: () => boolean): Promise<void> {
  for (let turn = 0; !isSo(); turn += 1) {
    if (turn > 2_000) throw new Error('it does not come');
    await settle();
  }
}

const names = ({ anchors }: Room): number => anchors.roots().length;

test('the roots in a ConfigMap, followed by a watch; everybody has them within a minute', async (t) => {
  const room = openRoom(t);
  await settle();
  t.deepEqual(room.anchors.roots(), [believed.certificate]);
  t.is(room.anchors.overlapMs, 60_000);
  let changes = 0;
  room.anchors.onChange(() => void (changes += 1));
  room.believe(believed, second);
  await settle();
  t.deepEqual(room.anchors.roots(), [believed.certificate, second.certificate]);
  room.believe(believed, second, second);
  await settle();
  t.is(changes, 1, 'what changes nothing is not told');
});

for (const [what, text, words] of [
  ['emptied', '', /holds no certificate in PEM/],
  ['damaged', '-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----', /is not base64/],
  ['filled with a CA that is no root', certificatePem(believed.certificate, leafy.certificate), /is not self-signed/],
] as const) {
  test(`a ConfigMap that is ${what}: the last good roots go on, and it is told once`, async (t) => {
    const room = openRoom(t);
    await settle();
    room.configMap(text);
    await room.pass(60_000);
    t.deepEqual(room.anchors.roots(), [believed.certificate]);
    t.is(room.failed.length, 1);
    t.regex(room.failed[0] ?? '', words);
    t.regex(room.failed[0] ?? '', /the last good roots go on/);
    room.believe(second);
    await settle();
    t.deepEqual(room.anchors.roots(), [second.certificate]);
    t.is(room.trouble.problem(), undefined);
  });
}

test('a ConfigMap that is deleted takes no root away', async (t) => {
  const room = openRoom(t);
  await room.pass(1_000);
  await room.client.delete('/api/v1/namespaces/signet-system/configmaps/signet-roots');
  await room.pass(11_000);
  t.is(names(room), 1);
  t.regex(room.failed[0] ?? '', /does not exist/);
});

test('a root of another trust domain is left out, and told once (X509-SVID §3.2)', async (t) => {
  const room = openRoom(t);
  await settle();
  room.believe(believed, foreign);
  room.believe(believed, foreign, second);
  await settle();
  t.deepEqual(room.anchors.roots(), [believed.certificate, second.certificate]);
  t.is(room.lines.filter(({ reason }) => /a root of authority\.certManager is left out: its SPIFFE ID is spiffe:\/\/other\.org/.test(String(reason))).length, 1);
});

test('files and a ConfigMap together: nothing is told before both are known, and files take longer to spread', async (t) => {
  const path = rootFile(t, certificatePem(second.certificate));
  const room = openRoom(t, { anchors: { files: [path] }, prepare: (client) => client.objects.clear() });
  for (let turn = 0; turn < 50; turn += 1) await settle();
  t.is(names(room), 0);
  room.believe(believed);
  await until(() => names(room) === 2);
  t.deepEqual(room.anchors.roots(), [second.certificate, believed.certificate]);
  t.is(room.anchors.overlapMs, 180_000);
});

test('a changed file is found within the poll interval; one that is gone leaves what was known', async (t) => {
  const path = rootFile(t, certificatePem(believed.certificate));
  const room = openRoom(t, { anchors: { files: [path], configMap: undefined } });
  await until(() => names(room) === 1);
  writeFileSync(path, certificatePem(believed.certificate, second.certificate));
  room.clock.advance(10_000);
  await until(() => names(room) === 2);
  rmSync(path);
  room.clock.advance(10_000);
  await until(() => room.failed.length > 0);
  t.is(names(room), 2);
  t.regex(room.failed[0] ?? '', /the root certificates .* cannot be used: .*ENOENT.*What to do: write the roots there as PEM/);
});

test('a file that cannot be used is refused before the agent starts', async (t) => {
  await t.throwsAsync(Anchors.check({ files: [rootFile(t, 'x')] }), { code: 'state_refused', message: /holds no certificate/ });
  await t.throwsAsync(Anchors.check({ files: [rootFile(t, certificatePem(leafy.certificate))] }), { code: 'state_refused', message: /not self-signed/ });
  await t.notThrowsAsync(Anchors.check({ files: [rootFile(t, certificatePem(believed.certificate))] }));
});
