import { createPrivateKey, createPublicKey } from 'node:crypto';
import test from 'ava';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';

for (const type of KEY_TYPES) {
  test(`a key of the type ${type} is encoded as OpenSSL encodes it`, async (t) => {
    const { publicKey, privateKey } = await newEncodedKeyPair(type);
    const key = createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' });
    t.deepEqual(key.export({ format: 'der', type: 'pkcs8' }), privateKey);
    t.deepEqual(createPublicKey(key).export({ format: 'der', type: 'spki' }), publicKey);
  });
}

test('WA-29: a private key that begins with zeros keeps its length', async (t) => {
  let short = 0;
  // One in 256 does: none among so many would be a wonder (1 in 10^13).
  for (let count = 0; count < 8_000 && short < 3; count += 1) {
    const { publicKey, privateKey } = await newEncodedKeyPair('ec-p256');
    if (privateKey[36] !== 0) continue;
    short += 1;
    const key = createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' });
    t.deepEqual(createPublicKey(key).export({ format: 'der', type: 'spki' }), publicKey);
  }
  t.true(short > 0);
});

test('two keys share no memory and are never the same', async (t) => {
  const [a, b] = [await newEncodedKeyPair('ec-p256'), await newEncodedKeyPair('ec-p256')];
  t.not(a.privateKey.buffer, b.privateKey.buffer);
  t.is(a.privateKey.buffer.byteLength, a.privateKey.length);
  t.notDeepEqual(a.privateKey, b.privateKey);
});
