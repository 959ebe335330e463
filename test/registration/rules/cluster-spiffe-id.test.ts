import test from 'ava';
import { parseClusterSpiffeId } from '../../../src/registration/rules/cluster-spiffe-id.ts';
import { problemText } from '../../../src/registration/rules/problems.ts';
import type { ClassOptions, OrderClass, PodRule } from '../../../src/registration/rules/rule.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';

const ALL: ClassOptions = { className: '', watchClassless: true };
const TEMPLATE = 'spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}';

function object(spec: unknown): Readonly<Record<string, unknown>> {
  return {
    apiVersion: 'spire.spiffe.io/v1alpha1',
    kind: 'ClusterSPIFFEID',
    metadata: { name: 'web', uid: 'uid-1', generation: 7, managedFields: [] },
    spec,
  };
}

function ruleOf(spec: Readonly<Record<string, unknown>>): PodRule {
  const parsed = parseClusterSpiffeId(object({ spiffeIDTemplate: TEMPLATE, ...spec }), ALL);
  if (parsed.kind === 'rule' && parsed.rule.kind === 'pod') return parsed.rule;
  throw new Error(parsed.kind === 'refused' ? problemText(parsed.refused.problems) : parsed.kind);
}

function problemsOf(spec: unknown): string {
  const parsed = parseClusterSpiffeId(object(spec), ALL);
  return parsed.kind === 'refused' ? problemText(parsed.refused.problems) : parsed.kind;
}

test('a rule with everything is read', (t) => {
  const rule = ruleOf({
    podSelector: { matchLabels: { app: 'web' } },
    namespaceSelector: { matchExpressions: [{ key: 'env', operator: 'Exists' }] },
    dnsNameTemplates: ['{{ .PodMeta.Name }}.{{ .ClusterDomain }}', 'web'],
    workloadSelectorTemplates: ['k8s:container-name:{{ .PodMeta.Labels.app }}'],
    ttl: '1h30m',
    jwtTtl: '300s',
    federatesWith: ['other.org', 'spiffe://third.org'],
    admin: false,
    downstream: false,
    autoPopulateDNSNames: false,
    className: '',
    fallback: false,
    hint: 'web é',
  });
  t.like(rule, {
    kind: 'pod',
    source: 'ClusterSPIFFEID',
    name: 'web',
    uid: 'uid-1',
    generation: 7,
    order: 'pod-and-namespace',
    podSelector: [{ key: 'app', operator: 'In', values: ['web'] }],
    namespaceSelector: [{ key: 'env', operator: 'Exists', values: [] }],
    x509TtlMs: 5_400_000,
    jwtTtlMs: 300_000,
    federatesWith: ['other.org', 'third.org'].map(parseTrustDomain),
    hint: 'web é',
    namespaces: [],
    notes: ['federatesWith: bundles of other trust domains are not handed out yet'],
  });
  t.is(rule.idTemplate.source, TEMPLATE);
  t.deepEqual(
    rule.dnsNameTemplates.map(({ source }) => source),
    ['{{ .PodMeta.Name }}.{{ .ClusterDomain }}', 'web'],
  );
  t.deepEqual(
    rule.workloadSelectorTemplates.map(({ source }) => source),
    ['k8s:container-name:{{ .PodMeta.Labels.app }}'],
  );
});

test('a rule with nothing but the template selects all pods', (t) => {
  t.like(ruleOf({}), {
    order: 'all',
    podSelector: undefined,
    namespaceSelector: undefined,
    x509TtlMs: undefined,
    jwtTtlMs: undefined,
    hint: '',
    notes: [],
  });
});

test('null is the same as left out', (t) => {
  const nulls = {
    podSelector: null,
    namespaceSelector: null,
    dnsNameTemplates: null,
    ttl: null,
    hint: null,
    admin: null,
    fallback: null,
    className: null,
  };
  t.deepEqual(ruleOf(nulls), ruleOf({}));
});

const some = { matchLabels: { a: 'b' } };

const ORDERS: readonly (readonly [Readonly<Record<string, unknown>>, OrderClass])[] = [
  [{ podSelector: some, namespaceSelector: some }, 'pod-and-namespace'],
  [{ podSelector: some }, 'pod'],
  [{ podSelector: some, namespaceSelector: {} }, 'pod'],
  [{ namespaceSelector: some }, 'namespace'],
  [{ podSelector: { matchLabels: {} }, namespaceSelector: some }, 'namespace'],
  [{ podSelector: {}, namespaceSelector: {} }, 'all'],
  [{ podSelector: some, namespaceSelector: some, fallback: true }, 'fallback'],
];

for (const [spec, order] of ORDERS) {
  test(`${JSON.stringify(spec)} is of the class ${order}`, (t) => t.is(ruleOf(spec).order, order));
}

const DURATIONS: readonly (readonly [string, number | undefined])[] = [
  ['10s', 10_000],
  ['1h0m0s', 3_600_000],
  ['1.5h', 5_400_000],
  ['90000ms', 90_000],
  ['20000000us', 20_000],
  ['20000000µs', 20_000],
  ['20000000000ns', 20_000],
  ['8760h', 31_536_000_000],
  ['0', undefined],
  ['0s', undefined],
  ['0h0m', undefined],
];

for (const [text, ms] of DURATIONS) {
  test(`a ttl of ${text} is ${ms === undefined ? 'none: Go programs write it where none is set' : `${ms} ms`}`, (t) =>
    t.is(ruleOf({ ttl: text }).x509TtlMs, ms));
}

const ID = 'a template of a whole SPIFFE ID, such as spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}';
const TTL = 'a duration from 10s to 8760h, such as 90s, 30m or 1h30m';

/** Members next to a good template, and the whole text of why they are refused. */
const REFUSED: readonly (readonly [Readonly<Record<string, unknown>>, string])[] = [
  [{ spiffeIDTemplate: '' }, `spec.spiffeIDTemplate: found "", allowed: ${ID}`],
  [{ spiffeIDTemplate: null }, `spec.spiffeIDTemplate: found nothing, allowed: ${ID}`],
  [{ spiffeIDTemplate: 3 }, 'spec.spiffeIDTemplate: found 3, allowed: a text'],
  [
    { spiffeIDTemplate: '/ns/{{ .PodMeta.Namespace }}' },
    `spec.spiffeIDTemplate: found "/ns/{{ .PodMeta.Namespace }}", allowed: ${ID}`,
  ],
  [{ spiffeIDTemplate: 'https://example.org/a' }, `spec.spiffeIDTemplate: found "https://example.org/a", allowed: ${ID}`],
  [{ spiffeIDTemplate: '{{/* nothing */}}' }, `spec.spiffeIDTemplate: found "{{/* nothing */}}", allowed: ${ID}`],
  [
    { spiffeIDTemplate: 'spiffe://{{ .TrustDomian }}/a' },
    'spec.spiffeIDTemplate: found ".TrustDomian" at 1:13, allowed: a field: .TrustDomain, .ClusterName, .ClusterDomain, .PodMeta.…, .PodSpec.…, ' +
      '.NodeMeta.…, .NodeSpec.…, .Pod.… (did you mean .TrustDomain?)',
  ],
  [{ dnsNameTemplates: 'web' }, 'spec.dnsNameTemplates: found "web", allowed: a list of at most 64 texts'],
  [{ dnsNameTemplates: [3] }, 'spec.dnsNameTemplates[0]: found 3, allowed: a text'],
  [
    { dnsNameTemplates: ['a', '{{ lower }}'] },
    'spec.dnsNameTemplates[1]: found lower with 0 arguments at 1:4, allowed: lower TEXT',
  ],
  [
    { dnsNameTemplates: Array.from({ length: 65 }, () => 'a') },
    'spec.dnsNameTemplates: found 65 items, allowed: a list of at most 64 texts',
  ],
  [
    { workloadSelectorTemplates: ['{{ lower }}'] },
    'spec.workloadSelectorTemplates[0]: found lower with 0 arguments at 1:4, allowed: lower TEXT',
  ],
  [{ ttl: 3_600 }, `spec.ttl: found 3600, allowed: ${TTL}`],
  [{ ttl: '' }, `spec.ttl: found "", allowed: ${TTL}`],
  [{ ttl: '1 h' }, `spec.ttl: found "1 h", allowed: ${TTL}`],
  [{ ttl: '7d' }, `spec.ttl: found "7d", allowed: ${TTL}`],
  [{ ttl: '-1h' }, `spec.ttl: found "-1h", allowed: ${TTL}`],
  [{ ttl: '1ns' }, `spec.ttl: found "1ns", allowed: ${TTL}`],
  [{ ttl: '9s' }, `spec.ttl: found "9s", allowed: ${TTL}`],
  [{ ttl: '8760h1s' }, `spec.ttl: found "8760h1s", allowed: ${TTL}`],
  [{ jwtTtl: '25h' }, 'spec.jwtTtl: found "25h", allowed: a duration from 10s to 24h, such as 90s, 30m or 1h30m'],
  [
    { federatesWith: ['Other.org'] },
    'spec.federatesWith[0]: found "Other.org", allowed: the name of a trust domain, such as example.org',
  ],
  [{ admin: true }, 'spec.admin: found true, allowed: false: there is no server whose administrator a workload could be'],
  [{ admin: 'false' }, 'spec.admin: found "false", allowed: true or false'],
  [{ downstream: true }, 'spec.downstream: found true, allowed: false: there is no server below which another could be'],
  [
    { autoPopulateDNSNames: true },
    'spec.autoPopulateDNSNames: found true, allowed: false: Services are not watched on the node; name them in dnsNameTemplates',
  ],
  [{ className: 3 }, 'spec.className: found 3, allowed: a text'],
  [{ fallback: 'yes' }, 'spec.fallback: found "yes", allowed: true or false'],
  [{ hint: 3 }, 'spec.hint: found 3, allowed: a text'],
  [{ hint: 'é'.repeat(513) }, 'spec.hint: found 1026 bytes, allowed: a text of at most 1024 bytes'],
  [
    { hint: 'a\nb' },
    'spec.hint: found "a\\nb", allowed: a text of at most 1024 bytes without control characters and lone surrogates',
  ],
  [
    { hint: '\ud800' },
    'spec.hint: found "\\ud800", allowed: a text of at most 1024 bytes without control characters and lone surrogates',
  ],
  [{ podSelector: 'app' }, 'spec.podSelector: found "app", allowed: a selector with matchLabels and matchExpressions'],
  [
    { namespaceSelector: { matchExpressions: [{ key: 'a', operator: 'Is' }] } },
    'spec.namespaceSelector.matchExpressions[0].operator: found "Is", allowed: one of In, NotIn, Exists, DoesNotExist',
  ],
];

for (const [spec, text] of REFUSED) {
  test(`refused: ${JSON.stringify(spec).slice(0, 90)}: ${text.slice(0, 90)}`, (t) =>
    t.is(problemsOf({ spiffeIDTemplate: TEMPLATE, ...spec }), text));
}

test('a member that nobody knows is refused, because it might narrow the rule', (t) => {
  t.regex(
    problemsOf({ spiffeIDTemplate: TEMPLATE, podSelectors: {} }),
    /^spec\.podSelectors: found \{\}, .* \(did you mean podSelector\?\)$/,
  );
});

test('all problems are told at once', (t) => {
  const problems = problemsOf({ spiffeIDTemplate: '{{ range }}', ttl: 'x', admin: true, hint: 3, podSelector: 1 });
  t.is(problems.split('; ').length, 5);
});

test('a rule without a spec, or with one that is no object, is refused', (t) => {
  for (const spec of [undefined, null, 'x', []]) t.is(problemsOf(spec), `spec.spiffeIDTemplate: found nothing, allowed: ${ID}`);
});

test('a refused rule has its name, so that its status can be told', (t) => {
  const parsed = parseClusterSpiffeId(object({}), ALL);
  t.like(parsed, { kind: 'refused', refused: { name: 'web', uid: 'uid-1', generation: 7, source: 'ClusterSPIFFEID' } });
});

test('rules of another class are foreign, whatever is wrong with them', (t) => {
  const kind = (className: unknown, options: ClassOptions): string =>
    parseClusterSpiffeId(object({ spiffeIDTemplate: TEMPLATE, className }), options).kind;
  t.is(kind(undefined, { className: 'signet', watchClassless: true }), 'rule');
  t.is(kind('', { className: 'signet', watchClassless: false }), 'foreign');
  t.is(kind('signet', { className: 'signet', watchClassless: false }), 'rule');
  t.is(kind('spire', { className: 'signet', watchClassless: true }), 'foreign');
  t.is(kind('spire', ALL), 'foreign');
  t.is(kind(undefined, { className: '', watchClassless: false }), 'rule');
  t.deepEqual(parseClusterSpiffeId(object({ className: 'spire', admin: true }), ALL), {
    kind: 'foreign',
    name: 'web',
    className: 'spire',
  });
});
