import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { eventually, Field, OWNER, STRANGER } from '../../support/hostile-field.ts';

testIf(needsRoot, '1,000 connections that say nothing are closed after preludeTimeout', async (t) => {
  const field = await Field.open(t, { preludeTimeout: '3s' });
  const { descriptors } = field;
  await field.siege(t, 'silent', { most: 48, uids: [STRANGER, OWNER, STRANGER], check: () => t.true(field.descriptors >= descriptors) });
  const { process } = await field.attack('silent', STRANGER);
  await field.refused('prelude_timeout', STRANGER, /no complete HTTP\/2 request within 3000 ms/);
  await eventually(() => field.descriptors <= descriptors + 8, () => `${field.descriptors} descriptors`);
  await process.stop();
  field.isUnharmed(t);
});

testIf(needsRoot, '1,000 connections that have nothing more to say cost their share and no one else', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'idle', {
    most: 80,
    check: (facts) => {
      t.is(facts['open'], 1_000);
      t.is(facts.endings?.['0 OK'], 1_000);
    },
  });
});

testIf(needsRoot, 'slowloris: whoever sends one octet after another runs into preludeTimeout', async (t) => {
  const field = await Field.open(t, { preludeTimeout: '1s' });
  await field.siege(t, 'slowloris', { most: 48, uids: [STRANGER, OWNER, OWNER], check: (facts) => t.is(facts['open'], 0) });
  await field.refused('prelude_timeout', STRANGER);
  await field.refused('prelude_timeout', OWNER);
});

testIf(needsRoot, 'what an owner sends before the first request is complete is bounded over all of its connections', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'fullPreludes', { most: 64, check: (facts) => t.is(facts['connected'], 1_500) });
  await field.refused('prelude_bytes', STRANGER, /more bytes of unfinished requests/);
});

testIf(needsRoot, '2,000 callers that die in the middle, at every stage, leave nothing behind', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'dying', { most: 48, check: () => t.pass() });
});

testIf(needsRoot, 'what is not HTTP/2 is refused with its first bytes', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'garbage', { most: 32, uids: [STRANGER, OWNER, OWNER], check: (facts) => t.is(facts['open'], 0) });
  await field.refused('malformed_http2', STRANGER);
});
