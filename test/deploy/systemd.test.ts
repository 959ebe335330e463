import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { testIf } from '../support/kernel-conditions.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const unit = readFileSync(join(ROOT, 'deploy/systemd/signet.service'), 'utf8');
const hasAnalyze = spawnSync('systemd-analyze', ['--version']).status === 0;

testIf([hasAnalyze, 'needs systemd-analyze'], 'systemd finds no fault in the unit', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-unit-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'signet.service');
  writeFileSync(path, unit.replaceAll('/usr/lib/signet/', ROOT));
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', path], { encoding: 'utf8' });
  const about = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('signet'));
  t.deepEqual(about, []);
  t.is(status, 0, stderr);
});

test('the unit keeps the paths that are the defaults of the configuration', (t) => {
  t.regex(unit, /^RuntimeDirectory=signet signet\/public$/m);
  t.regex(unit, /^StateDirectory=signet$/m);
});
