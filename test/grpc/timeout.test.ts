import test from 'ava';
import { CallFault, Status } from '../../src/grpc/status.ts';
import { readTimeout } from '../../src/grpc/timeout.ts';

test('a timeout is up to eight digits and its unit', (t) => {
  const said = { '1H': 3_600_000, '2M': 120_000, '3S': 3_000, '4m': 4, '5u': 0.005, '6n': 0.000006, '0S': 0, '99999999H': 99_999_999 * 3_600_000 };
  for (const [text, ms] of Object.entries(said)) t.true(Math.abs(readTimeout(text) - ms) < 1e-9, text);
});

test('anything else is refused, and shown no longer than it needs to be', (t) => {
  for (const text of ['', 'S', '1', '1s', '-1S', '1.5S', ' 1S', '1S ', '123456789S', '1SS', '1toString', '١S', 'x'.repeat(10_000)]) {
    const fault = t.throws(() => readTimeout(text), { instanceOf: CallFault }) as CallFault;
    t.is(fault.status.code, Status.internal);
    t.true(fault.status.details.length < 80);
  }
});
