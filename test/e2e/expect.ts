import { isDeepStrictEqual } from 'node:util';

/** @throws Error that shows both values */
export function same(actual: unknown, expected: unknown, what: string): void {
  if (!isDeepStrictEqual(actual, expected)) throw new Error(`${what}: ${shown(actual)}, want ${shown(expected)}`);
}

/** @throws Error with the text of `what` */
export function holds(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

export function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 800);
}
