import test from 'ava';
import { Calm } from '../../src/http2/calm.ts';
import { ConnectionFault } from '../../src/http2/fault.ts';
import { Code } from '../../src/http2/frames.ts';
import { FakeClock } from '../support/fake-clock.ts';

const excess = { instanceOf: ConnectionFault, message: /RFC 9113 §10\.5/ };

test('1,000 frames at once, then 1,000 a second', (t) => {
  const clock = new FakeClock();
  const calm = new Calm(clock);
  for (let count = 0; count < 1_000; count++) calm.spend(1);
  const fault = t.throws(() => calm.spend(1), excess);
  t.deepEqual([(fault as ConnectionFault).code, (fault as ConnectionFault).kind], [Code.enhanceYourCalm, 'excess']);
  clock.advance(100);
  for (let count = 0; count < 99; count++) calm.spend(1);
});

test('a connection that was quiet for an hour may not say an hour\'s worth at once', (t) => {
  const clock = new FakeClock();
  const calm = new Calm(clock);
  clock.advance(3_600_000);
  for (let count = 0; count < 1_999; count++) calm.spend(1);
  t.throws(() => {
    for (let count = 0; count < 3; count++) calm.spend(1);
  }, excess);
});

test('what is written pays for what its reader says to it, up to the most that may be said at once', (t) => {
  const calm = new Calm(new FakeClock());
  for (let count = 0; count < 10_000; count++) {
    calm.earn();
    calm.spend(8);
  }
  t.throws(() => calm.spend(1_001), excess);
});
