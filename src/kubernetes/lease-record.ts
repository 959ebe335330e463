import { objectAt, textAt, timeAt, type JsonObject } from './json.ts';

/** What a candidate has read of a Lease (coordination.k8s.io/v1). */
export interface Seen {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly holder: string;
  /** In its holder's own words: good for a guess, never for a decision. */
  readonly renewedAt: number | undefined;
  readonly acquireTime: string;
  readonly transitions: number;
  readonly durationMs: number;
  /** Differs after each renewal. */
  readonly key: string;
}

/** Of a record that does not say it, as far as ours go. */
const DURATION_MS = 120_000;
/** A record that asks for more patience than this is a mistake or a trick. */
const LONGEST_DURATION_MS = 3_600_000;

export function seenOf(raw: JsonObject): Seen {
  const [metadata, spec] = [objectAt(raw, 'metadata'), objectAt(raw, 'spec')];
  const [holder, renewTime] = [textAt(spec, 'holderIdentity'), textAt(spec, 'renewTime')];
  const { leaseTransitions: transitions, leaseDurationSeconds: seconds } = spec;
  return {
    uid: textAt(metadata, 'uid'),
    resourceVersion: textAt(metadata, 'resourceVersion'),
    holder,
    renewedAt: timeAt(spec, 'renewTime'),
    acquireTime: textAt(spec, 'acquireTime'),
    transitions: typeof transitions === 'number' ? transitions : 0,
    durationMs: typeof seconds === 'number' ? Math.min(seconds * 1_000, LONGEST_DURATION_MS) : DURATION_MS,
    key: JSON.stringify([textAt(metadata, 'uid'), holder, renewTime, transitions]),
  };
}

/** As `metav1.MicroTime` is written. */
export function microTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}
