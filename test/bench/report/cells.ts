import { figure } from './table.ts';
import type { Usage } from '../load-client.ts';

/** One table of the report with what has to be said to it. */
export interface Section {
  readonly title: string;
  readonly notes: readonly string[];
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export function errorsText(errors: ReadonlyMap<string, number>, failures: readonly string[]): string {
  const list = [...errors].map(([code, count]) => `${count} ${code}`);
  if (failures.length > 0) list.push(`${failures.length} failed`);
  return list.length > 0 ? list.join(', ') : '0';
}

export const mebibytes = (kib: number | undefined): string => figure(kib === undefined ? undefined : kib / 1024);

export function memoryOf(u: Usage | undefined): string {
  return u === undefined || u.error !== undefined ? '–' : [u.rss_kib, u.pss_kib, u.anonymous_kib].map(mebibytes).join(' / ');
}

export const descriptorsOf = (u: Usage | undefined): string => (u === undefined || u.error !== undefined ? '–' : String(u.fds));

/** Smallest to largest; one figure where they are the same. */
export function range(values: readonly number[]): string {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return '–';
  const [least, most] = [figure(Math.min(...finite)), figure(Math.max(...finite))];
  return least === most ? least : `${least}–${most}`;
}
