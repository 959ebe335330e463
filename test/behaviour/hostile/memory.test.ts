import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { answered, fieldForAll, OWNER, STRANGER, sumOf } from '../../support/hostile-field.ts';

const TOO_MANY = '14 too%20many%20calls';

/** Requests that do not end are the subject of another file: here they hold what they can. */
const field = fieldForAll({ requestTimeout: '30s' });

testIf(needsRoot, 'unary answers that nobody reads hold 8 MiB at most of one owner, however long they are', async (t) => {
  await field().siege(t, 'unreadAnswers', {
    most: 128,
    uids: [OWNER, OWNER, OWNER],
    check: (facts) => t.true(sumOf(facts.endings) + sumOf(facts.resets) > 1_500),
  });
  await field().refused('too_many_calls', OWNER);
});

testIf(needsRoot, 'calls beyond an owner\'s share are refused, and do not stay in memory when their requests do not end', async (t) => {
  await field().siege(t, 'refusedHalfOpen', {
    most: 96,
    check: (facts) => {
      t.is(answered(facts, TOO_MANY), 52 * 256);
      t.is(facts.resets?.['0'], 52 * 256);
    },
  });
  await field().refused('too_many_calls', STRANGER);
});

testIf(needsRoot, 'thousands of empty messages in one request are not even decoded', async (t) => {
  await field().siege(t, 'tinyMessages', {
    most: 64,
    check: (facts) => {
      t.is(facts.resets?.['11'], 2 * 256, 'exchanges');
      t.is(sumOf(facts.endings), 4 * 256, 'calls of one message');
    },
  });
  await field().refused('bad_request', STRANGER, /more than 16 messages of one call at once/);
});

testIf(needsRoot, 'unfinished requests of one owner hold 8 MiB at most', async (t) => {
  await field().siege(t, 'unfinishedRequests', { most: 72, check: (facts) => t.true((facts.resets?.['11'] ?? 0) + (facts.goaways?.['11'] ?? 0) > 0) });
  await field().refused('bad_request', OWNER, /more bytes of unfinished requests/);
});

testIf(needsRoot, 'a flood of questions to reflection whose answers are not read is bounded', async (t) => {
  await field().siege(t, 'reflectionFlood', { most: 48, check: (facts) => t.true(answered(facts, TOO_MANY) >= 2_048 - 32) });
  await field().refused('too_many_calls', STRANGER);
});

testIf(needsRoot, 'health watches of 10,000 names are calls like others', async (t) => {
  await field().siege(t, 'healthWatches', {
    most: 96,
    check: (facts) => {
      t.is(Number(facts['messages']), 2_048);
      t.true(answered(facts, TOO_MANY) >= 8_000);
    },
  });
  await field().refused('too_many_calls', STRANGER);
});

testIf(needsRoot, 'the longest headers on every call that an owner may have are bounded', async (t) => {
  await field().siege(t, 'longHeaders', { most: 128, check: () => t.pass() });
});
