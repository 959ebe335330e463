import test from 'ava';
import { isSignetError } from '../../../src/errors.ts';
import { parseClusterSpiffeId } from '../../../src/registration/rules/cluster-spiffe-id.ts';
import { parseClusterStaticEntry } from '../../../src/registration/rules/cluster-static-entry.ts';
import { FIELD_NAMES } from '../../../src/registration/rules/fields.ts';
import { render } from '../../../src/registration/rules/render.ts';
import { evaluate } from '../../../src/registration/rules/rules.ts';
import { LONGEST_OUTPUT } from '../../../src/registration/rules/syntax.ts';
import { parseTemplate } from '../../../src/registration/rules/template.ts';
import { parseSpiffeId, parseTrustDomain, pathOf, trustDomainOf } from '../../../src/spiffe/id.ts';
import { SeededRandom } from '../../support/kernel-random.ts';
import { facts, pod } from './facts.ts';

const PIECES: readonly [string, ...string[]] = [
  '{{',
  '}}',
  '{{-',
  '-}}',
  ' ',
  '\n',
  '|',
  '(',
  ')',
  '"',
  '`',
  '\\',
  '"a"',
  '`b`',
  '3',
  '-4',
  'true',
  'false',
  '.',
  '$',
  '/*',
  '*/',
  'x/',
  'spiffe://',
  'if',
  'else',
  'end',
  'range',
  'index',
  'lower',
  'upper',
  'trim',
  'trimPrefix',
  'replace',
  'default',
  'printf',
  '"%s-%v"',
  'eq',
  'ne',
  'and',
  'or',
  'not',
  'hasPrefix',
  '.PodMeta.Labels.app',
  '.PodMeta.Labels.none',
  '"app"',
  '.Nothing',
  ...FIELD_NAMES,
];

/** Templates that are mostly well formed, so that the renderer is reached too. */
const SEEDS: readonly [string, ...string[]] = [
  'spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}',
  '{{ index .PodMeta.Labels "app" | default "x" | upper }}-{{ printf "%s/%v" .Pod.Name true }}',
  '{{ if and (eq .PodMeta.Namespace "shop") (not .PodSpec.HostNetwork) }}a{{ else if .PodMeta.Labels.app }}b{{ else }}c{{ end }}',
  '{{- /* c */ -}} {{ replace "-" "." (trimPrefix "web-" .PodMeta.Name) }} {{ or .PodMeta.Annotations.plain "y" -}} x',
];

/** Only what Signet itself says no with may come out. */
function outcome(run: () => string): string | undefined {
  try {
    return run();
  } catch (error) {
    if (isSignetError(error, 'invalid_config')) return undefined;
    throw error;
  }
}

test('random templates throw nothing but SignetError, and give at most 4096 characters', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  let rendered = 0;
  for (let round = 0; round < 20_000; round++) {
    const soup = (): string => Array.from({ length: random.below(24) }, () => random.pick(PIECES)).join(random.pick(['', ' ']));
    const text = random.below(3) === 0 ? soup() : random.mutate(random.pick(SEEDS));
    const output = outcome(() => render(parseTemplate(text), facts(), { oneSegment: random.below(2) === 0 }));
    if (output === undefined) continue;
    rendered++;
    if (output.length > LONGEST_OUTPUT) t.fail(JSON.stringify(text));
  }
  t.log(`${rendered} were rendered`);
  t.true(rendered > 1_000);
});

const HOSTILE: readonly [string, ...string[]] = [
  '',
  '.',
  '..',
  '../x',
  'a/b',
  '/',
  '//',
  'a/../b',
  '%2e%2e',
  '%2F',
  'a b',
  'a\u0000b',
  '\n',
  'é',
  '\ud800',
  'a?b',
  'a#b',
  'x@evil.org',
  'evil.org/x',
  ':',
  'web',
  'A',
  'a.b_c-d',
  'x'.repeat(300),
  'x'.repeat(5_000),
  '{{ .TrustDomain }}',
  '__proto__',
  'spiffe://evil.org/x',
];

const ID_TEMPLATES = [
  'spiffe://{{ .TrustDomain }}/a/{{ .PodMeta.Labels.v }}',
  'spiffe://{{ .TrustDomain }}/a/{{ .PodMeta.Labels.v }}/b',
  'spiffe://{{ .TrustDomain }}{{ .PodMeta.Labels.v }}',
  'spiffe://{{ .PodMeta.Labels.v }}/a',
  '{{ .PodMeta.Annotations.v }}',
  'spiffe://{{ .TrustDomain }}/{{ printf "%s" .PodMeta.Annotations.v | lower }}',
  'spiffe://{{ .TrustDomain }}/{{ .PodMeta.Annotations.v | default "d" }}',
  'spiffe://{{ .TrustDomain }}/{{ trimPrefix "." .PodMeta.Annotations.v }}/{{ .PodMeta.Labels.v }}',
  'spiffe://{{ .TrustDomain }}/{{ if .PodMeta.Labels.v }}{{ .PodMeta.Labels.v }}{{ else }}none{{ end }}',
];

test('hostile labels and annotations never make an ID that is none, of another trust domain, or with more segments', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  const value = (): string =>
    random.below(3) === 0 ? random.text('ab./-_%\u0000 :{}é', random.below(12)) : random.pick(HOSTILE);
  const segments = (text: string): number => text.split('/').length;
  for (const spiffeIDTemplate of ID_TEMPLATES) {
    const parsed = parseClusterSpiffeId(
      { metadata: { name: 'r' }, spec: { spiffeIDTemplate } },
      { className: '', watchClassless: true },
    );
    if (parsed.kind !== 'rule') return t.fail(JSON.stringify(parsed));
    // What is in braces here has no slash.
    const expected = segments(spiffeIDTemplate);
    for (let round = 0; round < 400; round++) {
      const [label, annotation] = [value(), value()];
      const { entries, decisions } = evaluate(
        [parsed.rule],
        facts({ pod: pod({ labels: { v: label }, annotations: { v: annotation } }) }),
      );
      t.is(entries.length, decisions[0]?.outcome === 'applies' ? 1 : 0);
      for (const { id } of entries) {
        const shown = JSON.stringify({ spiffeIDTemplate, label, annotation, id });
        t.is(parseSpiffeId(id), id, shown);
        t.is(trustDomainOf(id), parseTrustDomain('example.org'), shown);
        t.not(pathOf(id), '', shown);
        t.is(segments(id), expected, shown);
      }
    }
  }
});

test('random objects are read or refused, and nothing is thrown', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  const names: readonly [string, ...string[]] = [
    'spiffeIDTemplate',
    'spiffeID',
    'selectors',
    'podSelector',
    'namespaceSelector',
    'matchLabels',
    'matchExpressions',
    'key',
    'operator',
    'values',
    'ttl',
    'hint',
    'dnsNames',
    'dnsNameTemplates',
    'federatesWith',
    'admin',
    'className',
    'x509SVIDTTL',
    'parentID',
    '__proto__',
    'constructor',
  ];
  const any = (depth: number): unknown => {
    const kind = random.below(depth > 4 ? 5 : 8);
    if (kind < 5)
      return [null, random.below(9) - 4, random.below(2) === 0, random.pick([...HOSTILE, 'In', '1h', 'k8s:ns:a']), 'Exists'][
        kind
      ];
    if (kind === 5) return Array.from({ length: random.below(4) }, () => any(depth + 1));
    return Object.fromEntries(Array.from({ length: random.below(5) }, () => [random.pick(names), any(depth + 1)]));
  };
  const options = { className: '', watchClassless: true, trustDomain: parseTrustDomain('example.org') };
  for (let round = 0; round < 5_000; round++) {
    const object = { metadata: any(0), spec: any(0) };
    for (const parsed of [parseClusterSpiffeId(object, options), parseClusterStaticEntry(object, options)]) {
      if (parsed.kind === 'refused' && parsed.refused.problems.length === 0) t.fail(JSON.stringify(object));
    }
  }
  t.pass();
});
