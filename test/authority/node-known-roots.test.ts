import test from 'ava';
import { addRoots, endOf, followRoots, knownRoot, usableFrom } from '../../src/authority/known-roots.ts';
import { testIssuer } from '../support/authorities.ts';

const START = Date.UTC(2030, 0, 1);
const END = START + 1_000_000;
const HOLD = 1_000;
const a = (await testIssuer(START, END)).certificate;
const b = (await testIssuer(START, END)).certificate;

test('roots are known since they were first seen', (t) => {
  const first = followRoots([], [a], START);
  t.deepEqual(first, [knownRoot(a, START)]);
  const both = followRoots(first, [a, b], START + 10);
  t.deepEqual(both.map(({ since }) => since - START), [0, 10]);
  t.is(followRoots(both, [b, a], START + 20), both, 'nothing has changed');
  t.is(addRoots(both, [b], START + 20), both);
  t.is(usableFrom(both, b, 30), START + 40);
  t.is(usableFrom(first, b, 30), Infinity);
});

test('FED-04: one that is given up stays until everything under it has ended, and one that comes back stays', (t) => {
  const left = followRoots([knownRoot(a, START)], [b], START + 10);
  const [root] = left;
  t.is(root?.leftAt, START + 10);
  t.is(followRoots(left, [b], START + 20), left, 'it was given up when it was first missed');
  t.is(root && endOf(root, [], HOLD), START + 10 + HOLD);
  t.is(root && endOf(root, [{ root: a, notAfter: START + 5_000 }, { root: b, notAfter: START + 9_000 }], HOLD), START + 5_000);
  t.is(root && endOf(root, [{ root: a, notAfter: END + 5_000 }], HOLD), END, 'never longer than it is valid');
  const [back] = followRoots(left, [a, b], START + 30);
  t.is(back?.leftAt, undefined);
  t.is(back?.since, START, 'it was in the bundle all the time');
  t.is(back && endOf(back, [], HOLD), END);
});

test('an upstream that knows no roots at present gives none up', (t) => {
  const known = [knownRoot(a, START)];
  t.is(followRoots(known, [], START + 10), known);
});
