import test from 'ava';
import { isEncrypted, readPem } from '../../src/spiffe/pem.ts';

const block = (label: string, ...lines: readonly string[]): string => [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`].join('\n');

test('blocks are read in their order, and text between them is left out', (t) => {
  const text = `subject=CN = a\n${block('CERTIFICATE', 'AAEC', 'Aw==')}\r\nmore text\n${block('EC PARAMETERS', 'BggqhkjOPQMBBw==')}\n`;
  t.deepEqual(readPem(text).map(({ label, der }) => [label, der.toString('hex')]), [
    ['CERTIFICATE', '00010203'],
    ['EC PARAMETERS', '06082a8648ce3d030107'],
  ]);
  t.deepEqual(readPem('no block at all'), []);
});

for (const [title, text, message] of [
  ['that does not end', '-----BEGIN CERTIFICATE-----\nAAEC\n', 'the block CERTIFICATE does not end'],
  ['inside another', `-----BEGIN CERTIFICATE-----\n${block('CERTIFICATE', 'AAEC')}`, 'the block CERTIFICATE does not end'],
  ['that ends without having begun', '-----END CERTIFICATE-----', 'the block CERTIFICATE ends without having begun'],
  ['that ends as another', '-----BEGIN CERTIFICATE-----\nAAEC\n-----END PRIVATE KEY-----', 'the block PRIVATE KEY ends without having begun'],
  ['that is not base64', block('CERTIFICATE', 'AA*C'), 'the block CERTIFICATE is not base64'],
] as const) {
  test(`a block ${title} is refused`, (t) => {
    t.throws(() => readPem(text), { message });
  });
}

test('encrypted keys of both kinds are told', (t) => {
  const [modern] = readPem(block('ENCRYPTED PRIVATE KEY', 'AAEC'));
  const [old] = readPem(block('EC PRIVATE KEY', 'Proc-Type: 4,ENCRYPTED', 'DEK-Info: AES-256-CBC,00', '', 'AAEC'));
  const [plain] = readPem(block('EC PRIVATE KEY', 'AAEC'));
  t.deepEqual([modern, old, plain].map((one) => one && isEncrypted(one)), [true, true, false]);
  t.is(old?.der.toString('hex'), '000102');
});

test('a file that begins many blocks is read in one pass', (t) => {
  t.throws(() => readPem('-----BEGIN A-----\n'.repeat(100_000)), { message: 'the block A does not end' });
});
