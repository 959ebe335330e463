import { X509Certificate } from 'node:crypto';
import test from 'ava';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import { EventBus } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { bundleKeys, publicMembers } from '../../src/spiffe/bundle-document.ts';
import { toPem } from '../../src/spiffe/pem.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { trustDomain } from '../support/node-authorities.ts';

test('TD-16: a JWK of a bundle has its public members and nothing else, whatever else was there', (t) => {
  const jwk = { kty: 'EC', crv: 'P-256', x: 'eA', y: 'eQ', d: 'secret', k: 'secret', alg: 'ES256', key_ops: ['verify'], n: '', e: 7 };
  t.deepEqual(publicMembers(jwk), { kty: 'EC', crv: 'P-256', x: 'eA', y: 'eQ' });
  t.deepEqual(bundleKeys([], [{ kid: 'one', jwk: jwk as never }]), [{ kty: 'EC', crv: 'P-256', x: 'eA', y: 'eQ', use: 'jwt-svid', kid: 'one' }]);
});

test('TD-16: an X.509 authority is one certificate with its key; PEM of it is what a library reads', async (t) => {
  const tools = { clock: new FakeClock(), random: systemRandom, events: new EventBus() };
  const authority = await EmbeddedAuthority.open({ trustDomain, dataDir: temporaryDirectory(t), ttlMs: 86_400_000 }, tools);
  t.teardown(() => authority.close());
  const { x509Authorities, jwtAuthorities } = authority.current();
  const [root] = x509Authorities;
  const [first, ...rest] = bundleKeys(x509Authorities, jwtAuthorities);
  const { kty, crv, x, y } = new X509Certificate(root!).publicKey.export({ format: 'jwk' });
  t.deepEqual(first, { kty, crv, x, y, use: 'x509-svid', x5c: [root!.toString('base64')] });
  t.deepEqual(rest, jwtAuthorities.map(({ kid, jwk }) => ({ ...jwk, use: 'jwt-svid', kid })));
  t.deepEqual(new X509Certificate(toPem('CERTIFICATE', root!)).raw, root);
});
