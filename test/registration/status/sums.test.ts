import test from 'ava';
import type { JsonObject } from '../../../src/kubernetes/json.ts';
import { ruleTrim, says, statusObject, type RuleObject } from '../../../src/registration/status/rule-object.ts';
import { byRule, reportTrim, statusOf, sumOf } from '../../../src/registration/status/sums.ts';
import { linesOf, type RuleKind, type RuleTally, type TallyCounts } from '../../../src/registration/status/tally.ts';
import { tally } from './tallies.ts';

function rule(name: string, more: JsonObject = {}, kind: RuleKind = 'ClusterSPIFFEID'): RuleObject {
  const raw = { metadata: { name, uid: `uid-of-${name}`, generation: 1 }, ...more };
  return ruleTrim(kind)(raw)!;
}

function report(name: string, ...tallies: RuleTally[]): JsonObject {
  return { metadata: { name }, spec: { rules: linesOf(tallies).lines as unknown as JsonObject[] } };
}

function others(...reports: JsonObject[]): readonly TallyCounts[] {
  const trim = reportTrim();
  return byRule(reports.map((raw) => trim(raw)!), 'own-node').get('uid-of-web') ?? [];
}

test('a rule is kept with its class and with the status that SPIRE writes', (t) => {
  const stats = { namespacesSelected: 1, namespacesIgnored: 4, podsSelected: 3, entriesToSet: '3' };
  const kept = rule('web', { spec: { className: 'signet' }, status: { stats } });
  t.like(kept, { kind: 'ClusterSPIFFEID', name: 'web', generation: 1, className: 'signet', status: { namespacesSelected: 1, podsSelected: 3, entriesToSet: undefined } });
  t.false('namespacesIgnored' in kept.status);
  t.deepEqual(rule('s', { status: { rendered: true, masked: false, set: true } }, 'ClusterStaticEntry').status, { rendered: true, masked: false, set: true });
  t.is(rule('web').className, '');
  for (const raw of [{}, { metadata: { name: 'a', uid: 'b' } }, { metadata: { name: 'a', generation: 1 } }]) t.is(ruleTrim('ClusterSPIFFEID')(raw), undefined);
});

test('the counts of all nodes are added up, the own node by what is at hand', (t) => {
  const stale = report('own-node', tally('web', { podsSelected: 100 }));
  const told = others(stale, report('a', tally('web', { podsSelected: 3, podsFailed: 1 }), tally('db')), report('b', tally('web', { entriesMasked: 1 })));
  const sum = sumOf(rule('web'), tally('web', { podsSelected: 5 }), told);
  t.deepEqual(sum, { podsSelected: 10, podsFailed: 1, entriesMasked: 1, problem: undefined, late: 0 });
  t.deepEqual(statusObject('ClusterSPIFFEID', statusOf(rule('web'), sum!, 2)), {
    stats: { namespacesSelected: 2, podsSelected: 10, podEntryRenderFailures: 1, entriesMasked: 1, entriesToSet: 8, entryFailures: 0 },
  });
  t.false('namespacesSelected' in (statusObject('ClusterSPIFFEID', statusOf(rule('web'), sum!, undefined))['stats'] as JsonObject));
});

test('a rule that the own node has not evaluated yet has no sum', (t) => {
  t.is(sumOf(rule('web'), undefined, [tally('web')]), undefined);
  t.is(sumOf(rule('web', { metadata: { name: 'web', uid: 'uid-of-web', generation: 2 } }), tally('web'), []), undefined);
});

test('lines of an earlier version of the rule do not count, and are waited for; those of an earlier rule are nothing', (t) => {
  const second = rule('web', { metadata: { name: 'web', uid: 'uid-of-web', generation: 2 } });
  const told = others(report('a', tally('web', { problem: 'mended' })), report('b', tally('web', { generation: 2 })), report('c', tally('web', { uid: 'before' })));
  t.deepEqual(sumOf(second, tally('web', { generation: 2 }), told), { podsSelected: 4, podsFailed: 0, entriesMasked: 0, problem: undefined, late: 1 });
});

test('the problem is the own one, else the most frequent, else the first by its bytes', (t) => {
  const told = others(...['b', 'a', 'b', 'a', 'c'].map((problem, i) => report(`n${i}`, tally('web', { problem }))));
  t.is(sumOf(rule('web'), tally('web', { problem: 'own' }), told)?.problem, 'own');
  t.is(sumOf(rule('web'), tally('web'), told)?.problem, 'a');
  t.is(sumOf(rule('web'), tally('web'), told.slice(0, 3))?.problem, 'b');
});

test('a static entry is rendered without a problem, masked where it is so everywhere, and set otherwise', (t) => {
  const entry = rule('web', {}, 'ClusterStaticEntry');
  const status = (more: Partial<RuleTally>): unknown => statusOf(entry, sumOf(entry, tally('web', { kind: 'ClusterStaticEntry', ...more }), [])!, undefined);
  t.deepEqual(status({}), { rendered: true, masked: false, set: true });
  t.deepEqual(status({ podsSelected: 0 }), { rendered: true, masked: false, set: true });
  t.deepEqual(status({ problem: 'selectors: …' }), { rendered: false, masked: false, set: false });
  t.deepEqual(status({ podsSelected: 2, podsFailed: 1 }), { rendered: false, masked: false, set: false });
  t.deepEqual(status({ podsSelected: 2, entriesMasked: 1 }), { rendered: true, masked: false, set: true });
  t.deepEqual(status({ podsSelected: 2, entriesMasked: 2 }), { rendered: true, masked: true, set: false });
});

test('a status says what is wanted also when it says more', (t) => {
  t.true(says({ podsSelected: 1, namespacesSelected: 2 }, { podsSelected: 1, namespacesSelected: undefined }));
  t.false(says({ podsSelected: undefined }, { podsSelected: 0 }));
  t.false(says({ podsSelected: 2 }, { podsSelected: 1 }));
});

test('a report that is no report is bounded, and counts for nothing', (t) => {
  const trim = reportTrim();
  t.is(trim({}), undefined);
  t.deepEqual(trim({ metadata: { name: 'n' }, spec: { rules: 'many' } })?.tallies, []);
  const rules = Array.from({ length: 5_000 }, (_, i) => ({ uid: `u${i}`, podsSelected: -1, problem: 'p'.repeat(10_000) }));
  const tallies = trim({ metadata: { name: 'n' }, spec: { rules } })?.tallies ?? [];
  t.is(tallies.length, 512);
  t.true(tallies.every(({ podsSelected, problem = '' }) => podsSelected === 0 && problem.length < 260));
});
