import test from 'ava';
import { isNarrowing, parseSelector } from '../../src/spiffe/selector.ts';

for (const text of [
  'unix:uid:0',
  'unix:gid:4294967294',
  'unix:user:web',
  'unix:group:web',
  'unix:supplementary_gid:27',
  'unix:supplementary_group:sudo',
  'unix:path:/usr/bin/a:b',
  `unix:sha256:${'a'.repeat(64)}`,
]) {
  test(`${text.slice(0, 50)} is a selector`, (t) => {
    t.is(parseSelector(text), text);
  });
}

for (const [text, why] of [
  ['', /the type is one of unix/],
  ['docker:label:a', /the type is one of unix/],
  ['unix', /a unix selector is one of/],
  ['unix:name:a', /a unix selector is one of/],
  ['unix:uid:', /it has no value/],
  ['unix:uid:web', /decimal number/],
  ['unix:uid:01', /decimal number/],
  ['unix:uid:-1', /decimal number/],
  ['unix:uid:4294967295', /decimal number of at most 4294967294/],
  ['constructor:x:y', /the type is one of unix/],
  ['unix:supplementary_gid:x', /decimal number/],
  ['unix:path:bin/a', /absolute path/],
  ['unix:sha256:ABC', /64 hexadecimal digits/],
] as const) {
  test(`${JSON.stringify(text)} is refused`, (t) => {
    t.throws(() => parseSelector(text), { code: 'invalid_selector', message: why });
  });
}

test('what an exec can change only narrows', (t) => {
  t.true(isNarrowing('unix:path:/bin/a'));
  t.true(isNarrowing('unix:sha256:00'));
  t.false(isNarrowing('unix:uid:0'));
  t.false(isNarrowing('unix:user:path'));
});
