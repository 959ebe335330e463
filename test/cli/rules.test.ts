import test from 'ava';
import type { RuleFact } from '../../src/admin/messages.ts';
import { describeRules } from '../../src/cli/rules.ts';
import { filledSource } from '../admin/filled-source.ts';
import { openAdmin } from '../admin/operator.ts';
import { run } from './run.ts';

const plain = (_style: string, text: string): string => text;

const RULES: readonly RuleFact[] = [
  { kind: 'ClusterSPIFFEID', name: 'web', class_name: 'spire', pods_selected: 12, pods_failed: 1, entries_masked: 0 },
  {
    kind: 'default',
    name: 'default',
    class_name: '',
    pods_selected: 3,
    pods_failed: 0,
    entries_masked: 2,
    problem: 'bad \u001b[2J template',
  },
];

test('each rule is a line with what it selects, and what is wrong stands below', (t) => {
  t.is(
    describeRules(RULES, plain),
    `     KIND             NAME     CLASS  PODS  FAILED  MASKED
  ✓  ClusterSPIFFEID  web      spire  12    1       0
  ✗  default          default         3     0       2

Problems
  default default: bad \\u{1b}[2J template
`,
  );
  t.is(describeRules([], plain), 'There are no rules.\n');
});

test('signet rules lists what the agent follows', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { rules: () => RULES } }));
  const { code, stdout, stderr } = await run(['rules', '--admin', socketPath]);
  t.deepEqual([code, stdout, stderr], [0, describeRules(RULES, plain), '']);
  t.deepEqual(JSON.parse((await run(['rules', '--admin', socketPath, '-o', 'json'])).stdout), { rules: RULES });
});
