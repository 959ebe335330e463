import test from 'ava';
import { mismatch, parseLabelSelector } from '../../../src/registration/rules/label-selector.ts';
import { problemText, type Problem } from '../../../src/registration/rules/problems.ts';

function parsed(value: unknown): { readonly selector: ReturnType<typeof parseLabelSelector>; readonly problems: string } {
  const problems: Problem[] = [];
  return { selector: parseLabelSelector(value, 'spec.podSelector', problems), problems: problemText(problems) };
}

const LABELS = { env: 'prod', team: 'blue', empty: '' };

/** A selector, and why it does not select LABELS (undefined: it does). */
const SELECTED: readonly (readonly [unknown, string | undefined])[] = [
  [{}, undefined],
  [{ matchLabels: {} }, undefined],
  [{ matchLabels: null, matchExpressions: null }, undefined],
  [{ matchExpressions: [] }, undefined],
  [{ matchLabels: { env: 'prod' } }, undefined],
  [{ matchLabels: { env: 'prod', team: 'blue' } }, undefined],
  [{ matchLabels: { env: 'test' } }, 'env In [test] (it is "prod")'],
  [{ matchLabels: { env: 'prod', team: 'red' } }, 'team In [red] (it is "blue")'],
  [{ matchLabels: { none: 'x' } }, 'none In [x] (there is none)'],
  [{ matchLabels: { none: '' } }, 'none In [""] (there is none)'],
  [{ matchLabels: { empty: '' } }, undefined],
  [{ matchLabels: { constructor: 'x' } }, 'constructor In [x] (there is none)'],
  [{ matchExpressions: [{ key: 'env', operator: 'In', values: ['test', 'prod'] }] }, undefined],
  [{ matchExpressions: [{ key: 'env', operator: 'In', values: ['test', 'dev'] }] }, 'env In [test, dev] (it is "prod")'],
  [{ matchExpressions: [{ key: 'env', operator: 'NotIn', values: ['test'] }] }, undefined],
  [{ matchExpressions: [{ key: 'env', operator: 'NotIn', values: ['prod'] }] }, 'env NotIn [prod] (it is "prod")'],
  [{ matchExpressions: [{ key: 'none', operator: 'NotIn', values: ['prod'] }] }, undefined],
  [{ matchExpressions: [{ key: 'env', operator: 'Exists' }] }, undefined],
  [{ matchExpressions: [{ key: 'env', operator: 'Exists', values: [] }] }, undefined],
  [{ matchExpressions: [{ key: 'empty', operator: 'Exists', values: null }] }, undefined],
  [{ matchExpressions: [{ key: 'none', operator: 'Exists' }] }, 'none Exists (there is none)'],
  [{ matchExpressions: [{ key: 'toString', operator: 'Exists' }] }, 'toString Exists (there is none)'],
  [{ matchExpressions: [{ key: 'none', operator: 'DoesNotExist' }] }, undefined],
  [{ matchExpressions: [{ key: 'env', operator: 'DoesNotExist' }] }, 'env DoesNotExist (it is "prod")'],
  [{ matchLabels: { env: 'prod' }, matchExpressions: [{ key: 'none', operator: 'Exists' }] }, 'none Exists (there is none)'],
  [{ matchLabels: { 'app.kubernetes.io/name': 'web' } }, 'app.kubernetes.io/name In [web] (there is none)'],
];

for (const [selector, why] of SELECTED) {
  test(`${JSON.stringify(selector)} ${why === undefined ? 'selects' : `does not select: ${why}`}`, (t) => {
    const { selector: read, problems } = parsed(selector);
    t.is(problems, '');
    t.is(mismatch(read ?? [], LABELS), why);
  });
}

test('no selector is told from an empty one', (t) => {
  t.is(parsed(undefined).selector, undefined);
  t.is(parsed(null).selector, undefined);
  t.deepEqual(parsed({}).selector, []);
});

const KEY = 'a label key such as app or example.org/app';
const VALUE = 'a label value: at most 63 letters, digits, ".", "-" and "_", with a letter or digit at both ends, or ""';
const S = 'spec.podSelector';
const E = `${S}.matchExpressions[0]`;

const REFUSED: readonly (readonly [unknown, string])[] = [
  ['app', `${S}: found "app", allowed: a selector with matchLabels and matchExpressions`],
  [[], `${S}: found [], allowed: a selector with matchLabels and matchExpressions`],
  [
    { matchLabel: {} },
    `${S}.matchLabel: found {}, allowed: a member among matchLabels, matchExpressions (did you mean matchLabels?)`,
  ],
  [{ matchLabels: ['a'] }, `${S}.matchLabels: found ["a"], allowed: label values by label key`],
  [{ matchLabels: { a: 1 } }, `${S}.matchLabels["a"]: found 1, allowed: ${VALUE} (write it in quotes: "1")`],
  [{ matchLabels: { a: true } }, `${S}.matchLabels["a"]: found true, allowed: ${VALUE} (write it in quotes: "true")`],
  [{ matchLabels: { a: 'x y' } }, `${S}.matchLabels["a"]: found "x y", allowed: ${VALUE}`],
  [{ matchLabels: { a: '-x' } }, `${S}.matchLabels["a"]: found "-x", allowed: ${VALUE}`],
  [{ matchLabels: { a: 'x'.repeat(64) } }, `${S}.matchLabels["a"]: found "${'x'.repeat(60)}"…, allowed: ${VALUE}`],
  [{ matchLabels: { '': 'x' } }, `${S}.matchLabels: found "", allowed: ${KEY}`],
  [{ matchLabels: { '-a': 'x' } }, `${S}.matchLabels: found "-a", allowed: ${KEY}`],
  [{ matchLabels: { '/a': 'x' } }, `${S}.matchLabels: found "/a", allowed: ${KEY}`],
  [{ matchLabels: { 'a/b/c': 'x' } }, `${S}.matchLabels: found "a/b/c", allowed: ${KEY}`],
  [{ matchLabels: { 'Example.org/a': 'x' } }, `${S}.matchLabels: found "Example.org/a", allowed: ${KEY}`],
  [{ matchExpressions: {} }, `${S}.matchExpressions: found {}, allowed: a list of { key, operator, values }`],
  [{ matchExpressions: ['a'] }, `${E}: found "a", allowed: { key, operator, values }`],
  [{ matchExpressions: [{ operator: 'Exists' }] }, `${E}.key: found "", allowed: ${KEY}`],
  [
    { matchExpressions: [{ key: 'a', operator: 'in', values: ['x'] }] },
    `${E}.operator: found "in", allowed: one of In, NotIn, Exists, DoesNotExist`,
  ],
  [{ matchExpressions: [{ key: 'a' }] }, `${E}.operator: found nothing, allowed: one of In, NotIn, Exists, DoesNotExist`],
  [{ matchExpressions: [{ key: 'a', operator: 'In' }] }, `${E}.values: found nothing, allowed: at least one value for In`],
  [
    { matchExpressions: [{ key: 'a', operator: 'NotIn', values: [] }] },
    `${E}.values: found [], allowed: at least one value for NotIn`,
  ],
  [
    { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['x'] }] },
    `${E}.values: found ["x"], allowed: no values for Exists`,
  ],
  [
    { matchExpressions: [{ key: 'a', operator: 'DoesNotExist', values: ['x'] }] },
    `${E}.values: found ["x"], allowed: no values for DoesNotExist`,
  ],
  [{ matchExpressions: [{ key: 'a', operator: 'In', values: ['x y'] }] }, `${E}.values[0]: found "x y", allowed: ${VALUE}`],
  [{ matchExpressions: [{ key: 'a', operator: 'In', values: [3] }] }, `${E}.values[0]: found 3, allowed: a text`],
  [
    { matchExpressions: [{ key: 'a', operator: 'In', value: 'x', values: ['x'] }] },
    `${E}.value: found "x", allowed: a member among key, operator, values (did you mean values?)`,
  ],
  [
    { matchExpressions: Array.from({ length: 65 }, () => ({ key: 'a', operator: 'Exists' })) },
    `${S}: found 65 requirements, allowed: at most 64 requirements`,
  ],
  [
    { matchExpressions: [{ key: 'a', operator: 'In', values: Array.from({ length: 257 }, () => 'x') }] },
    `${E}.values: found 257 items, allowed: a list of at most 256 texts`,
  ],
];

for (const [selector, text] of REFUSED) {
  test(`refused: ${JSON.stringify(selector).slice(0, 100)}: ${text.slice(0, 100)}`, (t) => t.is(parsed(selector).problems, text));
}

test('all problems of a selector are told at once', (t) => {
  const { problems } = parsed({ matchLabels: { a: 1, '-b': 'x' }, matchExpressions: [{ key: 'c' }] });
  t.is(problems.split('; ').length, 3);
});
