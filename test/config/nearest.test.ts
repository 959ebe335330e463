import test from 'ava';
import { nearest } from '../../src/config/nearest.ts';

const KEYS = ['trustDomain', 'socketPath', 'dataDir', 'x509', 'jwt', 'entries', 'log'];

const SLIPS: readonly (readonly [string, string])[] = [
  ['trustdomain', 'trustDomain'],
  ['trust_domain', 'trustDomain'],
  ['trustDomian', 'trustDomain'],
  ['socketPth', 'socketPath'],
  ['entires', 'entries'],
  ['x508', 'x509'],
  ['jtw', 'jwt'],
  ['logs', 'log'],
];

for (const [slip, meant] of SLIPS) {
  test(`${slip} is nearest to ${meant}`, (t) => t.is(nearest(slip, KEYS), meant));
}

for (const text of ['socket', 'colour', 'a', '', 'trustDomain'.repeat(20)]) {
  test(`nothing is near ${JSON.stringify(text.slice(0, 20))}`, (t) => t.is(nearest(text, KEYS), undefined));
}
