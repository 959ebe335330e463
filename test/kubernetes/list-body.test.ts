import test from 'ava';
import { readList } from '../../src/kubernetes/list-body.ts';

interface Split {
  readonly rest: unknown;
  readonly items: readonly unknown[];
}

/** The text as a body in chunks of `size` bytes. */
async function split(text: string, size: number, maxBytes = 10_000): Promise<Split> {
  const bytes = Buffer.from(text);
  const items: unknown[] = [];
  const body = async function* (): AsyncGenerator<Buffer, void, undefined> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  };
  const rest = await readList(body(), maxBytes, 'GET x', (item) => items.push(JSON.parse(item)));
  return { rest: JSON.parse(rest), items };
}

const LISTS: readonly (readonly [what: string, list: Record<string, unknown>])[] = [
  ['as the API server writes it', { kind: 'PodList', metadata: { resourceVersion: '1', continue: 'x' }, items: [{ a: [1, { b: [] }] }, { c: {} }] }],
  ['with what looks like structure inside texts', { kind: 'a "items": [ b', items: [{ a: '],[{}"\\' }, { b: '\\"]},{"items":[' }, { '"items":[': 'é\u2028✓' }] }],
  ['with other lists called items', { metadata: { items: [{ no: 1 }] }, other: [[1, 2], { items: [3] }], items: [{ items: [{ yes: [] }] }] }],
  ['with its items first', { items: [{ a: 1 }], metadata: { resourceVersion: '2' } }],
  ['with nothing in it', { metadata: {}, items: [] }],
  ['that is null', { metadata: {}, items: null }],
  ['without items', { kind: 'Status' }],
  ['with elements that are no objects', { items: [1, null, 'x,y', [1, 2], {}] }],
];

for (const [what, list] of LISTS) {
  test(`a list ${what} is taken apart, wherever the chunks end`, async (t) => {
    const items = Array.isArray(list['items']) ? list['items'] : [];
    const rest = { ...list, ...(items.length > 0 ? { items: [] } : {}) };
    for (const space of [0, 1]) {
      const text = JSON.stringify(list, undefined, space);
      for (const size of [1, 2, 3, 7, text.length + 9]) t.deepEqual(await split(text, size), { rest, items });
    }
  });
}

test('an answer that ends too early is no JSON', async (t) => {
  const text = JSON.stringify({ metadata: {}, items: [{ a: 1 }, { b: 2 }] });
  for (let length = 1; length < text.length; length += 1) await t.throwsAsync(split(text.slice(0, length), 5), { instanceOf: SyntaxError });
});

test('one element, and all around them, is bounded; their number is not', async (t) => {
  const list = (...items: unknown[]): string => JSON.stringify({ metadata: {}, items });
  t.is((await split(list(...Array.from({ length: 1_000 }, () => 'x'.repeat(90))), 64, 100)).items.length, 1_000);
  await t.throwsAsync(split(list('x'.repeat(100)), 64, 100), { code: 'limit_exceeded', message: 'GET x: one item is larger than 100 bytes' });
  await t.throwsAsync(split(JSON.stringify({ kind: 'x'.repeat(100) }), 64, 100), { code: 'limit_exceeded', message: 'GET x: the answer around its items is larger than 100 bytes' });
});
