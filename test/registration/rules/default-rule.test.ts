import test from 'ava';
import { CONFIG_DEFAULTS } from '../../../src/config/config.ts';
import { parseDefaultRule } from '../../../src/registration/rules/default-rule.ts';
import { problemText } from '../../../src/registration/rules/problems.ts';

function problemsOf(template: string): string {
  const parsed = parseDefaultRule({ enabled: true, template, namespaces: [] });
  return parsed?.kind === 'refused' ? problemText(parsed.refused.problems) : (parsed?.kind ?? 'off');
}

test('the default of the configuration is a rule for all pods', (t) => {
  const parsed = parseDefaultRule(CONFIG_DEFAULTS.registration.defaultRule);
  t.like(parsed, { kind: 'rule', rule: { kind: 'pod', source: 'default', name: 'default', order: 'default', namespaces: [] } });
});

test('a rule that is switched off is none, whatever its template', (t) => {
  t.is(parseDefaultRule({ enabled: false, template: '{{', namespaces: [] }), undefined);
});

test('a path, a whole ID, and a template that is one or the other are read', (t) => {
  for (const template of ['/x', '/{{ .Pod.Name }}', 'spiffe://{{ .TrustDomain }}/x', '{{ if true }}/x{{ end }}'])
    t.is(problemsOf(template), 'rule');
});

test('what can be neither path nor ID is refused', (t) => {
  const at = 'registration.defaultRule.template';
  const allowed = 'a template that begins with "/" (a path) or "spiffe://" (a whole ID)';
  t.is(problemsOf('ns/{{ .Pod.Name }}'), `${at}: found "ns/{{ .Pod.Name }}", allowed: ${allowed}`);
  t.is(problemsOf(''), `${at}: found "", allowed: ${allowed}`);
  t.is(problemsOf('/{{ lower }}'), `${at}: found lower with 0 arguments at 1:5, allowed: lower TEXT`);
});
