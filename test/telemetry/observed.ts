import { EventBus } from '../../src/events.ts';
import type { Log } from '../../src/log.ts';
import { Readiness } from '../../src/telemetry/readiness.ts';
import type { MetricSources } from '../../src/telemetry/sources.ts';
import { openTelemetry, type Telemetry } from '../../src/telemetry/telemetry.ts';
import { FakeClock } from '../support/fake-clock.ts';
import type { Address } from './scrape.ts';

const FREE: Address = { host: '127.0.0.1', port: 0 };

export const silentLog: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

/** Rooms that are all there, each with figures of its own. */
export function fullSources(clock: { now(): number }): MetricSources {
  const term = (lifeMs: number, left: number) => ({ lifeMs, notAfter: clock.now() + lifeMs * left });
  return {
    identities: () => ({ x509: 3, jwt: 5, lives: [] }),
    load: () => ({ connections: 11, calls: 7, streams: 6, owners: 2 }),
    authorities: () => ({ x509: term(1_000_000, 0.5), jwt: term(2_000_000, 0.5), root: term(4_000_000, 0.5) }),
    bundle: () => ({ x509Authorities: 2, jwtAuthorities: 4 }),
    entries: () => 8,
    pods: () => ({ size: 9, unlisted: 1, synced: true, lastContact: clock.now() - 30_000, conflicts: 2, oversized: 3 }),
    rules: () => ({ loaded: 10, refused: 1 }),
    audit: () => ({ written: 12, dropped: 13, failures: 14 }),
  };
}

export interface Observed {
  /** Where telemetry is served. */
  readonly address: Address;
  readonly events: EventBus;
  readonly clock: FakeClock;
  readonly readiness: Readiness;
  readonly telemetry: Telemetry;
}

/** Telemetry on a free port of the loopback, with rooms as told. */
export async function observe(change: (sources: MetricSources, clock: FakeClock) => Partial<MetricSources> = () => ({}), address: Address = FREE): Promise<Observed> {
  const events = new EventBus();
  const clock = new FakeClock();
  const full = fullSources(clock);
  const sources = { ...full, ...change(full, clock) };
  const readiness = new Readiness({ events, clock, pods: () => sources.pods() });
  const telemetry = await openTelemetry({
    address,
    events,
    clock,
    log: silentLog,
    readiness,
    sources,
    live: () => true,
    version: '1.2.3',
    descriptorLimit: 1_024,
  });
  return { events, clock, readiness, telemetry, address: telemetry.address ?? address };
}
