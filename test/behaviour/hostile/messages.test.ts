import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { Field, OWNER, STRANGER, type Facts } from '../../support/hostile-field.ts';
import { headerCases, messageCases, type MessageCase } from '../../support/hostile-messages.ts';

/** Each request with how it ended, and how it ought to. `*`: no matter how, if it ends. */
function outcomes(cases: Readonly<Record<string, MessageCase>>, facts: Facts, who: 'stranger' | 'owner'): { actual: Record<string, string>; expected: Record<string, string> } {
  const actual = facts['answers'] as Record<string, string>;
  const endings = Object.entries(cases).map(([name, each]) => [name, each[who] === '*' && actual[name] !== 'nothing' ? actual[name] ?? '' : each[who]]);
  return { actual, expected: Object.fromEntries(endings) as Record<string, string> };
}

testIf(needsRoot, 'WE-08, WE-21: a security header that is not exactly one "true" is InvalidArgument, on every RPC', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'headers', {
    most: 48,
    check: (facts, uid) => {
      const { actual, expected } = outcomes(headerCases, facts, uid === OWNER ? 'owner' : 'stranger');
      t.deepEqual(actual, expected);
    },
  });
  await field.refused('missing_header', STRANGER);
});

testIf(needsRoot, 'requests that are wrong in every other way end with a text that tells nothing', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'messages', {
    most: 96,
    uids: [OWNER, STRANGER, OWNER],
    check: (facts, uid) => {
      const { actual, expected } = outcomes(messageCases, facts, uid === OWNER ? 'owner' : 'stranger');
      t.deepEqual(actual, expected);
    },
  });
  await field.refused('bad_request', OWNER);
});

testIf(needsRoot, 'compressed messages are not unpacked', async (t) => {
  const field = await Field.open(t);
  await field.siege(t, 'gzipBombs', {
    most: 64,
    check: (facts) => t.deepEqual(facts.endings, { '12 compressed requests are not supported': 200 }),
  });
});
