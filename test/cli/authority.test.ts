import test, { type ExecutionContext } from 'ava';
import type { AuthorityView, OrderAnswer } from '../../src/admin/messages.ts';
import type { AuthorityControl } from '../../src/admin/source.ts';
import type { KeyFact, KindOrder, KeyOrder, OrderResult } from '../../src/authority/orders.ts';
import { describeAuthority, describeOrder } from '../../src/cli/authority.ts';
import { filledSource } from '../admin/filled-source.ts';
import { openAdmin } from '../admin/operator.ts';
import { run, type Result } from './run.ts';

const plain = (_style: string, text: string): string => text;
const NOW = Date.UTC(2030, 0, 1, 1);

const VIEW: AuthorityView = {
  keys: [
    { kind: 'x509', id: 'aa11', state: 'old', published_since: '2030-01-01T00:00:00Z', activates_at: '2030-01-01T00:00:00Z', leaves_at: '2030-01-01T02:00:00Z', not_after: '2030-01-01T02:00:00Z' },
    { kind: 'x509', id: 'bb22', state: 'active', activates_at: '2030-01-01T00:30:00Z', leaves_at: '2030-01-01T04:00:00Z', not_after: '2030-01-01T04:00:00Z' },
    { kind: 'jwt', id: 'c\u001b[2J', state: 'prepared', published_since: '2030-01-01T00:59:00Z', usable_from: '2030-01-01T01:02:00Z', activates_at: '2030-01-01T03:00:00Z', leaves_at: '2030-01-01T05:00:00Z', not_after: '2030-01-01T05:00:00Z' },
    { kind: 'jwt', id: 'dd', state: 'tainted', published_since: '2030-01-01T00:00:00Z', activates_at: '2030-01-01T00:00:00Z', leaves_at: '2030-01-01T01:00:30Z', not_after: '2030-01-01T02:00:00Z' },
  ],
  roots: [],
};

test('the keys are a table for people, with what can be done next below', (t) => {
  t.is(
    describeAuthority(VIEW, NOW, plain),
    `KIND  STATE     IN THE BUNDLE  SIGNS       GIVEN UP  ID
x509  old       1h ago         no more     in 1h     aa11
x509  active    its root is    yes         in 3h     bb22
jwt   prepared  1m ago         from in 2h  in 4h     c\\u{1b}[2J
jwt   tainted   1h ago         never       in 30s    dd

The prepared key (jwt) can be activated from 2030-01-01 01:02:00 UTC on: "signet authority activate jwt". By itself it signs from 2030-01-01 03:00:00 UTC on.
`,
  );
});

test('roots that are above the CA of the node are told apart, with from when on a CA under them may sign', (t) => {
  const root = { id: '0123456789abcdef0123', subject: 'CN=Root', published_since: '2030-01-01T00:59:00Z', usable_from: '2030-01-01T01:02:00Z', not_after: '2030-01-11T01:00:00Z' };
  const roots = [root, { ...root, usable_from: '2030-01-01T00:30:00Z' }, { ...root, left_at: '2030-01-01T00:30:00Z' }];
  t.regex(
    describeAuthority({ keys: [], roots }, NOW, plain),
    /\nRoots above\n {2}IN THE BUNDLE +USABLE +ENDS +NAME +SHA-256\n {2}1m ago +in 2m +in 10d +CN=Root +0123456789abcdef\n {2}1m ago +yes .*\n {2}1m ago +given up above .*\n$/,
  );
});

test('what happens is told as sentences, and so is what would', (t) => {
  const key = VIEW.keys[1]!;
  const answer: OrderAnswer = { done: true, key, says: ['bb22 signs from now on', 'another \u001b[2J thing'] };
  t.is(describeOrder(answer, plain), 'Done (x509 bb22: active):\n  bb22 signs from now on.\n  another \\u{1b}[2J thing.\n');
  t.is(describeOrder({ ...answer, done: false }, plain), 'Nothing is done; this would happen:\n  bb22 signs from now on.\n  another \\u{1b}[2J thing.\n');
});

interface Scene {
  readonly given: (readonly [string, object])[];
  signet(words: string): Promise<Result>;
}

const KEY: KeyFact = { kind: 'jwt', id: 'abcdef123', state: 'active', activatesAt: 0, leavesAt: 1_000, notAfter: 1_000 };

async function setUp(t: ExecutionContext, result: OrderResult = { kind: 'done', key: KEY, says: ['it is so'] }): Promise<Scene> {
  const given: (readonly [string, object])[] = [];
  const obey = (name: string) => async (order: KindOrder | KeyOrder): Promise<OrderResult> => {
    given.push([name, order]);
    return result;
  };
  const orders: AuthorityControl['orders'] = {
    keys: () => [KEY],
    roots: () => [],
    prepare: obey('prepare'),
    activate: obey('activate'),
    taint: obey('taint'),
    revoke: obey('revoke'),
    onTaint: () => () => undefined,
  };
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { authority: { orders, commanded: () => undefined } } }));
  return { given, signet: (words) => run(words.split(' '), { env: { SIGNET_ADMIN_SOCKET: socketPath } }) };
}

test('signet authority show lists the keys, as a table and as JSON', async (t) => {
  const { signet } = await setUp(t);
  const { code, stdout } = await signet('authority show');
  t.is(code, 0);
  t.regex(stdout, /^KIND.*\njwt +active .* abcdef123\n$/);
  t.like(JSON.parse((await signet('authority show -o json')).stdout), { keys: { 0: { id: 'abcdef123', state: 'active', leaves_at: '1970-01-01T00:00:01Z' } } });
});

const WORDS: readonly (readonly [words: string, name: string, order: object])[] = [
  ['prepare x509', 'prepare', { kind: 'x509', dryRun: false }],
  ['prepare jwt --dry-run', 'prepare', { kind: 'jwt', dryRun: true }],
  ['activate jwt', 'activate', { kind: 'jwt', force: false, dryRun: false }],
  ['activate x509 --force --dry-run', 'activate', { kind: 'x509', force: true, dryRun: true }],
  ['taint abcdef', 'taint', { id: 'abcdef', force: false, dryRun: false }],
  ['taint --force -- -QxV8t', 'taint', { id: '-QxV8t', force: true, dryRun: false }],
  ['revoke abcdef123', 'revoke', { id: 'abcdef123', dryRun: false }],
];

for (const [words, name, order] of WORDS) {
  test(`signet authority ${words} is the order ${name}`, async (t) => {
    const { signet, given } = await setUp(t);
    const { code, stdout, stderr } = await signet(`authority ${words}`);
    t.deepEqual([code, stdout, stderr], [0, 'Done (jwt abcdef123: active):\n  it is so.\n', '']);
    t.deepEqual(given, [[name, order]]);
  });
}

test('an order that is refused ends with 1, and says why and what to do', async (t) => {
  const { signet } = await setUp(t, { kind: 'refused', code: 'not_now', why: 'nothing is prepared', next: 'prepare one first' });
  t.deepEqual(await signet('authority activate jwt'), { code: 1, stdout: '', stderr: 'signet: nothing is prepared\n  prepare one first\n' });
});

const WRONG: readonly (readonly [words: string, message: RegExp])[] = [
  ['prepare', /something is missing: signet authority prepare x509\|jwt/],
  ['prepare both', /the kind of key is "both"; allowed is x509 or jwt/],
  ['prepare jwt --force', /unknown option --force/],
  ['taint abc', /the ID is "abc"; allowed is one of "signet authority show"/],
  ['taint', /something is missing/],
  ['revoke abcdef --force', /unknown option --force/],
  ['show x509', /one argument too many/],
  ['activte jwt', /did you mean "signet authority activate"/],
];

for (const [words, message] of WRONG) {
  test(`signet authority ${words} ends with 2 before anything is asked`, async (t) => {
    const { signet, given } = await setUp(t);
    const { code, stderr } = await signet(`authority ${words}`);
    t.is(code, 2);
    t.regex(stderr, message);
    t.deepEqual(given, []);
  });
}
