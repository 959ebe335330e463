import test from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import type { JwtAuthority, TrustBundle } from '../../src/spiffe/bundle.ts';
import { TwoPartBundle } from '../../src/upstream/vault/bundle.ts';
import { trustDomain } from './vault-tools.ts';

class Part {
  readonly #listeners = new Set<() => void>();
  roots = (): readonly Buffer[] => [];
  authorities = (): readonly JwtAuthority[] => [];

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  tell(): void {
    for (const listener of this.#listeners) listener();
  }

  get size(): number {
    return this.#listeners.size;
  }
}

test('a change of either part is a new bundle; the same in another list is none', async (t) => {
  const [x509, jwt] = [new Part(), new Part()];
  const bundle = new TwoPartBundle(trustDomain, x509, jwt);
  const seen: TrustBundle[] = [];
  bundle.onChange((next) => void seen.push(next));
  const authority = jwtAuthority((await newKeyPair('ec-p256')).publicKey);
  x509.roots = () => [Buffer.from('root')];
  x509.tell();
  jwt.authorities = () => [authority];
  jwt.tell();
  x509.tell();
  jwt.tell();
  t.deepEqual(seen.map(({ x509Authorities, jwtAuthorities }) => [x509Authorities.length, jwtAuthorities.length]), [[1, 0], [1, 1]]);
  t.is(bundle.current(), seen[1]!);
  bundle.close();
  t.is(x509.size + jwt.size, 0);
});
