import { readFileSync } from 'node:fs';

/** In whole megabytes. */
export interface Memory {
  readonly rss: number;
  readonly anonymous: number;
  /** The most that was ever resident. */
  readonly peak: number;
}

/** Of a process of this machine. */
export function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (name: string): number =>
    Math.round(Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024);
  return { rss: megabytes('VmRSS'), anonymous: megabytes('RssAnon'), peak: megabytes('VmHWM') };
}
