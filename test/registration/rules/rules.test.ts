import test from 'ava';
import { trimNode } from '../../../src/kubernetes/objects.ts';
import { podTrim } from '../../../src/kubernetes/pod.ts';
import { parseClusterSpiffeId } from '../../../src/registration/rules/cluster-spiffe-id.ts';
import { parseClusterStaticEntry } from '../../../src/registration/rules/cluster-static-entry.ts';
import { parseDefaultRule } from '../../../src/registration/rules/default-rule.ts';
import type { Facts } from '../../../src/registration/rules/facts.ts';
import type { Rule } from '../../../src/registration/rules/rule.ts';
import { configRules, evaluate, type Decision, type EvaluateOptions } from '../../../src/registration/rules/rules.ts';
import { needsOf } from '../../../src/registration/rules/select.ts';
import type { Entry } from '../../../src/spiffe/entry.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts';
import { facts, NODE, pod, POD } from './facts.ts';

const POD_UID = `k8s:pod-uid:${POD.uid}`;
const app = { matchLabels: { app: 'web' } };
const prod = { matchLabels: { env: 'prod' } };

function rule(name: string, path: string, spec: Readonly<Record<string, unknown>> = {}): Rule {
  const object = {
    metadata: { name, uid: name, generation: 1 },
    spec: { spiffeIDTemplate: `spiffe://{{ .TrustDomain }}${path}`, ...spec },
  };
  const parsed = parseClusterSpiffeId(object, { className: '', watchClassless: true });
  if (parsed.kind !== 'rule') throw new Error(JSON.stringify(parsed));
  return parsed.rule;
}

function staticRule(name: string, path: string, selectors: readonly string[]): Rule {
  const object = { metadata: { name }, spec: { spiffeID: `spiffe://example.org${path}`, selectors } };
  const parsed = parseClusterStaticEntry(object, {
    className: '',
    watchClassless: true,
    trustDomain: parseTrustDomain('example.org'),
  });
  if (parsed.kind !== 'rule') throw new Error(JSON.stringify(parsed));
  return parsed.rule;
}

function defaultRule(
  namespaces: readonly string[] = [],
  template = '/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}',
): Rule {
  const parsed = parseDefaultRule({ enabled: true, template, namespaces });
  if (parsed?.kind !== 'rule') throw new Error(JSON.stringify(parsed));
  return parsed.rule;
}

function entry(path: string, selectors: readonly string[], priority = 0): Entry {
  const id = parseSpiffeId(`spiffe://example.org${path}`);
  return { id, selectors, x509TtlMs: undefined, jwtTtlMs: undefined, dnsNames: [], hint: '', priority };
}

function paths(rules: readonly Rule[], more: Partial<Facts> = {}, options: EvaluateOptions = {}): string[] {
  return evaluate(rules, facts(more), options).entries.map(({ id }) => id.slice('spiffe://example.org'.length));
}

function decide(rules: readonly Rule[], name: string, more: Partial<Facts> = {}, options: EvaluateOptions = {}): Decision {
  const decision = evaluate(rules, facts(more), options).decisions.find((one) => one.rule === name);
  if (decision === undefined) throw new Error(`no decision of ${name}`);
  return decision;
}

test('a pod that no other rule selects has the identity of its service account', (t) => {
  const { entries, decisions, complete } = evaluate([defaultRule()], facts());
  t.deepEqual<unknown, unknown>(entries, [
    {
      id: 'spiffe://example.org/ns/shop/sa/web',
      selectors: [POD_UID],
      x509TtlMs: undefined,
      jwtTtlMs: undefined,
      dnsNames: [],
      hint: '',
      priority: 0,
      rule: 'default',
      source: 'default',
      order: 'default',
    },
  ]);
  t.deepEqual<unknown, unknown>(decisions, [
    {
      rule: 'default',
      source: 'default',
      order: 'default',
      outcome: 'applies',
      applies: true,
      why: 'no other rule selects the pod',
      id: 'spiffe://example.org/ns/shop/sa/web',
    },
  ]);
  t.true(complete);
});

test('a pod has nothing where the default is switched off', (t) => {
  t.deepEqual(evaluate([], facts()), { entries: [], decisions: [], complete: true });
});

test('a rule takes the default away from the pods that it selects, and from no others', (t) => {
  const rules = [defaultRule(), rule('web', '/web', { podSelector: app })];
  t.deepEqual(paths(rules), ['/web']);
  t.is(decide(rules, 'default').outcome, 'superseded');
  t.is(decide(rules, 'default').why, 'ClusterSPIFFEID web selects the pod');
  const other = { pod: pod({ labels: { app: 'db' } }) };
  t.deepEqual(paths(rules, other), ['/ns/shop/sa/web']);
  t.is(decide(rules, 'web', other).why, 'pod labels do not match: app In [web] (it is "db")');
});

test('everything of a rule is in its entry', (t) => {
  const spec = {
    podSelector: app,
    namespaceSelector: prod,
    dnsNameTemplates: ['{{ .PodMeta.Name }}.{{ .PodMeta.Namespace }}', 'web', 'web'],
    workloadSelectorTemplates: ['k8s:container-name:{{ .PodMeta.Labels.app }}', POD_UID],
    ttl: '30m',
    jwtTtl: '1m',
    hint: 'w',
  };
  const { entries, decisions } = evaluate([rule('web', '/{{ .ClusterName }}/{{ .NodeMeta.Labels.zone }}', spec)], facts());
  t.deepEqual<unknown, unknown>(entries, [
    {
      id: 'spiffe://example.org/prod-eu1/eu-1a',
      selectors: [POD_UID, 'k8s:container-name:web'],
      x509TtlMs: 1_800_000,
      jwtTtlMs: 60_000,
      dnsNames: ['web-7d4b9-x2x4z.shop', 'web'],
      hint: 'w',
      priority: 0,
      rule: 'web',
      source: 'ClusterSPIFFEID',
      order: 'pod-and-namespace',
    },
  ]);
  t.is(
    decisions[0]?.why,
    'namespace labels match: env In [prod]; pod labels match: app In [web]; only for callers with k8s:container-name:web',
  );
  t.deepEqual(decisions[0]?.missing, ['k8s:container-name:web']);
});

test('a caller that has the selectors of a rule lacks nothing', (t) => {
  const rules = [rule('web', '/web', { workloadSelectorTemplates: ['k8s:container-name:web'] })];
  const decision = decide(rules, 'web', { selectors: [POD_UID, 'k8s:container-name:web'] });
  t.deepEqual([decision.why, decision.missing], ['it selects all pods', undefined]);
});

test('the order: priority, static, pod and namespace, pod, namespace, all; then the bytes of the ID', (t) => {
  const rules = [
    rule('r1', '/all'),
    rule('r2', '/namespace', { namespaceSelector: prod }),
    rule('r3', '/pod-b', { podSelector: app }),
    rule('r4', '/pod-a', { podSelector: app }),
    rule('r5', '/pod-B', { podSelector: app }),
    rule('r6', '/pod-and-namespace', { podSelector: app, namespaceSelector: prod }),
    staticRule('s', '/static', ['k8s:ns:shop']),
    ...configRules([entry('/low', ['k8s:ns:shop'], -1), entry('/high', ['k8s:ns:shop'], 1), entry('/config', ['k8s:ns:shop'])]),
    rule('f', '/fallback', { fallback: true }),
    defaultRule(),
  ];
  const expected = [
    '/high',
    '/config',
    '/static',
    '/pod-and-namespace',
    '/pod-B',
    '/pod-a',
    '/pod-b',
    '/namespace',
    '/all',
    '/low',
  ];
  const selectors = [POD_UID, 'k8s:ns:shop'];
  t.deepEqual(paths(rules, { selectors }), expected);
  t.deepEqual(paths([...rules].reverse(), { selectors }), expected);
  const named = evaluate([...rules].reverse(), facts({ selectors })).decisions.map((decision) => decision.rule);
  t.deepEqual(named.slice(0, 1), ['s']);
  t.deepEqual(named.slice(4), ['r6', 'r3', 'r4', 'r5', 'r2', 'r1', 'f', 'default']);
});

test('fallbacks all apply where no other rule does, and then the default does not', (t) => {
  const rules = [defaultRule(), rule('f1', '/f1', { fallback: true }), rule('f2', '/f2', { fallback: true, podSelector: app })];
  t.deepEqual(paths(rules), ['/f1', '/f2']);
  t.is(decide(rules, 'f1').why, 'it selects all pods; no rule that is not a fallback selects the pod');
  t.is(decide(rules, 'default').why, 'ClusterSPIFFEID f1 selects the pod');
  const more = [...rules, rule('web', '/web')];
  t.deepEqual(paths(more), ['/web']);
  t.is(decide(more, 'f2').why, 'ClusterSPIFFEID web selects the pod');
  t.is(decide(more, 'f2', { pod: pod({ labels: {} }) }).outcome, 'unselected');
  t.is(decide(more, 'default').why, 'ClusterSPIFFEID web selects the pod');
});

test('a rule that selects a pod and fails leaves nothing to fallbacks and the default, and says so', (t) => {
  const rules = [defaultRule(), rule('f', '/f', { fallback: true }), rule('web', '/{{ .PodMeta.Labels.none }}')];
  t.deepEqual(paths(rules), []);
  const { outcome, why, problems, applies, id } = decide(rules, 'web');
  const problem = 'spec.spiffeIDTemplate: template, 1:32: the pod has no label "none"';
  t.deepEqual([outcome, applies, id, problems], ['failed', false, undefined, [problem]]);
  t.is(why, `it selects all pods; but ${problem}`);
  t.is(decide(rules, 'f').why, 'ClusterSPIFFEID web selects the pod, although it fails');
  t.is(decide(rules, 'default').why, 'ClusterSPIFFEID web selects the pod, although it fails');
});

test('static pods have no service account: no default identity, unless a rule gives them one', (t) => {
  const more = { pod: pod({ serviceAccount: '' }) };
  t.deepEqual(paths([defaultRule()], more), []);
  t.is(
    decide([defaultRule()], 'default', more).why,
    'the pod has no service account (static pods have none): only a rule of its own can give it an identity',
  );
  t.deepEqual(paths([defaultRule([], '/pod/{{ .PodMeta.Name }}')], more), []);
  t.deepEqual(paths([defaultRule(), rule('s', '/static/{{ .PodMeta.Name }}')], more), ['/static/web-7d4b9-x2x4z']);
});

test('the default can be limited to namespaces', (t) => {
  t.deepEqual(paths([defaultRule(['shop'])]), ['/ns/shop/sa/web']);
  t.deepEqual(paths([defaultRule(['a', 'b'])]), []);
  t.is(decide([defaultRule(['a', 'b'])], 'default').why, 'namespace shop is not among registration.defaultRule.namespaces: a, b');
});

test('pods of excluded namespaces get nothing from rules; static entries name whom they mean', (t) => {
  const rules = [
    defaultRule(),
    rule('web', '/web'),
    rule('f', '/f', { fallback: true }),
    staticRule('s', '/static', ['k8s:ns:shop']),
  ];
  const more = { selectors: ['k8s:ns:shop'] };
  t.deepEqual(paths(rules, more, { excludeNamespaces: ['kube-system', 'shop'] }), ['/static']);
  for (const name of ['web', 'f', 'default']) {
    const { outcome, why } = decide(rules, name, more, { excludeNamespaces: ['shop'] });
    t.deepEqual([outcome, why], ['excluded', 'namespace shop is among registration.excludeNamespaces']);
  }
  t.deepEqual(paths(rules, more, { excludeNamespaces: ['sho', 'shop2'] }), ['/static', '/web']);
});

test('a static entry is for callers with all of its selectors, is bound to the pod, and leaves the default', (t) => {
  const rules = [defaultRule(), staticRule('s', '/static', ['k8s:ns:shop', 'k8s:container-name:web'])];
  const selectors = [POD_UID, 'k8s:ns:shop', 'k8s:container-name:web'];
  const { entries, complete } = evaluate(rules, facts({ selectors }));
  t.deepEqual(entries[0]?.selectors, [POD_UID, 'k8s:ns:shop', 'k8s:container-name:web']);
  t.deepEqual(paths(rules, { selectors }), ['/static', '/ns/shop/sa/web']);
  t.true(complete);
  t.is(decide(rules, 's', { selectors }).why, 'the caller has k8s:ns:shop, k8s:container-name:web');
  t.is(decide(rules, 's', { selectors: ['k8s:ns:shop'] }).why, 'the caller lacks k8s:container-name:web');
  t.is(decide(rules, 's', { selectors: [] }).outcome, 'unselected');
  const judged = decide(rules, 's');
  t.deepEqual([judged.outcome, judged.why], ['caller', 'it is for callers with k8s:ns:shop, k8s:container-name:web']);
  t.deepEqual(paths(rules), ['/ns/shop/sa/web']);
});

test('an entry with unix selectors only never counts in a pod', (t) => {
  const rules = configRules([entry('/root', ['unix:uid:0'])]);
  const { outcome, why } = decide(rules, 'entries[0]', { selectors: [POD_UID, 'unix:uid:0'] });
  t.deepEqual([outcome, why], ['unselected', 'it has unix selectors only, which count for no caller in a pod']);
  t.deepEqual(paths(configRules([entry('/root', ['unix:uid:0', 'k8s:ns:shop'])]), { selectors: ['unix:uid:0', 'k8s:ns:shop'] }), [
    '/root',
  ]);
});

test('the same identity is given once, by the rule that comes first', (t) => {
  const rules = [rule('a', '/same', { hint: 'a' }), rule('b', '/same', { podSelector: app, hint: 'b' }), rule('c', '/same')];
  const { entries } = evaluate(rules, facts());
  t.deepEqual(
    entries.map((one) => [one.rule, one.hint]),
    [['b', 'b']],
  );
  const { outcome, applies, why, id } = decide(rules, 'c');
  t.deepEqual([outcome, applies, id], ['masked', false, parseSpiffeId('spiffe://example.org/same')]);
  t.is(why, 'it selects all pods; but ClusterSPIFFEID b gives the same identity first');
});

test('one ID for callers with other selectors is not the same identity', (t) => {
  const only = (name: string): Rule => rule(name, '/same', { workloadSelectorTemplates: [`k8s:container-name:${name}`] });
  t.is(evaluate([only('a'), only('b'), rule('c', '/same')], facts()).entries.length, 3);
});

test('what is not known is undecided, and everything that may depend on it waits', (t) => {
  const rules = [
    defaultRule(),
    rule('f', '/f', { fallback: true }),
    rule('n', '/n', { namespaceSelector: prod, podSelector: app }),
  ];
  const more = { namespaceLabels: undefined };
  t.deepEqual(evaluate(rules, facts(more)).entries, []);
  t.false(evaluate(rules, facts(more)).complete);
  t.is(decide(rules, 'n', more).why, 'the labels of the namespace are not known yet');
  t.is(decide(rules, 'f', more).why, 'it waits for ClusterSPIFFEID n: the labels of the namespace are not known yet');
  t.is(decide(rules, 'default', more).outcome, 'undecided');
  const otherPod = { ...more, pod: pod({ labels: {} }) };
  t.deepEqual(paths(rules, otherPod), ['/f']);
  t.true(evaluate(rules, facts(otherPod)).complete);
  t.deepEqual(paths([...rules, rule('all', '/all')], more), ['/all']);
  t.is(decide([...rules, rule('all', '/all')], 'default', more).outcome, 'superseded');
});

test('a node or annotations that are not known are waited for only where a rule needs them', (t) => {
  const rules = [
    rule('n', '/{{ .NodeMeta.UID }}'),
    rule('a', '/{{ .PodMeta.Annotations.plain }}'),
    rule('p', '/{{ .NodeMeta.Name }}'),
  ];
  const more = { node: undefined, pod: pod({ annotations: undefined }) };
  t.deepEqual(paths(rules, more), ['/node-1']);
  t.is(decide(rules, 'n', more).why, 'the node is not known yet');
  t.is(decide(rules, 'a', more).why, 'the annotations of the pod are not known yet');
  t.deepEqual(paths(rules), ['/node-1', '/node-uid', '/p']);
});

test('rules know what must be watched for them', (t) => {
  const of = (...rules: Rule[]): string[] => [...needsOf(rules)].sort();
  t.deepEqual(
    of(defaultRule(), rule('a', '/a', { podSelector: app, namespaceSelector: {} }), staticRule('s', '/s', ['k8s:ns:a'])),
    [],
  );
  t.deepEqual(of(rule('a', '/a', { namespaceSelector: prod })), ['namespaceLabels']);
  t.deepEqual(of(rule('a', '/a', { dnsNameTemplates: ['{{ .NodeMeta.UID }}'] })), ['node']);
  t.deepEqual(of(rule('a', '/a', { workloadSelectorTemplates: ['k8s:ns:{{ .PodMeta.Annotations.a }}'] })), ['annotations']);
});

const AT = 'spec.spiffeIDTemplate';

/** What a pod can make of a rule that is good in itself. */
const FAILED: readonly (readonly [string, Readonly<Record<string, unknown>>, readonly string[]])[] = [
  [
    'an empty label',
    { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/a/{{ .PodMeta.Labels.empty }}/b' },
    [`${AT}: "spiffe://example.org/a//b" is not a SPIFFE ID: a path has no empty segment and does not end with "/"`],
  ],
  [
    'a label with ".."',
    { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/a/{{ .PodMeta.Labels.evil }}' },
    [`${AT}: template, 1:34: "../x", made of a label or an annotation, has "/": it would add segments to the path`],
  ],
  [
    'an annotation with "/"',
    { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/{{ .PodMeta.Annotations.path }}' },
    [`${AT}: template, 1:32: "a/b", made of a label or an annotation, has "/": it would add segments to the path`],
  ],
  [
    'another trust domain',
    { spiffeIDTemplate: 'spiffe://other.org/a' },
    [`${AT}: "spiffe://other.org/a" is not in the trust domain example.org`],
  ],
  [
    'a trust domain of the pod',
    { spiffeIDTemplate: 'spiffe://{{ .PodMeta.Labels.app }}/a' },
    [`${AT}: "spiffe://web/a" is not in the trust domain example.org`],
  ],
  [
    'no path',
    { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}' },
    [`${AT}: "spiffe://example.org" has no path, which the identity of a workload has`],
  ],
  [
    'a path alone',
    { spiffeIDTemplate: '{{ if true }}/ns/x{{ end }}' },
    [`${AT}: "/ns/x" is not a SPIFFE ID: it must begin with "spiffe://"`],
  ],
  [
    'a DNS name in upper case',
    { dnsNameTemplates: ['web', '{{ index .PodMeta.Labels "example.org/team" }}'] },
    ['spec.dnsNameTemplates[1]: found "Blue", allowed: a DNS name in lower case'],
  ],
  [
    'no DNS name',
    { dnsNameTemplates: ['{{ .PodMeta.Labels.empty }}'] },
    ['spec.dnsNameTemplates[0]: found "", allowed: a DNS name, each label with 1 to 63 letters, digits and inner hyphens'],
  ],
  [
    'no selector',
    { workloadSelectorTemplates: ['{{ .PodMeta.Labels.app }}'] },
    ['spec.workloadSelectorTemplates[0]: "web" is not a selector: the type is one of unix, k8s'],
  ],
  [
    'several at once',
    { spiffeIDTemplate: 'spiffe://x/a', dnsNameTemplates: ['_'] },
    [
      `${AT}: "spiffe://x/a" is not in the trust domain example.org`,
      'spec.dnsNameTemplates[0]: found "_", allowed: a DNS name, each label with 1 to 63 letters, digits and inner hyphens',
    ],
  ],
];

for (const [what, spec, problems] of FAILED) {
  test(`a rule fails for a pod that makes of it ${what}`, (t) => {
    const decision = decide([rule('r', '/x', spec)], 'r');
    t.is(decision.outcome, 'failed');
    t.deepEqual(decision.problems, problems);
    t.deepEqual(paths([rule('r', '/x', spec)]), []);
  });
}

test('the default rule names its own place, and may give a path or a whole ID', (t) => {
  t.deepEqual(decide([defaultRule([], '/a//b')], 'default').problems, [
    'registration.defaultRule.template: "spiffe://example.org/a//b" is not a SPIFFE ID: a path has no empty segment and does not end with "/"',
  ]);
  t.deepEqual(paths([defaultRule([], 'spiffe://{{ .TrustDomain }}/whole')]), ['/whole']);
  t.deepEqual(paths([defaultRule([], 'spiffe://other.org/whole')]), []);
  t.deepEqual(paths([defaultRule([], '{{ if true }}/either{{ end }}')]), ['/either']);
});

test('what a pod writes cannot steer a terminal', (t) => {
  const rules = [rule('r', '/{{ .PodMeta.Annotations.a }}')];
  const { why } = decide(rules, 'r', { pod: pod({ annotations: { a: 'x\u009b2J\u001b[31m\u202e' } }) });
  t.regex(why, /x\\u009b2J\\u001b\[31m\\u202e/);
  t.false(/[\u0000-\u001f\u007f-\u009f\u202e]/.test(why));
});

test('what the Kubernetes room keeps of a pod and a node is what rules ask', (t) => {
  const metadata = { uid: 'u', name: 'web-1', namespace: 'shop', labels: { app: 'web' }, annotations: { a: 'x' } };
  const kept = podTrim({ annotations: true })({ metadata, spec: { serviceAccountName: 'web', nodeName: 'node-1' } });
  const node = trimNode({ metadata: { uid: 'n', name: 'node-1', labels: { zone: 'z' } }, spec: { providerID: 'p' } });
  if (kept === undefined) return t.fail();
  const template =
    '/{{ .PodMeta.Labels.app }}/{{ .PodMeta.Annotations.a }}/{{ .NodeMeta.Labels.zone }}/{{ .NodeSpec.ProviderID }}';
  t.deepEqual(paths([rule('r', template)], { pod: kept, node }), ['/web/x/z/p']);
});

test('nothing is changed that was passed in, and the same comes out again', (t) => {
  const rules = Object.freeze([defaultRule(), rule('b', '/b'), rule('a', '/a', { podSelector: app })]);
  const given = facts({ node: Object.freeze({ ...NODE }) });
  t.deepEqual(evaluate(rules, given), evaluate(rules, given));
});
