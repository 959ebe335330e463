import test from 'ava';
import { isSignetError } from '../../../src/errors.ts';
import { needs, parseTemplate } from '../../../src/registration/rules/template.ts';
import { TemplateError } from '../../../src/registration/rules/syntax.ts';

const OPERAND = 'a field such as .PodMeta.Name, a text in "…", a number, true, false or (…)';
const TOKEN = 'a field such as .PodMeta.Name, a function, a text in "…" or `…`, a number, true or false';
const FUNCTIONS = 'and, default, eq, hasPrefix, lower, ne, not, or, printf, replace, trim, trimPrefix, trimSuffix, upper, index';
const NO_REPEAT = 'if, else, end, a field or a function (templates here do not repeat, and do not name or call others)';
const POD_SPEC =
  '.PodSpec.ServiceAccountName, .PodSpec.DeprecatedServiceAccount, .PodSpec.NodeName, .PodSpec.Hostname, .PodSpec.Subdomain, ' +
  '.PodSpec.HostNetwork, .PodSpec.PriorityClassName, .PodSpec.RuntimeClassName';
const POD_META = '.PodMeta.Name, .PodMeta.Namespace, .PodMeta.UID, .PodMeta.GenerateName, .PodMeta.Labels, .PodMeta.Annotations';
const INDEX = 'index .PodMeta.Labels "key", or another field of labels or annotations';

/** What is refused when it is read, and the whole text of why. */
const REFUSED: readonly (readonly [string, string])[] = [
  ['{{ range .PodMeta.Labels }}x{{ end }}', `1:4: found "range", allowed: ${NO_REPEAT}`],
  ['{{ with .Pod }}{{ end }}', `1:4: found "with", allowed: ${NO_REPEAT}`],
  ['{{ define "x" }}{{ end }}', `1:4: found "define", allowed: ${NO_REPEAT}`],
  ['{{ template "x" }}', `1:4: found "template", allowed: ${NO_REPEAT}`],
  ['{{ block "x" . }}{{ end }}', `1:4: found "block", allowed: ${NO_REPEAT}`],
  ['{{ break }}', `1:4: found "break", allowed: ${NO_REPEAT}`],
  ['{{ continue }}', `1:4: found "continue", allowed: ${NO_REPEAT}`],
  ['{{ .PodMeta.Namespce }}', `1:4: found ".PodMeta.Namespce", allowed: a field: ${POD_META} (did you mean .PodMeta.Namespace?)`],
  [
    '{{ .podMeta.namespace }}',
    `1:4: found ".podMeta.namespace", allowed: a field: ${POD_META} (did you mean .PodMeta.Namespace?)`,
  ],
  ['{{ .PodSpec.Containers }}', `1:4: found ".PodSpec.Containers", allowed: a field: ${POD_SPEC}`],
  ['{{ .PodMeta.OwnerReferences }}', `1:4: found ".PodMeta.OwnerReferences", allowed: a field: ${POD_META}`],
  ['{{ .PodMeta }}', `1:4: found ".PodMeta", allowed: a field: ${POD_META}`],
  ['{{ . }}', `1:4: found ".", allowed: ${TOKEN} ("." alone is no field)`],
  ['{{ $x := .TrustDomain }}', `1:4: found "$", allowed: ${TOKEN} (there are no variables)`],
  ['{{ $.TrustDomain }}', `1:4: found "$", allowed: ${TOKEN} (there are no variables)`],
  ['{{ .PodMeta.Labels }}', '1:4: found ".PodMeta.Labels", allowed: one of its entries: index .PodMeta.Labels "key"'],
  [
    '{{ .PodMeta.Labels.a.b }}',
    `1:4: found ".PodMeta.Labels.a.b", allowed: a field: ${POD_META} (did you mean .PodMeta.Labels?)`,
  ],
  ['{{ index .PodMeta.Labels }}', `1:26: found "}}", allowed: ${OPERAND}`],
  ['{{ index .PodMeta.Labels "a" "b" }}', `1:30: found "b", allowed: ${INDEX}, with one key`],
  ['{{ index .PodMeta.Name "a" }}', `1:10: found ".PodMeta.Name", allowed: ${INDEX}`],
  ['{{ index "a" "b" }}', `1:10: found "a", allowed: ${INDEX}`],
  ['{{ index .PodMeta.Labels 1 }}', `1:26: found a number, allowed: a text: ${INDEX}`],
  ['{{ index .PodMeta.Labels.app "a" }}', `1:10: found ".PodMeta.Labels.app", allowed: ${INDEX}`],
  ['{{ lowr .Pod.Name }}', `1:4: found "lowr", allowed: if, else, end or a function: ${FUNCTIONS} (did you mean lower?)`],
  ['{{ print .Pod.Name }}', `1:4: found "print", allowed: if, else, end or a function: ${FUNCTIONS} (did you mean printf?)`],
  ['{{ len .Pod.Name }}', `1:4: found "len", allowed: if, else, end or a function: ${FUNCTIONS}`],
  ['{{ quote .Pod.Name }}', `1:4: found "quote", allowed: if, else, end or a function: ${FUNCTIONS}`],
  ['{{ html .Pod.Name }}', `1:4: found "html", allowed: if, else, end or a function: ${FUNCTIONS}`],
  ['{{ lower }}', '1:4: found lower with 0 arguments, allowed: lower TEXT'],
  ['{{ lower .Pod.Name .Pod.Name }}', '1:4: found lower with 2 arguments, allowed: lower TEXT'],
  ['{{ lower 3 }}', '1:10: found a number, allowed: a text: lower TEXT'],
  ['{{ lower true }}', '1:10: found true or false, allowed: a text: lower TEXT'],
  ['{{ lower .PodSpec.HostNetwork }}', '1:10: found true or false, allowed: a text: lower TEXT'],
  ['{{ trimPrefix "a" }}', '1:4: found trimPrefix with 1 argument, allowed: trimPrefix "prefix" TEXT'],
  ['{{ eq .Pod.Name 3 }}', '1:17: found a number, allowed: values of one kind: eq A B …'],
  ['{{ ne .Pod.Name .Pod.Name .Pod.Name }}', '1:4: found ne with 3 arguments, allowed: ne A B'],
  ['{{ eq .Pod.Name }}', '1:4: found eq with 1 argument, allowed: eq A B …'],
  ['{{ eq (and .Pod.Name true) "x" }}', '1:8: found either of values of several kinds, allowed: values of one kind: eq A B …'],
  ['{{ and .Pod.Name true }}', '1:4: found either of values of several kinds, allowed: a text, a number, true or false'],
  ['{{ printf }}', '1:4: found printf with 0 arguments, allowed: printf "%s-%s" A B …'],
  ['{{ printf .Pod.Name "x" }}', '1:11: found a format that is not written out, allowed: printf "%s-%s" A B …'],
  ['{{ printf "%q" .Pod.Name }}', '1:11: found "%q", allowed: a format with %s, %d, %v and %%, without flags and widths'],
  ['{{ printf "%5s" .Pod.Name }}', '1:11: found "%5s", allowed: a format with %s, %d, %v and %%, without flags and widths'],
  ['{{ printf "%s" }}', '1:11: found 1 verb for 0 values, allowed: one of %s, %d and %v for each value'],
  ['{{ printf "%s" .Pod.Name .Pod.Name }}', '1:11: found 1 verb for 2 values, allowed: one of %s, %d and %v for each value'],
  ['{{ printf "%d" .Pod.Name }}', '1:16: found a text, allowed: a number for %d'],
  ['{{ printf "%s" 3 }}', '1:16: found a number, allowed: a text for %s'],
  ['{{ printf "%v" (or .Pod.Name 3) }}', '1:17: found either of values of several kinds, allowed: a value of one kind for %v'],
  ['{{ printf "100%" }}', '1:11: found "100%", allowed: a format with %s, %d, %v and %%, without flags and widths'],
  ['{{ .Pod.Name | "x" }}', `1:16: found "x", allowed: a function after "|": ${FUNCTIONS}`],
  ['{{ .Pod.Name | .Pod.UID }}', `1:16: found ".Pod.UID", allowed: a function after "|": ${FUNCTIONS}`],
  ['{{ .Pod.Name | }}', `1:16: found "}}", allowed: a function after "|": ${FUNCTIONS}`],
  ['{{ | lower }}', `1:4: found "|", allowed: ${OPERAND}`],
  ['{{ .Pod.Name "x" }}', '1:14: found "x", allowed: }} or "|"'],
  ['{{ "x" "y" }}', '1:8: found "y", allowed: }} or "|"'],
  [
    '{{ lower upper .Pod.Name }}',
    `1:10: found "upper", allowed: ${OPERAND} (a function among the arguments of another stands in (…))`,
  ],
  ['{{ (lower .Pod.Name }}', '1:21: found "}}", allowed: ")" or "|"'],
  ['{{ lower .Pod.Name) }}', '1:19: found ")", allowed: }} or "|"'],
  ['{{ (.Pod).Name }}', '1:10: found ".", allowed: a space, "|", ")" or "}}" after ")"'],
  ['{{ () }}', `1:5: found ")", allowed: ${OPERAND}`],
  ['{{ }}', `1:4: found "}}", allowed: ${OPERAND} (an action cannot be empty)`],
  ['{{}}', `1:3: found "}}", allowed: ${OPERAND} (an action cannot be empty)`],
  ['{{', '1:1: found {{ without }}, allowed: an action closed by }}'],
  ['a\n  {{ .Pod.Name', '2:3: found {{ without }}, allowed: an action closed by }}'],
  ['{{ .Pod.Name }', `1:14: found "}", allowed: ${TOKEN}`],
  ['{{ "x }}', '1:4: found a text without its closing ", allowed: a text in "…"'],
  ['{{ "x\n" }}', '1:4: found a text without its closing ", allowed: a text in "…"'],
  ['{{ `x }}', '1:4: found a text without its closing `, allowed: a text in `…`'],
  ['{{ "\\x41" }}', '1:5: found "\\\\x", allowed: \\", \\\\, \\n, \\r, \\t or \\u and four hexadecimal digits'],
  ["{{ 'a' }}", `1:4: found "'", allowed: ${TOKEN} (write texts in "…")`],
  ['{{ .Pod.Name"x" }}', '1:13: found "\\"", allowed: a space, "|", ")" or "}}" after ".Pod.Name"'],
  ['{{ "x".Pod }}', '1:7: found ".", allowed: a space, "|", ")" or "}}" after "\\"x\\""'],
  ['{{-.Pod.Name }}', `1:3: found "-", allowed: ${TOKEN}`],
  ['{{ .Pod.Name-}}', '1:13: found "-", allowed: a space, "|", ")" or "}}" after ".Pod.Name"'],
  ['{{ 1.5 }}', '1:5: found ".", allowed: a space, "|", ")" or "}}" after "1"'],
  ['{{ nil }}', `1:4: found "nil", allowed: if, else, end or a function: ${FUNCTIONS}`],
  ['{{ 3x }}', '1:5: found "x", allowed: a space, "|", ")" or "}}" after "3"'],
  ['{{ /* a */ }}', `1:4: found "/", allowed: ${TOKEN}`],
  ['{{/* a }}', '1:3: found a comment without end, allowed: {{/* … */}}'],
  ['{{/* a */ x }}', '1:10: found " ", allowed: }} right after a comment'],
  ['{{ ä }}', `1:4: found "ä", allowed: ${TOKEN}`],
  ['{{ if }}x{{ end }}', `1:7: found "}}", allowed: ${OPERAND}`],
  ['{{ if .Pod.Name }}x', '1:4: found "if" without "end", allowed: {{ if … }} closed by {{ end }}'],
  ['{{ if .Pod.Name }}x{{ else }}y', '1:4: found "if" without "end", allowed: {{ if … }} closed by {{ end }}'],
  ['{{ if .Pod.Name }}x{{ else }}y{{ else }}z{{ end }}', '1:34: found "else", allowed: {{ end }} after {{ else }}'],
  ['{{ end }}', '1:4: found "end", allowed: "end" only within {{ if … }}'],
  ['{{ else }}', '1:4: found "else", allowed: "else" only within {{ if … }}'],
  ['{{ else if .Pod.Name }}', '1:4: found "else", allowed: "else if" only within {{ if … }}'],
  ['{{ if .Pod.Name }}{{ end x }}', '1:26: found "x", allowed: }} after "end"'],
  ['{{ if .Pod.Name }}{{ else x }}{{ end }}', '1:27: found "x", allowed: }} after "else"'],
  ['{{ lower if }}', `1:10: found "if", allowed: ${OPERAND} (a function among the arguments of another stands in (…))`],
  [
    '{{ .Pod.Name | end }}',
    `1:16: found "end", allowed: if, else, end or a function: ${FUNCTIONS} ("end" stands first in its action)`,
  ],
  ['{{ ((((((((((((((((("x"))))))))))))))))) }}', '1:20: found "(", allowed: at most 16 ifs and parentheses within each other'],
];

function refusal(text: string): unknown {
  try {
    return parseTemplate(text);
  } catch (error) {
    return error;
  }
}

for (const [text, message] of REFUSED) {
  test(`refused with line and column: ${JSON.stringify(text)}`, (t) => {
    const error = refusal(text);
    if (!(error instanceof TemplateError)) return t.fail(`not refused: ${String(error)}`);
    t.is(error.message, `template, ${message}`);
    t.true(isSignetError(error, 'invalid_config'));
  });
}

test('a refusal has its parts apart', (t) => {
  const error = refusal('a\n{{ lowr .Pod.Name }}');
  if (!(error instanceof TemplateError)) return t.fail();
  t.deepEqual([error.position, error.found, error.hint], ['2:4', '"lowr"', 'did you mean lower?']);
});

test('a template of 4096 characters is read, one of 4097 is not', (t) => {
  t.notThrows(() => parseTemplate('x'.repeat(4_096)));
  t.throws(() => parseTemplate('x'.repeat(4_097)), {
    message: 'template, 1:1: found 4097 characters, allowed: a template of at most 4096 characters',
  });
});

test('16 ifs within each other are read, 17 are not', (t) => {
  const nested = (depth: number): string => `${'{{ if true }}'.repeat(depth)}x${'{{ end }}'.repeat(depth)}`;
  t.notThrows(() => parseTemplate(nested(16)));
  t.throws(() => parseTemplate(nested(17)), {
    message: 'template, 1:212: found "if", allowed: at most 16 ifs and parentheses within each other',
  });
});

test('16 parentheses within each other are read, 17 are not; many next to each other are', (t) => {
  const nested = (depth: number): string => `{{ ${'('.repeat(depth)}"x"${')'.repeat(depth)} }}`;
  t.notThrows(() => parseTemplate(nested(16)));
  t.throws(() => parseTemplate(nested(17)), {
    message: 'template, 1:20: found "(", allowed: at most 16 ifs and parentheses within each other',
  });
  t.notThrows(() => parseTemplate('{{ if (true) }}{{ end }}'.repeat(100)));
});

test('a template knows what must be watched for it', (t) => {
  const of = (text: string): string[] => [...needs(parseTemplate(text))].sort();
  t.deepEqual(of('/ns/{{ .PodMeta.Namespace }}/{{ .NodeMeta.Name }}/{{ .PodMeta.Labels.app }}'), []);
  t.deepEqual(of('{{ index .PodMeta.Annotations "a" }}'), ['annotations']);
  t.deepEqual(of('{{ .PodMeta.Annotations.a }}{{ .NodeMeta.UID }}'), ['annotations', 'node']);
  t.deepEqual(of('{{ if false }}{{ .NodeSpec.ProviderID }}{{ else }}{{ .NodeMeta.Labels.zone }}{{ end }}'), ['node']);
});
