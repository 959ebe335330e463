import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { answered, eventually, fieldForAll, OWNER, SPARE_DESCRIPTORS, STRANGER } from '../../support/hostile-field.ts';

/** So that a test need not wait for the default. */
const field = fieldForAll({ requestTimeout: '1s', stalledTimeout: '2s' });

testIf(needsRoot, 'unary answers that nobody reads end with their connection (stalledTimeout)', async (t) => {
  const { descriptors } = field();
  await field().siege(t, 'deaf', {
    most: 96,
    uids: [OWNER, OWNER, OWNER],
    // The caller lives and holds on to its connections; it is the agent that lets go.
    check: () => eventually(() => field().descriptors <= descriptors + SPARE_DESCRIPTORS, () => `${field().descriptors} descriptors`),
  });
  await field().refused('stalled_reader', OWNER);
});

testIf(needsRoot, 'WE-23: requests that are never half-closed end after requestTimeout, and their streams are given back', async (t) => {
  await field().siege(t, 'neverHalfClosed', {
    most: 48,
    uids: [STRANGER, OWNER, OWNER],
    check: (facts) => {
      t.is(answered(facts, '14 the%20request%20did%20not%20arrive%20in%20time'), 512);
      t.is(facts.resets?.['0'], 512);
    },
  });
  await field().refused('request_timeout', STRANGER);
  await field().refused('request_timeout', OWNER);
});

testIf(needsRoot, 'WE-23: requests of which only the headers come end after requestTimeout', async (t) => {
  await field().siege(t, 'headersOnly', {
    most: 48,
    uids: [STRANGER, OWNER, OWNER],
    check: (facts) => t.is(answered(facts, '14 the%20request%20did%20not%20arrive%20in%20time'), 512),
  });
  await field().refused('request_timeout', OWNER);
});
