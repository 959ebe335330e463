import test from 'ava';
import type { JwtAuthority, TrustBundle } from '../../src/spiffe/bundle.ts';
import { composeBundle } from '../../src/trust/composed-bundle.ts';
import { testCa } from '../support/authorities.ts';
import { jwtKey, type OwnJwtKey } from '../support/node-key-sets.ts';
import { OwnBundle } from './nodes.ts';

const [one, two, three] = [await jwtKey(), await jwtKey(), await jwtKey()];

class Others {
  readonly #listeners = new Set<() => void>();
  #keys: readonly JwtAuthority[] = [];

  keys(): readonly JwtAuthority[] {
    return this.#keys;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  become(...keys: readonly OwnJwtKey[]): void {
    this.#keys = keys;
    for (const listener of [...this.#listeners]) listener();
  }
}

const kids = ({ jwtAuthorities }: TrustBundle): string[] => jwtAuthorities.map(({ kid }) => kid);

test('own keys come first, then the others in their order, each once', async (t) => {
  const root = await testCa();
  const [own, others] = [new OwnBundle([root], [two, one]), new Others()];
  const source = composeBundle(own, others);
  t.deepEqual(kids(source.current()), [two.kid, one.kid]);
  others.become(three, one, three);
  t.deepEqual(kids(source.current()), [two.kid, one.kid, three.kid]);
  t.deepEqual(source.current().x509Authorities, [root.certificate]);
});

test('the bundle is the same value until something in it changes, and each change is told once', (t) => {
  const [own, others] = [new OwnBundle([], [one]), new Others()];
  const source = composeBundle(own, others);
  const told: string[][] = [];
  const stop = source.onChange((bundle) => told.push(kids(bundle)));
  const before = source.current();
  others.become(one);
  own.become({ jwtAuthorities: [one] });
  t.is(source.current(), before);
  others.become(one, two);
  own.become({ jwtAuthorities: [one, three] });
  t.deepEqual(told, [[one.kid, two.kid], [one.kid, three.kid, two.kid]]);
  t.is(source.current(), source.current());
  stop();
  others.become();
  t.is(told.length, 2);
  t.deepEqual(kids(source.current()), [one.kid, three.kid]);
});

test('a key that this node has given up is not there, although the cluster still has it', (t) => {
  const [own, others] = [new OwnBundle([], [one, two]), new Others()];
  const source = composeBundle(own, others);
  others.become(one, two, three);
  own.become({ jwtAuthorities: [two] });
  t.deepEqual(kids(source.current()), [two.kid, three.kid]);
  own.become({ jwtAuthorities: [one, two] });
  t.deepEqual(kids(source.current()), [one.kid, two.kid, three.kid]);
});

test('every listener hears of a change, also one that came while nobody looked', (t) => {
  const [own, others] = [new OwnBundle([], [one]), new Others()];
  const source = composeBundle(own, others);
  const counts = [0, 0];
  for (const index of counts.keys()) source.onChange(() => (counts[index] = (counts[index] ?? 0) + 1));
  others.become(two);
  t.deepEqual(counts, [1, 1]);
});
