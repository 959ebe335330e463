import test from 'ava';
import { parseClusterStaticEntry } from '../../../src/registration/rules/cluster-static-entry.ts';
import { problemText } from '../../../src/registration/rules/problems.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';

const OPTIONS = { className: '', watchClassless: true, trustDomain: parseTrustDomain('example.org') };
const GOOD = { spiffeID: 'spiffe://example.org/db', selectors: ['k8s:ns:shop', 'k8s:sa:db'] };

const object = (spec: unknown): Readonly<Record<string, unknown>> => ({
  metadata: { name: 'db', uid: 'uid-2', generation: 1 },
  spec,
});

function problemsOf(spec: unknown): string {
  const parsed = parseClusterStaticEntry(object(spec), OPTIONS);
  return parsed.kind === 'refused' ? problemText(parsed.refused.problems) : parsed.kind;
}

test('an entry with everything is read, and says what of it does nothing here', (t) => {
  const spec = {
    ...GOOD,
    parentID: 'spiffe://example.org/spire/agent/x',
    federatesWith: ['other.org'],
    x509SVIDTTL: '1h0m0s',
    jwtSVIDTTL: '0s',
    dnsNames: ['db', '*.db.example.org', 'db'],
    hint: 'db',
    admin: false,
    downstream: false,
    storeSVID: false,
    className: '',
  };
  const parsed = parseClusterStaticEntry(object(spec), OPTIONS);
  t.deepEqual<unknown, unknown>(parsed, {
    kind: 'rule',
    rule: {
      kind: 'static',
      name: 'db',
      uid: 'uid-2',
      generation: 1,
      source: 'ClusterStaticEntry',
      order: 'static',
      notes: [
        'parentID: there are no parents here; the entry counts on every node',
        'federatesWith: bundles of other trust domains are not handed out yet',
      ],
      federatesWith: ['other.org'],
      entry: {
        id: 'spiffe://example.org/db',
        selectors: ['k8s:ns:shop', 'k8s:sa:db'],
        x509TtlMs: 3_600_000,
        jwtTtlMs: undefined,
        dnsNames: ['db', '*.db.example.org'],
        hint: 'db',
        priority: 0,
      },
    },
  });
});

test('an entry with ID and selectors is enough, and a selector counts once', (t) => {
  const parsed = parseClusterStaticEntry(object({ ...GOOD, selectors: ['unix:uid:0', 'k8s:ns:shop', 'unix:uid:0'] }), OPTIONS);
  t.like(parsed, { kind: 'rule', rule: { notes: [], entry: { selectors: ['unix:uid:0', 'k8s:ns:shop'] } } });
});

const ID = 'a SPIFFE ID in the trust domain example.org, with a path';
const NARROW = 'also one that an exec cannot change, such as k8s:ns:shop or unix:uid:1000';
const FORGEABLE = 'also k8s:ns:<namespace>, such as k8s:ns:shop with k8s:sa:web: any namespace can have a pod with these';

const DIGEST = `sha256:${'ab'.repeat(32)}`;

/** What a pod of any namespace can have. */
const FORGED: readonly (readonly string[])[] = [
  ['k8s:sa:web'],
  ['k8s:pod-label:app:pay'],
  ['k8s:pod-owner:Deployment:pay'],
  ['k8s:pod-owner-uid:ReplicaSet:r-1'],
  ['k8s:pod-name:pay-0'],
  ['k8s:container-name:pay'],
  ['k8s:node-name:node-1'],
  ['k8s:pod-image-count:1'],
  ['k8s:container-image:nginx:1'],
  [`k8s:pod-image:${DIGEST.slice(0, 30)}`],
  ['k8s:pod-label:k8s:ns:shop'],
  ['unix:uid:0', 'k8s:sa:web'],
];

for (const selector of ['k8s:ns:shop', 'k8s:pod-uid:u-1']) {
  test(`names of a pod are no more than a narrowing next to ${selector}`, (t) => {
    const selectors = ['k8s:sa:web', 'k8s:pod-label:app:pay', selector];
    t.is(problemsOf({ ...GOOD, selectors }), 'rule');
  });
}

const REFUSED: readonly (readonly [Readonly<Record<string, unknown>>, string])[] = [
  [{ spiffeID: undefined }, `spec.spiffeID: found nothing, allowed: ${ID}`],
  [{ spiffeID: 3 }, `spec.spiffeID: found 3, allowed: ${ID}`],
  [{ spiffeID: 'spiffe://example.org' }, `spec.spiffeID: found "spiffe://example.org", allowed: ${ID}`],
  [{ spiffeID: 'spiffe://other.org/db' }, `spec.spiffeID: found "spiffe://other.org/db", allowed: ${ID}`],
  [
    { spiffeID: 'spiffe://example.org/a//b' },
    `spec.spiffeID: found "spiffe://example.org/a//b", allowed: ${ID} ` +
      '("spiffe://example.org/a//b" is not a SPIFFE ID: a path has no empty segment and does not end with "/")',
  ],
  [{ selectors: undefined }, 'spec.selectors: found nothing, allowed: at least one selector, such as k8s:ns:default'],
  [{ selectors: [] }, 'spec.selectors: found [], allowed: at least one selector, such as k8s:ns:default'],
  [{ selectors: 'k8s:ns:a' }, 'spec.selectors: found "k8s:ns:a", allowed: a list of at most 64 texts'],
  [
    { selectors: ['docker:label:a:b'] },
    'spec.selectors[0]: found "docker:label:a:b", allowed: a selector that this agent knows ' +
      '("docker:label:a:b" is not a selector: the type is one of unix, k8s)',
  ],
  [{ selectors: ['unix:path:/bin/sh'] }, `spec.selectors: found ["unix:path:/bin/sh"], allowed: ${NARROW}`],
  ...FORGED.map((selectors) => [{ selectors }, `spec.selectors: found ${JSON.stringify(selectors)}, allowed: ${FORGEABLE}`] as const),
  [{ parentID: 3 }, 'spec.parentID: found 3, allowed: a text'],
  [{ dnsNames: ['DB'] }, 'spec.dnsNames[0]: found "DB", allowed: a DNS name in lower case'],
  [
    { dnsNames: ['a_b'] },
    'spec.dnsNames[0]: found "a_b", allowed: a DNS name, each label with 1 to 63 letters, digits and inner hyphens',
  ],
  [
    { dnsNames: [''] },
    'spec.dnsNames[0]: found "", allowed: a DNS name, each label with 1 to 63 letters, digits and inner hyphens',
  ],
  [{ dnsNames: ['10.0.0.1'] }, 'spec.dnsNames[0]: found "10.0.0.1", allowed: a DNS name whose last label is not a number'],
  [
    { dnsNames: ['a.'.repeat(127)] },
    `spec.dnsNames[0]: found "${'a.'.repeat(30)}"…, allowed: a DNS name of at most 253 characters`,
  ],
  [{ x509SVIDTTL: '1s' }, 'spec.x509SVIDTTL: found "1s", allowed: a duration from 10s to 8760h, such as 90s, 30m or 1h30m'],
  [{ jwtSVIDTTL: '48h' }, 'spec.jwtSVIDTTL: found "48h", allowed: a duration from 10s to 24h, such as 90s, 30m or 1h30m'],
  [{ admin: true }, 'spec.admin: found true, allowed: false: there is no server whose administrator a workload could be'],
  [{ downstream: true }, 'spec.downstream: found true, allowed: false: there is no server below which another could be'],
  [{ storeSVID: true }, 'spec.storeSVID: found true, allowed: false: SVIDs are handed to workloads and put into no store'],
  [
    { hint: '\u0000' },
    'spec.hint: found "\\u0000", allowed: a text of at most 1024 bytes without control characters and lone surrogates',
  ],
];

for (const [spec, text] of REFUSED) {
  test(`refused: ${JSON.stringify(spec).slice(0, 90)}: ${text.slice(0, 90)}`, (t) =>
    t.is(problemsOf({ ...GOOD, ...spec }), text));
}

test('a member that nobody knows is refused', (t) => {
  t.regex(problemsOf({ ...GOOD, selector: 'x' }), /^spec\.selector: found "x", .* \(did you mean selectors\?\)$/);
});

test('an entry without a spec is refused, one of another class is foreign', (t) => {
  t.is(problemsOf(undefined).split('; ').length, 2);
  t.deepEqual(parseClusterStaticEntry(object({ className: 'spire' }), OPTIONS), {
    kind: 'foreign',
    name: 'db',
    className: 'spire',
  });
});
