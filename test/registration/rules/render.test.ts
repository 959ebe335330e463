import test from 'ava';
import { isSignetError } from '../../../src/errors.ts';
import type { Facts } from '../../../src/registration/rules/facts.ts';
import { FIELD_NAMES } from '../../../src/registration/rules/fields.ts';
import { render } from '../../../src/registration/rules/render.ts';
import { parseTemplate } from '../../../src/registration/rules/template.ts';
import { facts, pod } from './facts.ts';

const rendered = (text: string, more: Partial<Facts> = {}): string => render(parseTemplate(text), facts(more));

/** What each field says of the pod and the node of `facts.ts`. */
const VALUES: Readonly<Record<string, string>> = {
  '.TrustDomain': 'example.org',
  '.ClusterName': 'prod-eu1',
  '.ClusterDomain': 'cluster.local',
  '.PodMeta.Name': 'web-7d4b9-x2x4z',
  '.PodMeta.Namespace': 'shop',
  '.PodMeta.UID': '3c1b0c2e-6e0d-4f5a-9a53-2f3f4c1d7e11',
  '.PodMeta.GenerateName': 'web-7d4b9-',
  '.PodMeta.Labels': 'web',
  '.PodMeta.Annotations': 'p',
  '.PodSpec.ServiceAccountName': 'web',
  '.PodSpec.DeprecatedServiceAccount': 'web',
  '.PodSpec.NodeName': 'node-1',
  '.PodSpec.Hostname': 'web-host',
  '.PodSpec.Subdomain': 'web-sub',
  '.PodSpec.HostNetwork': 'false',
  '.PodSpec.PriorityClassName': 'high',
  '.PodSpec.RuntimeClassName': 'gvisor',
  '.NodeMeta.Name': 'node-1',
  '.NodeMeta.UID': 'node-uid',
  '.NodeMeta.Labels': 'eu-1a',
  '.NodeMeta.Annotations': 'r7',
  '.NodeSpec.ProviderID': 'aws:///eu-1a/i-0abc',
  '.NodeSpec.PodCIDR': '10.1.0.0/24',
  '.Pod.Name': 'web-7d4b9-x2x4z',
  '.Pod.Namespace': 'shop',
  '.Pod.UID': '3c1b0c2e-6e0d-4f5a-9a53-2f3f4c1d7e11',
  '.Pod.ServiceAccount': 'web',
};

/** The entry that is asked for where the field is a map. */
const ENTRIES: Readonly<Record<string, string>> = {
  '.PodMeta.Labels': 'app',
  '.PodMeta.Annotations': 'plain',
  '.NodeMeta.Labels': 'zone',
  '.NodeMeta.Annotations': 'rack',
};

test('every field says what the pod, its node and the configuration have', (t) => {
  for (const name of FIELD_NAMES) {
    const key = ENTRIES[name];
    t.is(
      rendered(key === undefined ? `{{ ${name} }}` : `{{ index ${name} "${key}" }}`),
      VALUES[name] ?? 'not in the table',
      name,
    );
  }
});

/** What Go's text/template, with sprig's functions, says of the same template, but for fields of a map that are not there. */
const RENDERED: readonly (readonly [string, string])[] = [
  ['', ''],
  ['no action }} here', 'no action }} here'],
  ['spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}', 'spiffe://example.org/ns/shop'],
  ['{{.TrustDomain}}', 'example.org'],
  ['{{\n.TrustDomain\n}}', 'example.org'],
  ['{{ .PodMeta.Labels.app }}', 'web'],
  ['{{ index .PodMeta.Labels "example.org/team" }}', 'Blue'],
  ['{{ "app" | index .PodMeta.Labels }}', 'web'],
  ['{{ index .PodMeta.Labels (lower "APP") }}', 'web'],
  ['{{ index .PodMeta.Labels "empty" }}', ''],
  ['{{ "a\\"b\\\\c\\n\\r\\t\\u00e9" }}', 'a"b\\c\n\r\té'],
  ['{{ `a"b\\n}}` }}', 'a"b\\n}}'],
  ['{{ "}}" }}', '}}'],
  ['{{ 3 }}{{ -4 }}{{-5}}{{ true }}{{ false }}', '3-4-5truefalse'],
  ['a {{- " b " -}} c', 'a b c'],
  ['a \n\t{{- "b" }} c', 'ab c'],
  ['a {{ "b" -}} \n\tc', 'a bc'],
  ['a {{/* no */}} b', 'a  b'],
  ['a {{- /* no */ -}} b', 'ab'],
  ['a {{/* {{ .Nothing }} */}}', 'a '],
  ['{{ lower "AbC" }}{{ upper "AbC" }}', 'abcABC'],
  ['[{{ trim "  a b\\n" }}]', '[a b]'],
  ['{{ trimPrefix "web-" .PodMeta.Name }}', '7d4b9-x2x4z'],
  ['{{ trimPrefix "no" "web" }}{{ trimSuffix "no" "web" }}', 'webweb'],
  ['{{ .PodMeta.GenerateName | trimSuffix "-" }}', 'web-7d4b9'],
  ['{{ replace "-" "." "a-b-c" }}', 'a.b.c'],
  ['{{ replace "b" "$&" "abc" }}', 'a$&c'],
  ['{{ .PodMeta.Name | trimPrefix "web-" | upper | replace "-" "_" }}', '7D4B9_X2X4Z'],
  ['{{ index .PodMeta.Labels "app" | default "x" }}', 'web'],
  ['{{ index .PodMeta.Labels "none" | default "x" }}', 'x'],
  ['{{ index .PodMeta.Labels "empty" | default "x" }}', 'x'],
  ['{{ .PodMeta.Labels.none | default .PodMeta.Labels.app }}', 'web'],
  ['{{ printf "%s-%d-%v-%v%%" "a" 3 true "b" }}', 'a-3-true-b%'],
  ['{{ .PodMeta.Namespace | printf "%s.%s" .PodMeta.Name }}', 'web-7d4b9-x2x4z.shop'],
  ['{{ printf "plain" }}', 'plain'],
  ['{{ if .PodSpec.HostNetwork }}host{{ else }}pod{{ end }}', 'pod'],
  [
    '{{ if .PodMeta.Labels.none }}a{{ else if .PodMeta.Labels.empty }}b{{ else if .PodMeta.Labels.app }}c{{ else }}d{{ end }}',
    'c',
  ],
  ['{{ if 0 }}a{{ end }}{{ if 1 }}b{{ end }}{{ if "" }}c{{ end }}{{ if "0" }}d{{ end }}', 'bd'],
  ['x{{ if true -}} a {{- end }}y', 'xay'],
  ['{{ if not true }}a{{ else }}{{ if true }}b{{ end }}{{ end }}', 'b'],
  [
    '{{ eq "a" "a" }}{{ eq "a" "b" }}{{ eq "a" "b" "a" }}{{ ne "a" "b" }}{{ eq 1 1 }}{{ eq true false }}',
    'truefalsetruetruetruefalse',
  ],
  ['{{ eq .PodMeta.Labels.none "" }}{{ ne .PodMeta.Labels.none "a" }}', 'truetrue'],
  [
    '{{ hasPrefix "web-" .PodMeta.Name }}{{ .PodMeta.Name | hasPrefix "x" }}{{ hasPrefix "a" .PodMeta.Labels.none }}',
    'truefalsefalse',
  ],
  ['{{ and "a" "b" }}{{ and "" "b" }}{{ or "" "b" }}{{ or "a" "b" }}{{ or "" "" }}{{ and "a" }}', 'bbaa'],
  ['{{ or .PodMeta.Labels.none .PodMeta.Labels.app }}', 'web'],
  ['{{ if and (eq .PodMeta.Namespace "shop") .PodMeta.Labels.app }}yes{{ end }}', 'yes'],
  ['{{ not .PodMeta.Labels.none }}', 'true'],
];

for (const [text, expected] of RENDERED) {
  test(`rendered: ${JSON.stringify(text)}`, (t) => t.is(rendered(text), expected));
}

test('and and or do not evaluate what comes after the argument that decides', (t) => {
  t.is(rendered('{{ if or true (eq (lower .PodMeta.Labels.none) "x") }}a{{ end }}'), 'a');
  t.is(rendered('{{ if and false (eq (lower .PodMeta.Labels.none) "x") }}a{{ end }}'), '');
});

test('a branch that is not taken cannot fail', (t) => {
  t.is(rendered('{{ if .PodMeta.Labels.none }}{{ .PodMeta.Labels.none }}{{ end }}x'), 'x');
});

const long = 'x'.repeat(3_000);

/** What only a pod can make fail. */
const FAILED: readonly (readonly [string, string])[] = [
  ['{{ index .PodMeta.Labels "none" }}', '1:4: the pod has no label "none"'],
  ['a\n{{ .PodMeta.Labels.none }}', '2:4: the pod has no label "none"'],
  ['{{ index .PodMeta.Labels "constructor" }}', '1:4: the pod has no label "constructor"'],
  ['{{ index .PodMeta.Labels "__proto__" }}', '1:4: the pod has no label "__proto__"'],
  ['{{ index .PodMeta.Annotations "none" }}', '1:4: the pod has no annotation "none"'],
  ['{{ index .NodeMeta.Labels "none" }}', '1:4: the node has no label "none"'],
  ['{{ index .NodeMeta.Annotations "none" }}', '1:4: the node has no annotation "none"'],
  ['{{ lower .PodMeta.Labels.none }}', '1:4: the pod has no label "none"'],
  ['{{ printf "%s" .PodMeta.Labels.none }}', '1:16: the pod has no label "none"'],
  ['{{ or .PodMeta.Labels.none .PodMeta.Labels.no }}', '1:28: the pod has no label "no"'],
  ['{{ default .PodMeta.Labels.none .PodMeta.Labels.no }}', '1:4: the pod has no label "none"'],
  ['{{ index .PodMeta.Labels .PodMeta.Labels.none }}', '1:26: the pod has no label "none"'],
  ['{{ replace "" "a" "b" }}', '1:4: replace has nothing to look for'],
  [
    `{{ "${long}" }}{{ "${'y'.repeat(1_000)}" }}{{ .PodMeta.UID | replace "-" "${'z'.repeat(20)}" }}`,
    '1:4035: the text is longer than 4096 characters',
  ],
  [`{{ replace "x" "xx" "${long}" }}`, '1:4: a value is longer than 4096 characters'],
  [`{{ printf "%s%s" "${long}" .PodMeta.Labels.long }}`, '1:4: a value is longer than 4096 characters'],
];

for (const [text, message] of FAILED) {
  test(`fails for this pod: ${JSON.stringify(text).slice(0, 80)}: ${message}`, (t) => {
    const error = t.throws(() => rendered(text, { pod: pod({ labels: { long } }) }));
    t.is(error?.message, `template, ${message}`);
    t.true(isSignetError(error, 'invalid_config'));
  });
}

test('what is not known is not taken for empty', (t) => {
  const message = (text: string, more: Partial<Facts>): string | undefined => t.throws(() => rendered(text, more))?.message;
  t.is(message('{{ .NodeMeta.UID }}', { node: undefined }), 'template, 1:4: .NodeMeta.UID is not known');
  t.is(message('{{ if .NodeMeta.Labels.zone }}{{ end }}', { node: undefined }), 'template, 1:7: .NodeMeta.Labels is not known');
  t.is(
    message('{{ .PodMeta.Annotations.a }}', { pod: pod({ annotations: undefined }) }),
    'template, 1:4: .PodMeta.Annotations is not known',
  );
  t.is(rendered('{{ .NodeMeta.Name }}', { node: undefined }), 'node-1');
});

test('an annotation longer than 4096 characters is refused before anything is made of it', (t) => {
  const annotations = { a: 'x'.repeat(200_000) };
  const error = t.throws(() => rendered('{{ trimPrefix "x" .PodMeta.Annotations.a }}', { pod: pod({ annotations }) }));
  t.is(error?.message, 'template, 1:4: a value is longer than 4096 characters');
});

test('with oneSegment, whoever makes the pod cannot add segments to a path', (t) => {
  const one = (text: string): string => render(parseTemplate(text), facts(), { oneSegment: true });
  const refused = 'template, 1:4: "a/b", made of a label or an annotation, has "/": it would add segments to the path';
  t.is(t.throws(() => one('{{ .PodMeta.Annotations.path }}'))?.message, refused);
  t.is(t.throws(() => one('{{ index .PodMeta.Annotations "path" | trim }}'))?.message, refused.replace('1:4', '1:40'));
  t.is(t.throws(() => one('{{ printf "x/%s" .PodMeta.Annotations.path }}'))?.message, refused.replace('1:4', '1:18'));
  t.is(t.throws(() => one('{{ or .PodMeta.Annotations.path "x" }}'))?.message, refused);
  t.is(one('{{ printf "x/%s" .PodMeta.Annotations.plain }}'), 'x/p');
  t.is(one('{{ .PodMeta.Annotations.path | replace "/" "-" }}'), 'a-b');
  t.is(one('{{ "a/b" }}{{ .NodeSpec.PodCIDR }}'), 'a/b10.1.0.0/24');
  t.is(rendered('{{ .PodMeta.Annotations.path }}'), 'a/b');
});
